"""Where a device is, however it is written and reached.

Two entries that share one device would take it from each other; so there is one entry
for each endpoint.
"""

from collections.abc import Iterable, Mapping
import os
from typing import Any, Final

from homeassistant.const import CONF_DEVICE, CONF_HOST, CONF_PORT
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
