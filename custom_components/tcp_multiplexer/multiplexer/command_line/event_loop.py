"""The event loop of the command line: uvloop's, where that is installed.

It comes with the extra `fast`. The engine runs on asyncio's own as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
import errno
from importlib.util import find_spec
import socket
import time
from typing import Any, override

type _Factory = Callable[[], asyncio.AbstractEventLoop]


def loop_factory() -> _Factory | None:
    """Return what makes the event loop; None: asyncio's own is made."""
    return _uvloop() if find_spec("uvloop") else None


# The tests run it where it is installed: script/test --compiled.
def _uvloop() -> _Factory:  # pragma: no cover
    import uvloop  # noqa: PLC0415 - it is optional, and there is none for Windows

    class Loop(uvloop.Loop):
        """uvloop's loop, without two faults of it."""

        # uvloop's ticks in milliseconds. It is the same clock otherwise; response times
        # are measured by it.
        time = staticmethod(time.monotonic)

        @override
        async def sock_connect(self, sock: socket.socket, address: Any) -> None:
            """Connect; uvloop's own would forget the interface of a local address."""
            if len(address) == 4 and address[3]:
                await _connect(self, sock, address)
            else:
                await super().sock_connect(sock, address)

    return Loop


async def _connect(  # pragma: no cover
    loop: asyncio.AbstractEventLoop, sock: socket.socket, address: tuple[Any, ...]
) -> None:
    """Connect a socket that does not block.

    Raises:
        OSError: there is no connection.

    """
    error = sock.connect_ex(address)
    if error == errno.EINPROGRESS:
        decided = asyncio.Event()
        loop.add_writer(sock, decided.set)
        try:
            await decided.wait()
        finally:
            loop.remove_writer(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, f"Connect call failed {address}")
