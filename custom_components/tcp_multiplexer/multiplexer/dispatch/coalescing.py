"""Request coalescing: which read another may join, and what may be cached.

A read may join one that is identical, or that covers it: its response is cut from the
other's. It is never put together from two.

The invariant: a read that starts after a write was answered never sees the older value.
So nothing is shared across a write. A read joins another only while no write to that
scope waits or is in flight, and only if there was none since the other was sent. A
response is cached only under the same conditions, and every write to a scope clears
what was cached of it. A value that the device changes by itself may thus be one
response time old, plus the time-to-live if there is one.

A read that joins follows the first, its leader. A response to the leader answers the
followers too; if there is none, or not for all, those followers become leaders whose
deadline allows it. A read that has joined another is asked for itself as soon as its
client writes something, and ahead of that: no read is overtaken by its own client's
write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .coverage import Coverage
from .exchange import NOBODY

if TYPE_CHECKING:
    from ..protocols.base import Request, ShareKey
    from .cache import Cache
    from .coverage import Wider
    from .exchange import Exchange
    from .last_writes import LastWrites


class Coalescer:
    """Which read leads others, and which response may be cached."""

    def __init__(self, cache: Cache, last_writes: LastWrites, *, share: bool) -> None:
        """Join reads if `share`; keep responses in `cache`, if it is used.

        `last_writes` learns of every write.
        """
        self.share = share
        self.cache = cache
        self.last_writes = last_writes
        self.leaders: dict[ShareKey, Exchange] = {}
        """Unanswered reads, except those that a write has made stale."""
        self.coverage = Coverage()

    def apply(self, *, share: bool, ttl: float) -> None:
        """Apply changed settings; what was cached is forgotten.

        What was asked in parts until now may be asked whole, and cover others.
        """
        self.share = share
        self.cache.ttl = ttl
        self.cache.clear()
        self.coverage.clear()

    def leader(self, key: ShareKey, wider: Wider) -> Exchange | None:
        """Return what a read may join: its like, or one of the `wider`; or None."""
        leader = self.leaders.get(key)
        if leader is not None and _may_be_joined(leader):
            return leader
        for other, _ in wider:
            leader = self.leaders.get(other)
            if leader is not None and leader.split is None and _may_be_joined(leader):
                return leader
        return None

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
                self.retire(leader)

    def answered(self, exchange: Exchange, response: Any, now: float) -> None:
        """Cache a response, unless a write may have made it stale."""
        key, split = exchange.request.share_key, exchange.split
        if key is not None and self.leaders.get(key) is exchange:
            since = exchange.sent if split is None else split.since
            self.cache.put(key, response, since, now)

    def part_answered(self, exchange: Exchange, response: Any, now: float) -> None:
        """Cache the response to a part, unless a write may have made it stale."""
        key, part = exchange.request.share_key, exchange.asked
        if key is None or part.share_key is None or not self.cache.ttl:
            return
        if self.leaders.get(key) is exchange:
            self.cache.put(part.share_key, response, exchange.sent, now)
            if part.share_key not in self.coverage.wider:
                self.coverage.learn(part)

    def retire(self, exchange: Exchange) -> None:
        """Let nobody else join `exchange`; those who have stay."""
        key = exchange.request.share_key
        if key is not None and self.leaders.get(key) is exchange:
            del self.leaders[key]

    def ended(self, exchange: Exchange) -> list[Exchange]:
        """Note that `exchange` no longer leads; return those that followed it."""
        key = exchange.request.share_key
        if key is not None and self.leaders.get(key) is exchange:
            del self.leaders[key]  # as `retire` does, but for every read
        followers = exchange.followers
        if followers:
            exchange.followers = NOBODY
        return followers


def covers(leader: Exchange, other: Exchange) -> bool:
    """Return whether a response to one read is, or brings, one to another."""
    if leader.request.share_key == other.request.share_key:
        return True
    extent, part = leader.request.extent, other.request.extent
    return (
        extent is not None
        and part is not None
        and leader.split is None
        and extent.covers(part)
    )


def _may_be_joined(leader: Exchange) -> bool:
    requester = leader.requester
    if requester.held or requester.pinned:
        # It is held back with its requester, or may be once it is put back; or it
        # waits for its one connection, where it may be answered differently.
        return False
    if leader.attempts:
        return True
    # It must be its requester's next: not behind other requests, and not at this very
    # moment on its way from the queue to a connection.
    pending = requester.pending
    return bool(pending) and pending[0] is leader
