"""Closes all connections, and waits until they are closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..dispatch.connections import Connections
    from ..dispatch.exchange import CloseReason


class Closer:
    """Closes the connections to a device."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] | None = None
        """Resolved when the next connection is gone, or when closing is called off."""

    async def close_all(self, reason: CloseReason, *, drain: bool) -> None:
        """Close the open connections; return when they are closed.

        With `drain`, exchanges in flight may finish first.
        """
        closing = tuple(self._connections)
        for upstream in closing:
            if drain:
                self._connections.drain(upstream, reason)
            else:
                upstream.close(reason)
        while any(u.draining and u in self._connections.open for u in closing):
            if self._closed is None:
                self._closed = self._loop.create_future()
            await asyncio.shield(self._closed)

    def wake(self) -> None:
        """Check again whether they are closed."""
        if self._closed is not None:
            self._closed.set_result(None)
            self._closed = None
