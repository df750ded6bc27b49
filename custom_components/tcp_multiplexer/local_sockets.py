"""Local ports and addresses, as this machine has them.

Nothing is predicted: a port is free, and an address this machine's, if it can be bound.
Nothing here knows Home Assistant.
"""

import asyncio
from collections.abc import Collection
import enum
import errno
import socket
from typing import Final

from .multiplexer import Settings

_UNPRIVILEGED: Final = 1024
_PORTS: Final = 65536


class ListenProblem(enum.StrEnum):
    """Why a local port cannot be bound."""

    NOT_PERMITTED = "port_not_permitted"
    IN_USE = "port_in_use"
    NOT_HERE = "address_not_here"
    OTHER = "cannot_listen"


async def try_listen(host: str | None, port: int) -> ListenProblem | None:
    """Bind a local port as the listener would, and release it; None if that works."""
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            asyncio.Protocol, host, port, start_serving=False
        )
    except OSError as err:
        return _listen_problem(err)
    server.close()
    return None


def _listen_problem(err: OSError) -> ListenProblem:
    match err.errno:
        case errno.EACCES | errno.EPERM:
            return ListenProblem.NOT_PERMITTED
        case errno.EADDRINUSE:
            return ListenProblem.IN_USE
    # asyncio takes EADDRNOTAVAIL for an address family that is switched off and, when
    # no address is left, raises an error without a number.
    if err.errno is None or isinstance(err, socket.gaierror):
        return ListenProblem.NOT_HERE
    return ListenProblem.OTHER


async def next_free_port(host: str | None, port: int, taken: Collection[int]) -> int:
    """Return the first port from `port` on that can be bound and is not in `taken`."""
    while port in taken or await try_listen(host, port) in (
        ListenProblem.IN_USE,
        ListenProblem.NOT_PERMITTED,
    ):
        port = max((port + 1) % _PORTS, _UNPRIVILEGED)
    return port


async def own_addresses(host: str) -> set[str]:
    """Return those addresses of `host` that are this machine's: that can be bound."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError, UnicodeError:  # unknown, or too long for a name
        return set()
    own: set[str] = set()
    for family, kind, number, _, address in found:
        try:
            with socket.socket(family, kind, number) as probe:
                probe.bind(address)
        except OSError:
            continue
        own.add(str(address[0]))
    return own


async def which_failed(settings: Settings) -> tuple[int, bool]:
    """Return the port that kept a multiplexer from starting; True: it is additional."""
    if await try_listen(settings.listen_host, settings.listen_port) is None:
        for listener in settings.more_listeners:
            if await try_listen(listener.host, listener.port) is not None:
                return listener.port, True
        if settings.dial_in is not None:
            return settings.dial_in.port, False
    return settings.listen_port, False
