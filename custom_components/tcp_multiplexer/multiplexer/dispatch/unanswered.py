"""Requests that get no response: they fail, and those that joined them go on.

A read that has joined another is asked for itself if that fails, is put back while its
client does not read, or takes too long. The repetition of a request fails with it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol as Interface

from .coalescing import covers
from .exchange import Repetition

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..protocols.base import Failure, Protocol, ShareKey
    from .coalescing import Coalescer
    from .exchange import Exchange, Requester
    from .queue import RequestQueue
    from .recorder import Recorder
    from .sharing import Sharing
    from .supply import Supply


class Placing(Interface):
    """What it needs of the dispatcher, which it does not import."""

    supply: Supply

    def place(self, exchange: Exchange, key: ShareKey | None) -> None:
        """Queue a request, or fail it at once if it cannot be served in time."""

    def dispatch(self, now: float) -> None:
        """Send what can be sent (`now` is loop time)."""


class Unanswered:
    """Fails requests, and lets others take the place of those that they have joined."""

    def __init__(  # noqa: PLR0917 - the parts that it connects
        self,
        dispatcher: Placing,
        queue: RequestQueue,
        coalescer: Coalescer,
        sharing: Sharing,
        recorder: Recorder,
        protocol: Protocol[Any],
    ) -> None:
        self._dispatcher = dispatcher
        self._queue = queue
        self._coalescer = coalescer
        self._sharing = sharing
        self._recorder = recorder
        self._drops_reads = protocol.drop_reads_at_eof
        self._loop = asyncio.get_running_loop()

    # ---- requests fail ----------------------------------------------------------

    def fail(
        self,
        exchange: Exchange,
        failure: Failure,
        now: float,
        *,
        blame_device: bool = True,
    ) -> None:
        """Record a failure at `now` (loop time) and hand it to the requester.

        It counts towards the upstream's health, unless only a unit is to blame.
        """
        requester = exchange.requester
        if requester.counted:
            self._recorder.failed(exchange, failure, now)
        if exchange.request.writes is not None:
            requester.writing -= 1
            self._coalescer.wrote(exchange.request)
        if exchange.attempts:  # the unit may have been off
            self._coalescer.last_writes.forget(exchange.request.unit)
        requester.failed(exchange, failure)
        for follower in tuple(exchange.followers):
            if isinstance(follower, Repetition):
                self._sharing.part(follower)
                self.fail(follower, failure, now)
                self._relieve_soon(requester)
        self.succeed(self._coalescer.ended(exchange), now)
        if blame_device and exchange.attempts and requester.tells:
            # (else the device has no part in it)
            probe = not requester.counted
            self._dispatcher.supply.unanswered(failure, probe=probe)

    def drop(self, exchange: Exchange, failure: Failure, now: float) -> None:
        """Fail a pending request."""
        self._queue.drop(exchange)
        self.fail(exchange, failure, now)
        self._queue.relieve(exchange.requester)

    def fail_pending(
        self,
        failure: Failure,
        now: float,
        before: float,
        of: Iterable[Requester] | None = None,
    ) -> None:
        """Fail the pending requests whose deadline is before `before` (loop time)."""
        for requester in self._queue.requesters() if of is None else of:
            while requester.pending and requester.pending[0].deadline < before:
                self.drop(requester.pending[0], failure, now)
        self._queue.admit()

    def fail_followers(self, now: float, otherwise: Failure) -> None:
        """Fail the joined reads that have reached their own deadline.

        `otherwise` is why, if what they have joined was never sent.
        """
        for follower, failure in self._sharing.part_overdue(now, otherwise):
            self.fail(follower, failure, now)
            self._queue.relieve(follower.requester)

    def leave(self, requester: Requester, now: float) -> list[Exchange]:
        """Drop the pending requests of a requester that left at `now`; return them.

        Only those that nothing depends on are dropped; the others are still served.
        """
        for follower in tuple(requester.joined):
            self._sharing.part(follower)
        reads = self._drops_reads
        dropped = self._queue.leave(
            requester, lambda r: r.retry_safe or (reads and r.writes is None)
        )
        for exchange in dropped:
            self.succeed(self._coalescer.ended(exchange), now)
        self._queue.admit()
        self._dispatcher.dispatch(now)
        return dropped

    # ---- those that joined them -------------------------------------------------

    def pass_on(
        self, exchange: Exchange, followers: list[Exchange], response: Any, now: float
    ) -> None:
        """Answer those that joined a request; ask for those that it does not answer."""
        self._sharing.answer(exchange, followers, response, now)
        if exchange.followers:
            self.succeed(self._coalescer.ended(exchange), now)
            self._dispatcher.dispatch(now)

    def put_back(self, exchange: Exchange, now: float, *, ahead: bool = True) -> None:
        """Queue a request again; nobody waits for one whose client does not read."""
        self._queue.requeue(exchange, ahead=ahead)
        if exchange.requester.held:
            self.succeed(self._sharing.take_others(exchange), now)

    def leads_no_more(self, exchange: Exchange, now: float) -> None:
        """Let those of others that have joined a request ask for themselves."""
        self._coalescer.retire(exchange)
        self.succeed(self._sharing.take_others(exchange), now)

    def held(self, requester: Requester, now: float) -> None:
        """Let nobody wait for what a requester asks that does not read."""
        for exchange in tuple(requester.pending):
            self.succeed(self._sharing.take_others(exchange), now)
        self._dispatcher.dispatch(now)

    def succeed(self, followers: list[Exchange], now: float) -> None:
        """Ask for those that followed another, as few of them as cover the others.

        The first that can still be served leads those whose response its own brings.
        """
        if len(followers) > 1:
            followers = sorted(followers, key=_breadth)
        while followers:
            exchange, *followers = followers
            self._queue.detach(exchange)
            self._relieve_soon(exchange.requester)  # if it is not placed
            failure = self._dispatcher.supply.refuses(exchange.deadline)
            if failure is not None:
                self.fail(exchange, failure, now)
                continue
            led = [other for other in followers if covers(exchange, other)]
            followers = [other for other in followers if other not in led]
            self._sharing.succeed(exchange, led)
            self._dispatcher.place(exchange, exchange.request.share_key)

    def _relieve_soon(self, requester: Requester) -> None:
        """Let a requester go on that has nothing left: not before this is done.

        What it asks next must not be sent while a connection is taken care of.
        """
        if requester.blocked:
            self._loop.call_soon(self._queue.relieve, requester)


def _breadth(exchange: Exchange) -> int:
    """Return how much a read covers, as a negative number: the widest are first."""
    extent = exchange.request.extent
    return 0 if extent is None else extent.first - extent.end
