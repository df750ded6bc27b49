"""Assigns requests to connections: the only module that decides what goes upstream.

State: the queue of waiting requests, and the open connections. Whenever either changes,
`dispatch` is called, and only there is a request assigned to a connection:

1. If a connection is ready, the request whose turn it is goes out on it.
2. If none is ready but another may be opened, the supply opens it; the request waits.
3. Otherwise the request waits until a connection becomes ready, or its deadline.

An exchange ends in exactly one way: its requester gets either the response or the
failure. A request not yet sent survives whatever happens to connections. One that was
sent is sent again at most once, and only if it is `retry_safe` and no byte of its
response has arrived.

An extra connection is on trial until its first response, because some devices accept
more connections than they serve. The first request on it is one that may be sent twice.
If no response has begun when half the time to that request's deadline is over, the
trial is lost, and the other half is left for sending it on another connection.

`submit`, `dispatch` and `answered` run for every request; where they inline what could
be a method, measurement showed that it pays.
"""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, override

from ..protocols.base import Failure
from .exchange import (
    BY_DEVICE,
    CloseReason,
    Exchange,
    Repetition,
    Requester,
    UpstreamOwner,
)
from .expiry import Expiry
from .guard import Guard
from .pinning import pin, release, unpin
from .policy import Verdict
from .refreshing import Refresher
from .response_times import SLOW
from .sharing import Sharing
from .splitting import Splitting
from .unanswered import Unanswered

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..observe.statistics import Statistics
    from ..protocols.base import Protocol, Request, ShareKey, Unsolicited
    from ..settings import Settings
    from .coalescing import Coalescer
    from .connections import Connections
    from .exchange import Upstream
    from .misfits import Misfits
    from .queue import RequestQueue
    from .recorder import Recorder
    from .supply import Supply
    from .timer import Timer
    from .units import Units


class Dispatcher(UpstreamOwner):
    """Sends requests over the open connections, and hands their responses back."""

    supply: Supply
    """Must be assigned before the first request."""

    def __init__(  # noqa: PLR0917 - the parts that it connects
        self,
        settings: Settings,
        protocol: Protocol[Any],
        queue: RequestQueue,
        connections: Connections,
        coalescer: Coalescer,
        recorder: Recorder,
        misfits: Misfits,
        units: Units,
        statistics: Statistics,
        timer: Timer,
    ) -> None:
        self.statistics = statistics
        self.recorder = recorder
        self.last_response: float | None = None
        """When the device last answered (loop time)."""
        self._upstreams = connections.open
        self.connections = connections
        self._timer = timer
        self._protocol = protocol
        self._queue = queue
        self._coalescer = coalescer
        self._cache = coalescer.cache
        self._leaders = coalescer.leaders
        self._wider = coalescer.coverage.wider
        self._coverage = coalescer.coverage
        self._last_writes = coalescer.last_writes
        self._refresher = Refresher(self, queue, coalescer, settings.timeout)
        self._sharing = Sharing(
            protocol, coalescer, queue, recorder, timer, self._refresher
        )
        self.unanswered = Unanswered(
            self, queue, coalescer, self._sharing, recorder, protocol
        )
        self._splitting = Splitting(self, protocol, coalescer)
        self._units = units
        self.expiry = Expiry(self, queue, connections, units, misfits, coalescer.cache)
        self._loop = asyncio.get_running_loop()
        self._within = False
        self.guard = Guard(settings, protocol, units.breakers, recorder)
        connections.probe = lambda: self.guard.probe(units.breakers.witness())

    @override
    def __repr__(self) -> str:
        return f"<Dispatcher: {self._queue!r}, {self._upstreams!r}>"

    def apply(self, settings: Settings) -> None:
        """Apply changed settings; deadlines of pending requests only get earlier."""
        self.connections.apply(settings)
        self._units.timeout = settings.timeout
        for upstream in self._upstreams:
            self._look_early(upstream)
        self.guard.apply(settings)
        self._refresher.timeout = settings.timeout
        self._coalescer.apply(share=settings.share_reads, ttl=settings.cache_ttl)
        self._last_writes.apply(settings.repeated_write_ttl)
        self._queue.shorten(self._loop.time() + settings.timeout)

    @property
    def silent_units(self) -> tuple[Hashable, ...]:
        """The units that do not answer, and are only tried now and then."""
        return self._units.breakers.open_units

    def witness(self, now: float, failed: int) -> Request | None:
        """Return a read that should be answered if the device is well, or None.

        If so many probes have `failed` since the last response, it is one known read
        after the other, and may be a trial.
        """
        breakers = self._units.breakers
        witness = breakers.witness()
        if witness is None or failed:
            breakers.away(now)
            witness = breakers.known.after(failed)
        return witness

    def opened(self, upstream: Upstream, connect_delay: float) -> None:
        """Use a new connection; its first request waits for `connect_delay` seconds."""
        self._look_early(upstream)
        self.connections.add(upstream, connect_delay)

    def unreachable(self, now: float) -> None:
        """Note that the device is away for a while; then its units may be tried."""
        self._units.breakers.away(now)

    def _look_early(self, upstream: Upstream) -> None:
        """Look after requests early, where others may go beside what is overdue."""
        timeout = self._units.timeout
        patience = self._units.patience.shortest if upstream.identifies else timeout
        self._timer.early = timeout - patience

    # ---- a request arrives ------------------------------------------------------

    def submit(self, exchange: Exchange, *, alone: bool = False) -> None:
        """Accept a request; `dispatch` must follow, once for several.

        One that is to be asked `alone` shares no response.
        """
        request = exchange.request
        if self.guard.active and self.guard.stops(exchange):
            return
        key = request.share_key
        if key is not None:
            leaders = self._leaders
            wider = self._wider.get(key)
            if wider is None:
                # (What is asked in parts covers none: these are not read at one time.)
                wider = (
                    () if exchange.split is not None else self._coverage.learn(request)
                )
            if (
                (key in leaders or (wider and leaders) or self._cache.ttl)
                and not alone
                and self.supply.willing
                and self._sharing.share(exchange, key, wider)
            ):
                return
        elif request.writes is not None:
            if (
                self._last_writes.ttl
                and not alone
                and self.supply.willing
                and self._sharing.confirm(exchange)
            ):
                return
            if exchange.requester.joined:
                for read in self._sharing.part_reads(exchange.requester):
                    self.place(read, read.request.share_key)
            exchange.requester.writing += 1
            self._coalescer.wrote(request)
        elif request.flaw is not None:
            self.guard.turn_down(exchange, Verdict.REFUSE_SIZE)
            return
        self.place(exchange, key)

    def repeat(self, exchange: Repetition, first: Exchange) -> None:
        """Accept the repetition of a request: it ends as that does, or has ended."""
        failure = self._sharing.repeat(exchange, first)
        if failure is not None:
            self.unanswered.fail(exchange, failure, exchange.arrived)

    def place(self, exchange: Exchange, key: ShareKey | None) -> None:
        """Queue a request, or fail it at once if it cannot be served in time."""
        if not self._upstreams or not self.supply.willing:
            failure = self.supply.refuses(exchange.deadline)
            if failure is not None:
                self.unanswered.fail(exchange, failure, self._loop.time())
                return
        if exchange.deadline < self._timer.covers:
            now = self._loop.time()
            if exchange.deadline <= now:  # it was kept waiting for room in the queue
                self.unanswered.fail(exchange, self.connections.never_sent, now)
                return
            self._timer.cover(exchange.deadline)
        self._queue.put(exchange)
        if key is not None:
            self._leaders[key] = exchange

    # ---- it is sent -------------------------------------------------------------

    def dispatch(self, now: float) -> None:
        """Send what can be sent; ask for another connection where that helps."""
        if self._within:
            return  # called by a requester during this very loop, which goes on
        queue, connections = self._queue, self.connections
        while queue.depth:
            upstream = connections.only or connections.best()
            if upstream is None or not upstream.ready:
                if len(connections.open) < self.supply.limit:
                    self.supply.connect()
                return
            careful = self._units.active or upstream.on_trial
            exchange = self._take_carefully(upstream, now) if careful else queue.take()
            if exchange is None:
                return
            requester = exchange.requester
            upstream = requester.upstream or upstream
            if exchange.deadline - now < SLOW and connections.is_late(
                upstream, exchange, now
            ):
                self._turn_down_late(exchange, now)
                continue
            if exchange.request.writes is not None:
                self._coalescer.wrote(exchange.request)
            connections.send(upstream, exchange, now)
            if careful:
                self._units.sent(upstream, exchange)
            if queue.blocked:
                self._admit(requester)

    def _take_carefully(self, upstream: Upstream, now: float) -> Exchange | None:
        """Take a request that may go, and whose response can come in time.

        Those before it for which nothing can be done fail.
        """
        queue, units = self._queue, self._units

        def screen(exchange: Exchange) -> bool | Failure:
            failure = units.verdict(exchange, now)
            if failure is not None:
                return failure
            if upstream.on_trial and not _may_try(exchange):
                return False
            return units.patience.may_go(
                exchange.requester.upstream or upstream, exchange, now
            )

        while True:
            exchange = queue.take(screen)
            turned_down, queue.turned_down = queue.turned_down, []
            self._within = True
            for hopeless, failure in turned_down:
                self.unanswered.fail(hopeless, failure, now)
                queue.relieve(hopeless.requester)
            self._within = False
            if exchange is not None or not turned_down:
                return exchange

    def _turn_down_late(self, exchange: Exchange, now: float) -> None:
        """Fail a request that was taken too late; `dispatch` goes on."""
        # what has been sent was lost, and would have been sent again
        failure = Failure.NO_RESPONSE if exchange.attempts else Failure.BUSY
        self._queue.not_served(exchange)
        self._within = True
        self.unanswered.fail(exchange, failure, now)
        self._within = False
        self._admit(exchange.requester)

    def _admit(self, requester: Requester) -> None:
        """Unblock the requesters for which there is room now; `dispatch` goes on."""
        self._within = True
        try:
            self._queue.relieve(requester)
            self._queue.admit()
        finally:
            self._within = False

    # ---- how an exchange ends ---------------------------------------------------

    @override
    def answered(self, upstream: Upstream, exchange: Exchange, response: Any) -> None:
        if exchange.split is not None:
            response = self._splitting.answered(upstream, exchange, response)
            if response is None:
                return
        now = self.last_response = upstream.last_received
        request, requester = exchange.request, exchange.requester
        requester.in_flight -= 1
        if not requester.in_flight:
            requester.upstream = requester.pinned
        upstream.on_trial = False
        careful = now - exchange.sent > self._units.unremarkable or (
            len(upstream.in_flight) > 0 and _overtakes(exchange, upstream)
        )
        if careful:
            self.watch_answer(upstream, exchange, now)
        key = request.share_key
        if key is not None:
            if self._cache.ttl and not self._protocol.is_exception(response):
                self._coalescer.answered(exchange, response, now)
            if self._leaders.get(key) is exchange:
                del self._leaders[key]  # nobody may join it any more
        elif request.writes is not None:
            self._written(upstream, exchange, response, now)
        if requester.counted:
            if requester.keeps_open:
                upstream.last_used = now
            self.recorder.answered(exchange, response, now)
        self.connections.freed(upstream, now)
        if careful:
            self.connections.limit(upstream, now)
        if self._queue.depth:
            self.dispatch(now)
        requester.answered(exchange, response)
        # only now: who had no room until then may have asked something else meanwhile
        if exchange.followers:
            self.unanswered.pass_on(exchange, exchange.followers, response, now)
        if not self.supply.well:
            self.supply.answered(now)

    def _written(
        self, upstream: Upstream, exchange: Exchange, response: Any, now: float
    ) -> None:
        """Note that a write has ended: older values are stale from here on."""
        request, requester = exchange.request, exchange.requester
        requester.writing -= 1
        self._coalescer.wrote(request)
        self._queue.ended(exchange)
        if self._last_writes.ttl:
            self._sharing.keep_write(exchange, response, now)
        if request.may_log_in and not self._protocol.is_exception(response):
            pin(requester, upstream)

    def watch_answer(self, upstream: Upstream, exchange: Exchange, now: float) -> None:
        """Learn from a response that was slow, or that came while something else is."""
        if self._units.answered(upstream, exchange, now):
            self.refuse_silent(now)
        elif question := self._units.breakers.question(proof=now):
            self.supply.question(upstream, question, now)
        self.guard.update()

    def refuse_silent(self, now: float) -> None:
        """Fail soon what waits for a unit that turned out to be silent."""
        self.guard.update()
        self._timer.set(now)

    def taken_off(self, exchange: Exchange) -> None:
        """Note that an exchange is no longer on a connection."""
        requester = exchange.requester
        requester.in_flight -= 1
        if not requester.in_flight:
            requester.upstream = requester.pinned

    @override
    def unanswerable(
        self, upstream: Upstream, exchange: Exchange, failure: Failure
    ) -> None:
        now = self._loop.time()
        self.taken_off(exchange)
        self._queue.ended(exchange)
        if self._units.active:
            self._units.ended(upstream, exchange, now)
            self.connections.limit(upstream, now)
        self.unanswered.fail(exchange, failure, now)
        self.connections.freed(upstream, now)
        self.connections.limit(upstream, now)
        self.dispatch(now)

    # ---- it gets no response ----------------------------------------------------

    @override
    def unsolicited(self, upstream: Upstream, event: Unsolicited) -> None:
        if event.lenient is not None:
            upstream.discarded_for = next(iter(upstream.in_flight.values()), None)
            upstream.mismatch = event.lenient
        if event.unit is not None:
            self._answered_late(upstream, event)
        self.recorder.unsolicited(event, self._loop.time())

    def _answered_late(self, upstream: Upstream, event: Unsolicited) -> None:
        """Learn from a response that came after its deadline."""
        now = self.last_response = upstream.last_received
        if not self._units.active:
            return
        if self._units.answered_late(upstream, event.unit, event.answers, now):
            self.refuse_silent(now)
        self.guard.update()
        self.connections.limit(upstream, now)

    @override
    def lost(self, upstream: Upstream, reason: CloseReason, detail: str) -> None:
        now = self._loop.time()
        upstream.ready = False
        self._last_writes.clear()
        dismissed = unpin(upstream, self._queue.requesters())
        unfinished = list(upstream.in_flight.values())
        if unfinished and upstream.quiet:
            self.connections.quieten(upstream, now + upstream.quiet)
        self._watch_loss(upstream, reason, now)
        staying = [e for e in unfinished if e.requester not in dismissed]
        unserved = not self._protocol.retry_needs_served
        may = partial(_may_resend, upstream, now, unserved=unserved)
        again = []
        if self.supply.willing:
            breakers = self._units.breakers
            again = [e for e in staying if may(e) and not breakers.blocks(e, now)]
        upstream.in_flight.clear()
        for exchange in unfinished:
            self.taken_off(exchange)
        for exchange in reversed(again):
            ahead = not self._units.breakers.suspects(exchange)
            self.unanswered.put_back(exchange, now, ahead=ahead)
        for requester in upstream.waiting:
            self._queue.offer(requester)
        self.supply.lost(upstream, reason, detail, now)
        release(upstream, self._queue.requesters())
        for exchange in unfinished:
            if exchange not in again:
                self._queue.ended(exchange)
                self.unanswered.fail(exchange, Failure.CONNECTION_LOST, now)
        for requester in dismissed:
            requester.dismiss()
        lost = Failure.CONNECTION_LOST
        self.unanswered.fail_pending(lost, now, inf, of=dismissed)
        self.dispatch(now)

    def _watch_loss(self, upstream: Upstream, reason: CloseReason, now: float) -> None:
        """Learn from the end of a connection with requests in flight on it."""
        if reason is not CloseReason.NO_RESPONSE:
            self.unreachable(now)
        hung_up = reason in BY_DEVICE and not self.supply.opening
        if hung_up and len(upstream.in_flight) == 1:
            (exchange,) = upstream.in_flight.values()
            if not upstream.begun(exchange):
                self._units.hung_up(exchange, now, self.last_response or 0.0)
        self._units.lost(upstream, now)
        self.guard.update()


def _overtakes(exchange: Exchange, upstream: Upstream) -> bool:
    """Return whether a request was answered before one that was sent earlier."""
    for earlier in upstream.in_flight.values():  # faster than next(iter(…))
        return earlier.sent < exchange.sent
    return False


def _may_try(exchange: Exchange) -> bool:
    """Return whether a request may be the first on a connection on trial."""
    twice = exchange.attempts > 1 and not exchange.sent_once
    return exchange.request.retry_safe and not twice


def _may_resend(
    upstream: Upstream, now: float, exchange: Exchange, *, unserved: bool
) -> bool:
    """Return whether a request may be sent again on another connection.

    `unserved` allows it even if the connection had not served any response before.
    """
    return (
        exchange.request.retry_safe
        and exchange.sent_once
        and now < exchange.deadline
        and not exchange.requester.gone
        and exchange.requester.counted  # a probe is about this very connection
        and (unserved or upstream.responses > 0)
        and not upstream.begun(exchange)
    )
