"""Replies that leave in the order of their requests, whatever order they come in.

Where a client's protocol is `ordered`, each request takes a place in line as it is
read, and so does what the codec answers or closes by itself. A place is served once
everything before it is, and its outcome is known.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple

from ..dispatch.exchange import Exchange
from ..protocols.base import Close

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..protocols.base import DownstreamCodec, Reply


class Then(enum.Enum):
    """What becomes of the connection after a reply."""

    KEEP = enum.auto()
    CLOSE = enum.auto()
    LINGER = enum.auto()
    """Close it in stages, so that the last words arrive (RFC 9112 §9.6)."""


class Said(NamedTuple):
    """What the client is told next."""

    data: bytes
    then: Then = Then.KEEP


class OrderedReplies:
    """The line in which one client's replies wait."""

    __slots__ = ("_codec", "_line", "own")

    def __init__(self, codec: DownstreamCodec[Any]) -> None:
        self._codec = codec
        self._line: list[Exchange | Reply | Close] = []
        self.own = 0
        """Bytes in line that needed no device."""

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._line)

    def append(self, item: Exchange | Reply | Close) -> None:
        """Give a request, or what is said without asking the device, its place."""
        self._line.append(item)
        if not isinstance(item, Exchange):
            self.own += len(item.data)

    def clear(self) -> None:
        """Say nothing more."""
        self._line.clear()
        self.own = 0

    def abandon(
        self, dropped: Collection[Exchange], pending: Collection[Exchange]
    ) -> None:
        """Keep no place for what will have no outcome: its client has left.

        That is what was dropped, and reads that followed another client's: they were
        never sent, and wait for no turn of their own. Nothing is said behind these: it
        would be taken for the reply to them.
        """
        kept: list[Exchange | Reply | Close] = []
        for item in self._line:
            if (
                isinstance(item, Exchange)
                and item.result is None
                and item not in pending
                and (not item.attempts or item in dropped)
            ):
                break
            kept.append(item)
        self._line = kept
        self.own = sum(len(i.data) for i in kept if not isinstance(i, Exchange))

    def pop(self) -> Said | None:
        """Return what is to be said next, if that is known."""
        if not self._line:
            return None
        item = self._line[0]
        if isinstance(item, Exchange):
            if item.result is None:
                return None
            said = self._reply(item)
        else:
            then = Then.KEEP
            if isinstance(item, Close):
                then = Then.LINGER if item.data else Then.CLOSE
            said = Said(item.data, then)
            self.own -= len(item.data)
        del self._line[0]
        return said

    def _reply(self, exchange: Exchange) -> Said:
        codec = self._codec
        response, failure = exchange.result or (None, None)
        if failure is None:
            data: bytes | None = codec.reply(exchange.request, response)
        else:
            data = codec.refuse(exchange.request, failure)
        if data is None or codec.must_close:
            return Said(data or b"", Then.CLOSE)
        return Said(data)
