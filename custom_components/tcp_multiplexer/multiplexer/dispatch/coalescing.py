"""Request coalescing: which read an identical one may join, and what may be cached.

The invariant: a read that starts after a write was answered never sees the older value.
So nothing is shared across a write. A read joins an identical one only while no write
to that scope waits or is in flight, and only if there was none since the other was
sent. A response is cached only under the same conditions, and every write to a scope
clears what was cached of it. A value that the device changes by itself may thus be one
response time old, plus the time-to-live if there is one.

A read that joins follows the first, its leader. A response to the leader answers the
followers too; if there is none, the first follower whose deadline allows it becomes
the leader. A read that has joined another is asked for itself as soon as its client
writes something, and ahead of that: no read is overtaken by its own client's write.
"""

from typing import TYPE_CHECKING, Any

from .exchange import NOBODY

if TYPE_CHECKING:
    from ..protocols.base import Request, ShareKey
    from .cache import Cache
    from .exchange import Exchange
    from .last_writes import LastWrites


class Coalescer:
    """Which read leads the identical ones, and which response may be cached."""

    def __init__(self, cache: Cache, last_writes: LastWrites, *, share: bool) -> None:
        """Join identical reads if `share`; keep responses in `cache`, if it is used.

        `last_writes` learns of every write.
        """
        self.share = share
        self.cache = cache
        self.last_writes = last_writes
        self.leaders: dict[ShareKey, Exchange] = {}
        """Unanswered reads, except those that a write has made stale."""

    def leader(self, key: ShareKey) -> Exchange | None:
        """Return the exchange that an identical read may join, or None."""
        leader = self.leaders.get(key)
        if leader is None or not self.share:
            return None
        requester = leader.requester
        if requester.held or requester.pinned:
            # It is held back with its requester, or may be once it is put back; or it
            # waits for its one connection, where it may be answered differently.
            return None
        if not leader.attempts:
            # It must be its requester's next: not behind other requests, and not at
            # this very moment on its way from the queue to a connection.
            pending = requester.pending
            if not pending or pending[0] is not leader:
                return None
        return leader

    def wrote(self, request: Request) -> None:
        """Note that a write has been accepted, sent, or has ended.

        A broadcast, to which nothing replies, writes to every scope.
        """
        scope, everywhere = request.writes, not request.expects_reply
        if everywhere:
            self.cache.clear()
            self.last_writes.clear()
        else:
            self.cache.clear_scope(scope)
            if self.last_writes.ttl:
                self.last_writes.forget(scope)
        for key, leader in tuple(self.leaders.items()):
            if leader.attempts and (everywhere or key[0] == scope):
                del self.leaders[key]

    def answered(self, exchange: Exchange, response: Any, now: float) -> None:
        """Cache a response, unless a write may have made it stale."""
        key = exchange.request.share_key
        if key is not None and self.leaders.get(key) is exchange:
            self.cache.put(key, response, now)

    def retire(self, exchange: Exchange) -> None:
        """Let nobody else join `exchange`; those who have stay."""
        key = exchange.request.share_key
        if key is not None and self.leaders.get(key) is exchange:
            del self.leaders[key]

    def ended(self, exchange: Exchange) -> list[Exchange]:
        """Note that `exchange` no longer leads; return those that followed it."""
        key = exchange.request.share_key
        if key is not None and self.leaders.get(key) is exchange:
            del self.leaders[key]
        followers = exchange.followers
        if followers:
            exchange.followers = NOBODY
        return followers
