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

import asyncio
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, override

from ..protocols.base import Failure
from .exchange import CloseReason, Exchange, Repetition, Requester, UpstreamOwner
from .pinning import pin, unpin
from .policy import Policy, Verdict
from .refusing import turn_down
from .sharing import Sharing
from .units import SLOW

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..observe.statistics import Statistics
    from ..protocols.base import Protocol, ShareKey, Unsolicited
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

_TIMEOUTS_TO_RENEW = 2
"""Timeouts in a row, with no byte in between, after which a connection is renewed."""


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
        self._connections = connections
        self._timer = timer
        self._protocol = protocol
        self._queue = queue
        self._coalescer = coalescer
        self._cache = coalescer.cache
        self._sharing = Sharing(coalescer, queue, recorder, timer)
        self._misfits = misfits
        self._units = units
        self._loop = asyncio.get_running_loop()
        self._within = False
        self.policy = Policy(settings, protocol)

    @override
    def __repr__(self) -> str:
        return f"<Dispatcher: {self._queue!r}, {self._upstreams!r}>"

    def apply(self, settings: Settings) -> None:
        """Apply changed settings; deadlines of pending requests only get earlier."""
        self._connections.apply(settings)
        self._units.timeout = settings.timeout
        self.policy = Policy(settings, self._protocol)
        self._coalescer.share = settings.share_reads
        self._cache.apply(settings.cache_ttl)
        self._queue.shorten(self._loop.time() + settings.timeout)

    # ---- a request arrives ------------------------------------------------------

    def submit(self, exchange: Exchange, *, alone: bool = False) -> None:
        """Accept a request; `dispatch` must follow, once for several.

        One that is to be asked `alone` shares no response.
        """
        request = exchange.request
        if self.policy.active:
            verdict = self.policy.judge(request, exchange.requester.peer)
            if verdict is not Verdict.PASS:
                turn_down(exchange, verdict, self._protocol, self.recorder)
                return
        key = request.share_key
        if key is not None:
            if (
                (self._cache.ttl or key in self._coalescer.leaders)
                and not alone
                and self.supply.willing
                and self._sharing.share(exchange, key)
            ):
                return
        elif request.writes is not None:
            if exchange.requester.joined:
                for read in self._sharing.part_reads(exchange.requester):
                    self._place(read, read.request.share_key)
            exchange.requester.writing += 1
            self._coalescer.wrote(request)
        elif request.flaw is not None:
            refused = Verdict.REFUSE_SIZE
            turn_down(exchange, refused, self._protocol, self.recorder)
            return
        self._place(exchange, key)

    def repeat(self, exchange: Repetition, first: Exchange) -> None:
        """Accept the repetition of a request: it ends as that does, or has ended."""
        failure = self._sharing.repeat(exchange, first)
        if failure is not None:
            self._fail(exchange, failure)

    def _place(self, exchange: Exchange, key: ShareKey | None) -> None:
        """Queue a request, or fail it at once if it cannot be served in time."""
        if not self._upstreams or not self.supply.willing:
            failure = self.supply.refuses(exchange.deadline)
            if failure is not None:
                self._fail(exchange, failure)
                return
        self._queue.put(exchange)
        if key is not None:
            self._coalescer.leaders[key] = exchange
        if exchange.deadline < self._timer.at:
            self._timer.set(exchange.deadline)

    def leave(self, requester: Requester) -> list[Exchange]:
        """Drop the pending requests of a requester that has left; return them.

        Only those that nothing depends on are dropped; the others are still served.
        """
        for follower in tuple(requester.joined):
            self._sharing.part(follower)
        left = self._protocol.drop_reads_at_eof
        dropped = self._queue.leave(
            requester, lambda r: r.retry_safe or (left and r.writes is None)
        )
        for exchange in dropped:
            self._lead_followers(self._coalescer.ended(exchange))
        self._queue.admit()
        self.dispatch(self._loop.time())
        return dropped

    # ---- it is sent -------------------------------------------------------------

    def dispatch(self, now: float) -> None:
        """Send what can be sent; ask for another connection where that helps."""
        if self._within:
            return  # called by a requester during this very loop, which goes on
        queue, connections, upstreams = self._queue, self._connections, self._upstreams
        while queue.depth:
            upstream = upstreams[0] if len(upstreams) == 1 else connections.best()
            if upstream is None or not upstream.ready:
                if len(upstreams) < self.supply.limit:
                    self.supply.connect()
                return
            if self._units.active:
                exchange = self._take_in_time(upstream.on_trial)
            else:
                exchange = queue.take(upstream.on_trial)
            if exchange is None:
                return
            requester = exchange.requester
            if exchange.request.writes is not None:
                self._coalescer.wrote(exchange.request)
            connections.send(requester.upstream or upstream, exchange, now)
            if queue.blocked:
                self._admit(requester)

    def _take_in_time(self, retry_safe: bool) -> Exchange | None:
        """Take a request whose response can come in time; fail those before it."""
        queue, now = self._queue, self._loop.time()
        exchange = queue.take(retry_safe, partial(self._units.too_late, now))
        late, queue.late = queue.late, []
        self._within = True
        for hopeless in late:
            self._fail(hopeless, Failure.BUSY)
            queue.relieve(hopeless.requester)
        self._within = False
        return exchange

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
        now = self.last_response = upstream.last_received
        request, requester = exchange.request, exchange.requester
        requester.in_flight -= 1
        if not requester.in_flight:
            requester.upstream = requester.pinned
        upstream.on_trial = False
        if self._units.active or now - exchange.sent > SLOW:
            self._units.answered(request.unit, now - exchange.sent)
        followers = exchange.followers
        if request.share_key is not None:
            coalescer = self._coalescer
            if self._cache.ttl and not self._protocol.is_exception(response):
                coalescer.answered(exchange, response, now)
            coalescer.ended(exchange)
        elif request.writes is not None:
            requester.writing -= 1
            self._coalescer.wrote(request)  # older values are stale from here on
            self._queue.ended(exchange)
            if request.may_log_in and not self._protocol.is_exception(response):
                pin(requester, upstream)
        if requester.counted:
            upstream.last_used = now
            self.recorder.answered(exchange, response, now)
        self._connections.freed(upstream, now)
        if self._queue.depth:
            self.dispatch(now)
        requester.answered(exchange, response)
        if followers:
            self._sharing.answer(followers, response, now)
        if not self.supply.well:
            self.supply.answered(now)

    def _lead_followers(self, followers: list[Exchange]) -> None:
        """Make the first follower that can still be served the leader of the others."""
        while followers:
            exchange = followers.pop(0)
            requester = exchange.requester
            self._queue.detach(exchange)
            failure = self.supply.refuses(exchange.deadline)
            if failure is not None:
                self._fail(exchange, failure)
                self._queue.relieve(requester)
                continue
            self._sharing.succeed(exchange, followers)
            self._place(exchange, exchange.request.share_key)
            return

    @override
    def unanswerable(
        self, upstream: Upstream, exchange: Exchange, failure: Failure
    ) -> None:
        now = self._loop.time()
        _taken_off(exchange.requester)
        self._queue.ended(exchange)
        self._fail(exchange, failure)
        self._connections.freed(upstream, now)
        self.dispatch(now)

    def _fail(self, exchange: Exchange, failure: Failure) -> None:
        """Record a failure and hand it to the requester."""
        requester = exchange.requester
        if requester.counted:
            self.recorder.failed(exchange, failure, self._loop.time())
        if exchange.request.writes is not None:
            requester.writing -= 1
            self._coalescer.wrote(exchange.request)
        requester.failed(exchange, failure)
        for follower in tuple(exchange.followers):
            if isinstance(follower, Repetition):
                self._sharing.part(follower)
                self._fail(follower, failure)
        self._lead_followers(self._coalescer.ended(exchange))
        if exchange.attempts:  # else the device has nothing to do with it
            self.supply.unanswered(failure)

    def fail_pending(
        self, failure: Failure, before: float, of: Iterable[Requester] | None = None
    ) -> None:
        """Fail the pending requests whose deadline is before `before` (loop time)."""
        for requester in self._queue.requesters() if of is None else of:
            while requester.pending and requester.pending[0].deadline < before:
                exchange = requester.pending[0]
                self._queue.drop(exchange)
                self._fail(exchange, failure)
                self._queue.relieve(requester)
        self._queue.admit()

    def held(self, requester: Requester) -> None:
        """Let nobody wait for what a requester asks that does not read."""
        for exchange in tuple(requester.pending):
            self._lead_followers(self._sharing.take_others(exchange))
        self.dispatch(self._loop.time())

    # ---- it gets no response ----------------------------------------------------

    def next_deadline(self) -> float:
        """Return the earliest moment at which an exchange may time out (loop time)."""
        moments = [self._units.next_moment(), self._queue.next_deadline()]
        moments.append(self._cache.sweep_at)
        for upstream in self._upstreams:
            moments += [_due(upstream, e) for e in upstream.in_flight.values()]
        return min(moments)

    def give_up(self, now: float) -> None:
        """Fail the exchanges that have reached their deadline."""
        self._units.release(now)
        self._cache.sweep(now)
        failure = Failure.BUSY if self._upstreams else Failure.NO_CONNECTION
        # first of all: none of these may succeed its leader
        for follower, why in self._sharing.part_overdue(now, failure):
            self._fail(follower, why)
            self._queue.relieve(follower.requester)
        self.fail_pending(failure, before=now + 1e-9)
        for upstream in self._connections:
            for exchange in tuple(upstream.in_flight.values()):
                overdue = now >= _due(upstream, exchange)
                if overdue and exchange.request in upstream.in_flight:
                    self._timed_out(upstream, exchange, now)

    def _put_back(self, exchange: Exchange) -> None:
        """Queue a request again; nobody waits for one whose client does not read."""
        self._queue.requeue(exchange)
        if exchange.requester.held:
            self._lead_followers(self._sharing.take_others(exchange))

    def _timed_out(self, upstream: Upstream, exchange: Exchange, now: float) -> None:
        keep = upstream.expire(exchange)
        _taken_off(exchange.requester)
        self._connections.timed_out(upstream, exchange)
        if upstream.discarded_for is exchange:
            self._misfits.timed_out(exchange, self.last_response, upstream.mismatch)
        trial_lost = upstream.on_trial
        if not keep or trial_lost or upstream.timeouts_in_a_row >= _TIMEOUTS_TO_RENEW:
            # first of all: a late response must reach no requester
            upstream.close(CloseReason.NO_RESPONSE)
        if trial_lost and now < exchange.deadline:
            self._put_back(exchange)
        else:
            self._queue.ended(exchange)
            self._fail(exchange, Failure.NO_RESPONSE)
        if upstream in self._upstreams:
            self._connections.freed(upstream, now)

    @override
    def unsolicited(self, upstream: Upstream, event: Unsolicited) -> None:
        if event.lenient is not None:
            upstream.discarded_for = next(iter(upstream.in_flight.values()), None)
            upstream.mismatch = event.lenient
        self.recorder.unsolicited(event, self._loop.time())

    @override
    def lost(self, upstream: Upstream, reason: CloseReason, detail: str) -> None:
        now = self._loop.time()
        upstream.ready = False
        dismissed = unpin(upstream, self._queue.requesters())
        unfinished = list(upstream.in_flight.values())
        if unfinished and upstream.quiet:
            self._connections.quieten(upstream, now + upstream.quiet)
        staying = [e for e in unfinished if e.requester not in dismissed]
        unserved = not self._protocol.retry_needs_served
        may = partial(_may_resend, upstream, now, unserved=unserved)
        again = list(filter(may, staying)) if self.supply.willing else []
        upstream.in_flight.clear()
        for exchange in unfinished:
            _taken_off(exchange.requester)
        for exchange in reversed(again):
            self._put_back(exchange)
        for requester in upstream.waiting:
            self._queue.offer(requester)
        self.supply.lost(upstream, reason, detail, now)
        for exchange in unfinished:
            if exchange not in again:
                self._queue.ended(exchange)
                self._fail(exchange, Failure.CONNECTION_LOST)
        for requester in dismissed:
            requester.dismiss()
        self.fail_pending(Failure.CONNECTION_LOST, inf, of=dismissed)
        self.dispatch(now)


def _may_resend(
    upstream: Upstream, now: float, exchange: Exchange, *, unserved: bool
) -> bool:
    """Return whether a request may be sent again on another connection.

    `unserved` allows it even if the connection had not served any response before.
    """
    return (
        exchange.request.retry_safe
        and exchange.attempts == 1
        and now < exchange.deadline
        and not exchange.requester.gone
        and exchange.requester.counted  # a probe is about this very connection
        and (unserved or upstream.responses > 0)
        and not upstream.begun(exchange)
    )


def _taken_off(requester: Requester) -> None:
    """Note that one of a requester's exchanges is no longer on a connection."""
    requester.in_flight -= 1
    if not requester.in_flight:
        requester.upstream = requester.pinned


def _due(upstream: Upstream, exchange: Exchange) -> float:
    """Return the moment until which a response is awaited (loop time)."""
    if upstream.on_trial and not upstream.begun(exchange):
        return upstream.trial_until
    return exchange.deadline
