"""Reads that need not be asked: joined to an identical one, or remembered a while.

What must hold is that a read which starts after a write was answered never sees the
older value. So nothing is shared across a write. A read joins an identical one only
while no write to that scope waits or is in flight, and only if none was since the
other was sent; a response is remembered only under the same conditions, and every
write to a scope forgets all that was remembered of it. What the device changes by
itself may thus be one response time old, or with a time-to-live that much older.

Who joins follows a leader. The leader's end is the followers' end when there is a
response; when there is none, the first follower whose deadline allows it leads.
"""

from typing import TYPE_CHECKING, Any

from .exchange import NOBODY

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..protocols.base import ShareKey
    from .exchange import Exchange

_REMEMBERED = 4096
"""Responses remembered of one scope, at most."""


class Coalescer:
    """Who leads which read, and what was answered lately."""

    def __init__(self, *, share: bool, ttl: float) -> None:
        """Join identical reads if `share`, remember responses for `ttl` seconds."""
        self.share = share
        self.ttl = ttl
        self.leaders: dict[ShareKey, Exchange] = {}
        """Reads asked and not answered, but for those that a write has made old."""
        self._remembered: dict[Hashable, dict[ShareKey, tuple[float, Any]]] = {}
        """Per scope, responses and until when they are fresh, the oldest first."""

    def recall(self, key: ShareKey, now: float) -> Any | None:
        """Give a response that is still fresh."""
        remembered = self._remembered.get(key[0])
        if remembered is None:
            return None
        until, response = remembered.get(key, (0.0, None))
        return response if now < until else None

    def leader(self, key: ShareKey) -> Exchange | None:
        """Give the exchange that an identical read may join."""
        leader = self.leaders.get(key)
        if leader is None or not self.share:
            return None
        if not leader.attempts:
            # not behind others of its requester's, nor of one that is not served
            # (nor on its way from the queue to a connection, at this very moment)
            requester = leader.requester
            pending = requester.pending
            if not pending or pending[0] is not leader or requester.held:
                return None
        return leader

    def wrote(self, scope: Hashable) -> None:
        """Note that a write to `scope` was taken, or has ended."""
        self._remembered.pop(scope, None)
        for key, leader in tuple(self.leaders.items()):
            if key[0] == scope and leader.attempts:
                del self.leaders[key]

    def answered(self, exchange: Exchange, response: Any, now: float) -> None:
        """Remember a response, unless a write may have made it old."""
        key = exchange.request.share_key
        if key is not None and self.leaders.get(key) is exchange:
            remembered = self._remembered.setdefault(key[0], {})
            remembered.pop(key, None)
            remembered[key] = (now + self.ttl, response)
            if len(remembered) > _REMEMBERED:
                del remembered[next(iter(remembered))]

    def ended(self, exchange: Exchange) -> list[Exchange]:
        """Note that `exchange` leads no more; give those who followed it."""
        key = exchange.request.share_key
        if key is not None and self.leaders.get(key) is exchange:
            del self.leaders[key]
        followers = exchange.followers
        if followers:
            exchange.followers = NOBODY
        return followers
