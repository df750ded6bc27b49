"""Requests of one client that are unanswered at once, where replies need no order.

Such a client knows each reply by its identifier. Some use the same identifier for
several requests, or for all, and know replies by their order: to these, a reply goes
only once those to earlier requests of that identifier have gone.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..dispatch.exchange import Exchange
    from ..protocols.base import DownstreamCodec, Request


class Overlapping:
    """The unanswered requests of one client, once it has several."""

    __slots__ = ("_codec", "_firsts", "_lines", "waiting")

    def __init__(self, codec: DownstreamCodec[Any]) -> None:
        self._codec = codec
        self._lines: dict[Hashable, deque[Exchange]] = {}
        """By identifier, the oldest first."""
        self._firsts: dict[tuple[Hashable, bytes], Exchange] = {}
        """By identifier and bytes, those that another may repeat."""
        self.waiting = 0
        """How many have ended, and wait for an earlier one."""

    def __len__(self) -> int:
        """Return for how many identifiers something is unanswered."""
        return len(self._lines)

    def add(self, exchange: Exchange) -> bool:
        """Add a request; return whether another with its identifier is unanswered."""
        request = exchange.request
        identifier = self._codec.identifier(request)
        self._firsts.setdefault((identifier, request.payload), exchange)
        line = self._lines.get(identifier)
        if line is None:
            self._lines[identifier] = deque((exchange,))
            return False
        line.append(exchange)
        return True

    def repeated_by(self, request: Request) -> Exchange | None:
        """Return the unanswered request that `request` repeats to the byte, or None."""
        return self._firsts.get((self._codec.identifier(request), request.payload))

    def settle(self, exchange: Exchange) -> list[Exchange]:
        """Note that a request has its result; return those to be told, in order."""
        identifier = self._codec.identifier(exchange.request)
        line = self._lines[identifier]
        if line[0] is not exchange:
            self.waiting += 1
            return []
        told = [line.popleft()]
        while line and line[0].result is not None:
            told.append(line.popleft())
            self.waiting -= 1
        if not line:
            del self._lines[identifier]
        for ended in told:
            key = (identifier, ended.request.payload)
            if self._firsts.get(key) is ended:
                del self._firsts[key]
        return told

    def clear(self) -> None:
        """Keep no order any more: the client has left."""
        self._lines.clear()
        self._firsts.clear()
        self.waiting = 0
