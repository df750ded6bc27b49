"""Where a device is, however it is written and reached.

Two entries that share one device would take it from each other; so there is one entry
for each endpoint.
"""

import asyncio
from collections.abc import Iterable, Mapping
import enum
import os
import socket
from typing import Any, Final

from homeassistant.const import CONF_DEVICE, CONF_HOST, CONF_PORT
from homeassistant.core import HomeAssistant
from yarl import URL

from ..const import CONF_DIAL_IN_PORT

_SERVERS: Final = {"socket", "tcp", "rfc2217"}
"""Schemes of serial ports that a server on the network offers at a port of its own."""

type Endpoint = tuple[str, int] | tuple[str] | tuple[int]
"""Host in lower case and port, a serial port, or a local port."""


def is_taken(data: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether one of the other entries has the endpoint of one with this data.

    Blocks: the names of serial ports are links.
    """
    return _endpoint(data) in map(_endpoint, others)


def _endpoint(data: Mapping[str, Any]) -> Endpoint:
    if CONF_DIAL_IN_PORT in data:
        return (data[CONF_DIAL_IN_PORT],)
    if CONF_DEVICE not in data:
        return data[CONF_HOST], data[CONF_PORT]
    device = data[CONF_DEVICE]
    if "://" not in device:
        # An adapter has several paths: by its serial number, by its place, and
        # ttyUSB0. They can only be compared while it is plugged in.
        return (os.path.realpath(device),)
    url = URL(device)
    if url.scheme in _SERVERS and url.host and url.port:
        return url.host, url.port
    return (device,)


class Nearness(enum.Enum):
    """How near two devices are to each other, and so to the only connection of one."""

    APART = enum.auto()
    """They have nothing in common."""
    SAME_HOST = enum.auto()
    """One host, at two ports: two devices, or two ways to one."""
    SAME = enum.auto()
    """There is one."""


async def async_nearness(
    hass: HomeAssistant, one: Mapping[str, Any], other: Mapping[str, Any]
) -> Nearness:
    """Return how near the devices of two entries with these data are."""
    if await hass.async_add_executor_job(is_taken, one, [other]):
        return Nearness.SAME
    if not (CONF_HOST in one and CONF_HOST in other):
        return Nearness.APART
    if one[CONF_HOST] != other[CONF_HOST]:
        theirs = await _addresses(other[CONF_HOST])
        if theirs.isdisjoint(await _addresses(one[CONF_HOST])):
            return Nearness.APART
    same_port = one[CONF_PORT] == other[CONF_PORT]
    return Nearness.SAME if same_port else Nearness.SAME_HOST


async def _addresses(host: str) -> set[str]:
    """Return the addresses of a host; none if nobody knows it."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError, UnicodeError:
        return set()
    return {str(address[0]) for *_, address in found}
