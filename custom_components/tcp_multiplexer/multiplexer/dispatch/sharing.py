"""Requests that are not sent: a response to another one answers them.

That is an identical one, or one that covers what they read. Its response may be in the
cache, as the confirmation of a write may be that of the last. Else each follows its
leader, a request that is pending or in flight, and counts as pending until that ends.
It has a deadline of its own, and may part from its leader: to fail at that deadline, to
be asked for itself, or because its client has left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..protocols.base import Failure
from .exchange import NOBODY, Repetition

if TYPE_CHECKING:
    from ..protocols.base import Protocol, ShareKey
    from ..protocols.extent import Extent
    from .coalescing import Coalescer
    from .coverage import Wider
    from .exchange import Exchange, Requester
    from .queue import RequestQueue
    from .recorder import Recorder
    from .refreshing import Refresher
    from .timer import Timer


class Sharing:
    """Answers requests without asking the device, and knows who follows whom."""

    def __init__(  # noqa: PLR0917 - the parts that it connects
        self,
        protocol: Protocol[Any],
        coalescer: Coalescer,
        queue: RequestQueue,
        recorder: Recorder,
        timer: Timer,
        refresher: Refresher,
    ) -> None:
        self._protocol = protocol
        self._coalescer = coalescer
        self._cache = coalescer.cache
        self._last_writes = coalescer.last_writes
        self._queue = queue
        self._recorder = recorder
        self._timer = timer
        self._refresher = refresher

    def share(self, exchange: Exchange, key: ShareKey, wider: Wider) -> bool:
        """Answer a read from the cache, or join it to another one, if allowed.

        That is an identical one, or one of those that are `wider`, which may be asked
        for that.
        """
        requester, leader = exchange.requester, None
        if requester.writing or requester.pinned or self._queue.writing(key[0]):
            return False
        if self._cache.ttl:
            now = exchange.arrived
            self._coalescer.coverage.asked(exchange.request, now)
            response = self._cache.get(key, now)
            if response is None and wider:
                response = self._cut(exchange.request.extent, wider, now)
            if response is not None:
                self._recorder.served_from_cache(exchange, response, now)
                requester.answered(exchange, response)
                return True
        if self._coalescer.share and requester.counted:
            leader = self._coalescer.leader(key, wider)
            if leader is None and wider and self._cache.ttl:
                leader = self._refresher.refresh(exchange, wider)
        if leader is None:
            return False
        self.join(exchange, leader)
        return True

    def _cut(self, part: Extent | None, wider: Wider, now: float) -> Any | None:
        """Return what a cached response to a wider read says of a part, or None."""
        for key, whole in wider:
            response = self._cache.get(key, now)
            if response is not None and part is not None and whole.is_whole(response):
                return whole.cut(response, part)
        return None

    def confirm(self, exchange: Exchange) -> bool:
        """Confirm a write that repeats the last one of its unit, if that is allowed."""
        requester, now = exchange.requester, exchange.arrived
        if requester.writing or requester.pinned:
            return False
        response = self._last_writes.confirmation(exchange.request, now)
        if response is None:
            return False
        self._recorder.write_repeated(exchange, response, now)
        requester.answered(exchange, response)
        return True

    def keep_write(self, exchange: Exchange, response: Any, now: float) -> None:
        """Keep a write that was confirmed, unless another one is on its way."""
        request = exchange.request
        if (
            request.expects_reply
            and not self._protocol.is_exception(response)
            and self._protocol.acknowledge(request) is not None
            and not exchange.requester.pinned
            and not self._queue.writing(request.writes)
        ):
            self._last_writes.put(request, response, now)

    def repeat(self, exchange: Repetition, first: Exchange) -> Failure | None:
        """Let a request end as `first` does; return its failure if it has failed."""
        if exchange.request.writes is not None:
            exchange.requester.writing += 1
        if first.result is None:
            self.join(exchange, first)
            return None
        response, failure = first.result
        if failure is None:
            self._queue.attach(exchange, first)
            self.answer(first, [exchange], response, exchange.arrived)
        return failure

    def join(self, follower: Exchange, leader: Exchange) -> None:
        """Let a request follow another, which has not ended."""
        if not leader.followers:
            leader.followers = []
        leader.followers.append(follower)
        self._queue.attach(follower, leader)
        if follower.deadline < self._timer.at:
            self._timer.set(follower.deadline)

    def answer(
        self, leader: Exchange, followers: list[Exchange], response: Any, now: float
    ) -> None:
        """Hand a response to those that followed the request that it answers.

        Those follow on that it does not answer, because it is not whole.
        """
        parts = [(f, _part_of(leader, response, f)) for f in followers]
        leader.followers = [f for f, part in parts if part is None] or NOBODY
        answers = [(f, part) for f, part in parts if part is not None]
        for exchange, _ in answers:
            self._queue.detach(exchange)
        for exchange, part in answers:
            requester = exchange.requester
            if exchange.request.writes is not None:
                requester.writing -= 1
            self._recorder.coalesced(exchange, part, now)
            requester.answered(exchange, part)
            self.answer(exchange, exchange.followers, part, now)  # its repetitions
            self._queue.relieve(requester)

    def part(self, follower: Exchange) -> Exchange:
        """Let a request follow no longer; return what it followed."""
        leader = follower.requester.joined[follower]
        leader.followers.remove(follower)
        self._queue.detach(follower)
        return leader

    def part_reads(self, requester: Requester) -> list[Exchange]:
        """Let the reads of a requester follow others no longer; return them."""
        reads = [f for f in requester.joined if not isinstance(f, Repetition)]
        for exchange in reads:
            self.part(exchange)
        return reads

    def part_overdue(
        self, now: float, otherwise: Failure
    ) -> list[tuple[Exchange, Failure]]:
        """Let those follow no longer that have reached their deadline; return them.

        With each comes why it fails: `otherwise` if its leader was never sent.
        """
        return [
            (f, Failure.NO_RESPONSE if self.part(f).attempts else otherwise)
            for f in self._queue.overdue(now + 1e-9)
        ]

    def succeed(self, leader: Exchange, followers: list[Exchange]) -> None:
        """Let those that followed another follow `leader`."""
        for follower in followers:
            follower.requester.joined[follower] = leader
        leader.followers = [*leader.followers, *followers] or NOBODY

    def take_others(self, leader: Exchange) -> list[Exchange]:
        """Let the requests of other requesters follow `leader` no longer; return them.

        They count as followers until they have another leader.
        """
        own = [f for f in leader.followers if f.requester is leader.requester]
        others = [f for f in leader.followers if f.requester is not leader.requester]
        leader.followers = own or NOBODY
        return others


def _part_of(leader: Exchange, response: Any, follower: Exchange) -> Any | None:
    """Return what the response to a request says to one that follows it, if anything.

    An exception, or another number of values than were asked for, is no response to
    another request.
    """
    if follower.request.payload == leader.request.payload:
        return response
    whole, part = leader.request.extent, follower.request.extent
    if whole is None or part is None or not whole.is_whole(response):
        return None
    return whole.cut(response, part)
