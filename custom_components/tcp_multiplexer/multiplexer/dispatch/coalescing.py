"""Request coalescing: reads that join an identical one, or are answered from a cache.

The invariant: a read that starts after a write was answered never sees the older value.
So nothing is shared across a write. A read joins an identical one only while no write
to that scope waits or is in flight, and only if there was none since the other was
sent. A response is cached only under the same conditions, and every write to a scope
clears what was cached of it. A value that the device changes by itself may thus be one
response time old, plus the time-to-live if there is one.

A read that joins follows the first, its leader. A response to the leader answers the
followers too; if there is none, the first follower whose deadline allows it becomes
the leader.
"""

from typing import TYPE_CHECKING, Any

from .exchange import NOBODY

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..protocols.base import Request, ShareKey
    from .exchange import Exchange

_CACHED = 4096
"""Maximum number of responses cached for one scope."""


class Coalescer:
    """Which read leads the identical ones, and the cached responses."""

    def __init__(self, *, share: bool, ttl: float) -> None:
        """Join identical reads if `share`; cache responses for `ttl` seconds."""
        self.share = share
        self.ttl = ttl
        self.leaders: dict[ShareKey, Exchange] = {}
        """Unanswered reads, except those that a write has made stale."""
        self._cache: dict[Hashable, dict[ShareKey, tuple[float, Any]]] = {}
        """By scope: when each response expires (loop time), and the response, the
        oldest first."""

    def recall(self, key: ShareKey, now: float) -> Any | None:
        """Return a cached response that is still fresh, or None."""
        cached = self._cache.get(key[0])
        if cached is None:
            return None
        until, response = cached.get(key, (0.0, None))
        return response if now < until else None

    def leader(self, key: ShareKey) -> Exchange | None:
        """Return the exchange that an identical read may join, or None."""
        leader = self.leaders.get(key)
        if leader is None or not self.share:
            return None
        if not leader.attempts:
            # It must be its requester's next: not behind other requests, not held back
            # with its requester, and not at this very moment on its way from the queue
            # to a connection.
            requester = leader.requester
            pending = requester.pending
            if not pending or pending[0] is not leader or requester.held:
                return None
        return leader

    def wrote(self, request: Request) -> None:
        """Note that a write has been accepted, sent, or has ended.

        A broadcast, to which nothing replies, writes to every scope.
        """
        scope, everywhere = request.writes, not request.expects_reply
        if everywhere:
            self._cache.clear()
        else:
            self._cache.pop(scope, None)
        for key, leader in tuple(self.leaders.items()):
            if leader.attempts and (everywhere or key[0] == scope):
                del self.leaders[key]

    def answered(self, exchange: Exchange, response: Any, now: float) -> None:
        """Cache a response, unless a write may have made it stale."""
        key = exchange.request.share_key
        if key is not None and self.leaders.get(key) is exchange:
            cached = self._cache.setdefault(key[0], {})
            cached.pop(key, None)
            cached[key] = (now + self.ttl, response)
            if len(cached) > _CACHED:
                del cached[next(iter(cached))]

    def ended(self, exchange: Exchange) -> list[Exchange]:
        """Note that `exchange` no longer leads; return those that followed it."""
        key = exchange.request.share_key
        if key is not None and self.leaders.get(key) is exchange:
            del self.leaders[key]
        followers = exchange.followers
        if followers:
            exchange.followers = NOBODY
        return followers
