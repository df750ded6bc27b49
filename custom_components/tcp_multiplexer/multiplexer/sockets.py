"""Options of the sockets, downstream and upstream."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import Protocol as Interface

from .limits import MOST_FREE_DESCRIPTORS

if sys.platform != "win32":
    import resource

_KEEPALIVE_IDLE = 30
"""Seconds of silence before the first keepalive probe (tcp(7), TCP_KEEPIDLE)."""
_KEEPALIVE_INTERVAL = 10
"""Seconds between keepalive probes."""
_KEEPALIVE_COUNT = 3
"""Unanswered probes after which the peer is considered dead."""
_ACCEPT_TURNS = 3
"""Turns of the loop between asyncio's accepting a connection and `connection_made`."""
_USER_TIMEOUT_MS = 30_000
"""Milliseconds for which sent data may stay unacknowledged (RFC 5482)."""


def set_keepalive(transport: asyncio.BaseTransport) -> None:
    """Make the system detect a dead peer within about a minute, and disable Nagle.

    Options that this system does not support are skipped.
    """
    _set_options(
        transport,
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", _KEEPALIVE_IDLE),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", _KEEPALIVE_INTERVAL),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", _KEEPALIVE_COUNT),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", _USER_TIMEOUT_MS),
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    )


def hasten_keepalive(transport: asyncio.BaseTransport) -> None:
    """Make the system find out within four seconds whether the peer is alive."""
    _set_options(
        transport,
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", _KEEPALIVE_COUNT),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 3000),
    )


def limit_reads(transport: asyncio.BaseTransport, size: int) -> None:
    """Read at most `size` bytes at a time, if the transport can be told so."""
    if hasattr(transport, "max_size"):
        transport.max_size = size


def _set_options(
    transport: asyncio.BaseTransport, *options: tuple[int, str, int]
) -> None:
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    for level, name, value in options:
        option = getattr(socket, name, None)
        if option is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(level, option, value)


async def stop_accepting(*servers: asyncio.Server) -> None:
    """Complete the accepts that are under way, and begin no more.

    asyncio accepts a connection in several turns of the loop, and loses it, open, if
    its server is closed meanwhile.
    """
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # loops without readers
        for server in servers:
            for sock in server.sockets:
                loop.remove_reader(sock)
    for _ in range(_ACCEPT_TURNS):
        await asyncio.sleep(0)


class _Described(Interface):
    def fileno(self) -> int:
        """Return the file descriptor."""


def is_one_too_many(sock: _Described) -> bool:
    """Return whether the process is about to run out of file descriptors.

    A new descriptor is the lowest free one (POSIX, 2.6), so that of a socket just
    accepted shows about how many are in use.
    """
    if sys.platform == "win32":  # there are handles, and so many of them
        return False
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return False
    return sock.fileno() >= limit - min(MOST_FREE_DESCRIPTORS, limit // 4)
