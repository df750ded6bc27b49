"""Finds the addresses of a device's name, with one lookup at a time.

Lookups run in the event loop's threads, which others need, and the resolver cannot be
interrupted. So an attempt that gives up leaves its lookup to the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
import socket
from typing import Any

type AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""Family, type, protocol, canonical name and address, as of `socket.getaddrinfo`."""


class Resolver:
    """Looks up the addresses of one device."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._lookup: asyncio.Task[Sequence[AddressInfo]] | None = None

    async def addresses(self) -> Sequence[AddressInfo]:
        """Return the addresses of the device, the preferred one first.

        Raises:
            OSError: the name is not known.

        """
        literal = _literal(self._host, self._port)
        if literal is not None:
            return [literal]
        if self._lookup is None:
            self._lookup = asyncio.ensure_future(self._look_up())
            self._lookup.add_done_callback(self._looked_up)
        lookup = self._lookup
        await asyncio.wait((lookup,))
        return lookup.result()

    async def _look_up(self) -> Sequence[AddressInfo]:
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)

    def _looked_up(self, lookup: asyncio.Task[Sequence[AddressInfo]]) -> None:
        self._lookup = None
        if not lookup.cancelled():
            lookup.exception()  # it may be that nobody waits for it any more

    async def stop(self) -> None:
        """Leave nothing behind but a thread that cannot be interrupted."""
        if self._lookup is not None:
            self._lookup.cancel()
            await asyncio.wait((self._lookup,))


def _literal(host: str, port: int) -> AddressInfo | None:
    """Return an address that is written out, which needs no lookup.

    Raises:
        OSError: it names an interface that this machine does not have.

    """
    try:
        address = ip_address(host)
    except ValueError:
        return None
    where: tuple[Any, ...] = (host, port)
    family = socket.AF_INET
    if isinstance(address, IPv6Address):
        bare, _, scope = host.partition("%")
        where = (bare, port, 0, _number(scope) if scope else 0)
        family = socket.AF_INET6
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where


def _number(scope: str) -> int:
    """Return the number of the interface at which an address is (RFC 4007, 11.2)."""
    if scope.isdecimal():
        return int(scope)
    try:
        return socket.if_nametoindex(scope)
    except OSError as err:
        message = f"this machine has no network interface {scope}"
        raise OSError(err.errno, message) from None
