"""Where requests meet connections: the only room that decides what goes upstream.

State: the queue of requests that wait, and the connections that are open, which the
pool sees to. Whenever either changes, `dispatch` is called, and only there does a
request get a connection:

1. A connection is ready: the request whose turn it is goes out on it.
2. None is ready, but another may be opened: the pool does, and the request waits.
3. Otherwise the request waits for a connection to become ready, or its deadline.

An exchange ends in exactly one way: its response is handed to the requester, or its
failure is. A request not yet sent survives whatever happens to connections. One that
was sent is sent again only if it is `retry_safe`, once, and if no byte of its response
had come.

An extra connection is on trial until its first response (see `pool`). Its trial begins
with a request that may be sent twice, and is lost if no response has begun by half of
that one's deadline, so that the other half is left for doing it right.

`submit`, `dispatch` and `answered` run for every request; what they do in long hand
and might have left to a method is written so because it was measured.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ..observe.events import Event, EventType
from ..observe.snapshot import Health
from ..protocols.base import Failure
from .coalescing import SharedReads
from .exchange import NOBODY, CloseReason, Exchange, Requester
from .policy import Policy, Verdict
from .recorder import Recorder

if TYPE_CHECKING:
    from ..observe.events import Events
    from ..observe.statistics import Statistics
    from ..protocols.base import Protocol, Request, ShareKey, Stray
    from ..settings import Settings
    from ..upstream.pool import UpstreamPool
    from .exchange import Upstream
    from .queue import RequestQueue

LOGGER = logging.getLogger(__name__)

_TIMEOUTS_TO_RENEW = 2
"""Timeouts in a row, without a byte between, after which a connection is renewed."""
_MISFITS_TO_TELL = 3
"""Requests in a row that timed out though something like their response came."""

_DEVICE_FAILURES = frozenset(
    (Failure.CONNECTION_LOST, Failure.NO_RESPONSE, Failure.INVALID_RESPONSE)
)


class Dispatcher:
    """Sends what is asked over the connections of a pool, and hands back responses."""

    def __init__(  # noqa: PLR0917 - the parts that it joins
        self,
        pool: UpstreamPool,
        settings: Settings,
        protocol: Protocol[Any],
        queue: RequestQueue,
        statistics: Statistics,
        events: Events,
    ) -> None:
        """Serve requests by the connections of `pool`."""
        self.statistics = statistics
        self.recorder = Recorder(protocol, statistics, events)
        self.last_response: float | None = None
        """When the device last answered; loop time."""
        self.quiet_until = 0.0
        """Nothing is sent on a new connection before: a line may still answer."""
        self._pool = pool
        self._upstreams = pool.upstreams
        self._health = pool.health
        self._alarm = pool.alarm
        self._protocol = protocol
        self._queue = queue
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._sharing = SharedReads(share=settings.share_reads, ttl=settings.cache_ttl)
        self._admitting = False
        self._misfits = 0
        """Requests in a row that lenient matching would have seen answered."""
        self._misfit_sent = 0.0
        """When the last of these was sent."""
        self._set(settings)

    def apply(self, settings: Settings) -> None:
        """Go on with other settings; what is pending keeps no later deadline."""
        self._set(settings)
        self._sharing.share = settings.share_reads
        self._sharing.ttl = settings.cache_ttl
        latest = self._loop.time() + settings.timeout
        for requester in self._queue.requesters():
            for exchange in requester.pending:
                exchange.deadline = min(exchange.deadline, latest)

    def _set(self, settings: Settings) -> None:
        self._request_delay = settings.request_delay
        # with a gap between requests, there is one at a time
        self._max_in_flight = 1 if settings.request_delay else settings.max_in_flight
        self._policy = Policy(settings, self._protocol)

    # ---- a request comes --------------------------------------------------------

    def submit(self, exchange: Exchange) -> None:
        """Take a request; `dispatch` must follow, once for several."""
        request = exchange.request
        if self._policy.active:
            verdict = self._policy.judge(request, exchange.requester.peer)
            if verdict is not Verdict.PASS:
                self._turn_down(exchange, verdict)
                return
        key = request.share_key
        if key is not None:
            sharing = self._sharing
            if (sharing.ttl or key in sharing.leaders) and self._share(exchange, key):
                return
        elif request.writes is not None:
            exchange.requester.writing += 1
            self._sharing.wrote(request.writes)
        self._place(exchange, key)

    def _turn_down(self, exchange: Exchange, verdict: Verdict) -> None:
        """Answer a request that the owner's rules do not let pass."""
        requester = exchange.requester
        if verdict is Verdict.ACKNOWLEDGE:
            response = self._protocol.acknowledge(exchange.request)
            if response is not None:
                self.recorder.acknowledged(exchange, response)
                requester.answered(exchange, response)
                return
        too_large = verdict is Verdict.REFUSE_SIZE
        failure = Failure.TOO_LARGE if too_large else Failure.REFUSED
        self.recorder.refused(exchange, failure)
        requester.failed(exchange, failure)

    def _place(self, exchange: Exchange, key: ShareKey | None) -> None:
        """Let a request wait for its turn, unless that would be in vain."""
        if not self._upstreams or self._pool.paused or self._pool.stopped:
            failure = self._in_vain(exchange)
            if failure is not None:
                self._fail(exchange, failure)
                return
        self._queue.put(exchange)
        if key is not None:
            self._sharing.leaders[key] = exchange
        if exchange.deadline < self._alarm.at:
            self._alarm.set(exchange.deadline)

    def _in_vain(self, exchange: Exchange) -> Failure | None:
        """Tell why a request cannot be served before its deadline, if so."""
        if self._pool.stopped:
            return Failure.NO_CONNECTION
        if self._pool.paused:
            return Failure.PAUSED
        if not self._upstreams and self._health.next_attempt > exchange.deadline:
            return Failure.NO_CONNECTION
        return None

    def _share(self, exchange: Exchange, key: ShareKey) -> bool:
        """Serve a read by what is known or already asked, if that is right."""
        requester = exchange.requester
        if requester.writing or self._pool.paused or self._queue.writing(key[0]):
            return False
        if self._sharing.ttl:
            now = exchange.arrived
            response = self._sharing.recall(key, now)
            if response is not None:
                self.statistics.reads_cached += 1
                exchange.sent, exchange.attempts = now, 1
                self.recorder.answered(exchange, response, now)
                requester.answered(exchange, response)
                return True
        leader = self._sharing.leader(key)
        if leader is None or not requester.counted:
            return False
        if not leader.followers:
            leader.followers = []
        leader.followers.append(exchange)
        self._queue.attach(requester)
        return True

    def leave(self, requester: Requester) -> list[Exchange]:
        """Drop what a requester that is gone had pending and nobody misses; give it."""
        left = self._protocol.drop_reads_at_eof

        def droppable(request: Request) -> bool:
            return request.retry_safe or (left and request.writes is None)

        dropped = self._queue.leave(requester, droppable)
        for exchange in dropped:
            self._lead_followers(self._sharing.ended(exchange))
        self._queue.admit()
        self.dispatch(self._loop.time())
        return dropped

    # ---- it meets a connection --------------------------------------------------

    def dispatch(self, now: float) -> None:
        """Send what can be sent; have a connection opened where that helps."""
        if self._admitting:
            return  # called by one of those let on: the loop that lets them goes on
        queue, upstreams = self._queue, self._upstreams
        while queue.depth:
            upstream = upstreams[0] if len(upstreams) == 1 else self._best()
            if upstream is None or not upstream.ready:
                if len(upstreams) < self._pool.limit:
                    self._pool.connect()
                return
            exchange = queue.take(upstream.on_trial)
            if exchange is None:
                return
            requester = exchange.requester
            self._send(requester.upstream or upstream, exchange, now)
            if queue.blocked:
                self._admit(requester)

    def _admit(self, requester: Requester) -> None:
        """Let those place requests for whom there is room now; `dispatch` goes on."""
        self._admitting = True
        try:
            self._queue.relieve(requester)
            self._queue.admit()
        finally:
            self._admitting = False

    def _best(self) -> Upstream | None:
        """Give the ready connection with the fewest requests, one on trial last."""
        best = None
        for upstream in self._upstreams:
            if upstream.ready and (
                best is None
                or best.on_trial > upstream.on_trial
                or len(best.in_flight) > len(upstream.in_flight)
            ):
                best = upstream
        return best

    def has_room(self, upstream: Upstream) -> bool:
        """Tell whether a connection may carry another request."""
        limit = 1 if upstream.on_trial else self._max_in_flight
        return len(upstream.in_flight) < limit

    def _send(self, upstream: Upstream, exchange: Exchange, now: float) -> None:
        requester = exchange.requester
        requester.in_flight += 1
        requester.upstream = upstream
        exchange.sent = now
        exchange.attempts += 1
        if exchange.request.writes is not None:
            self._sharing.wrote(exchange.request.writes)
        upstream.send(exchange)
        if upstream.on_trial:
            upstream.trial_until = now + (exchange.deadline - now) / 2
            self._alarm.set(upstream.trial_until)
            upstream.ready = False
        elif len(upstream.in_flight) >= self._max_in_flight:
            upstream.ready = False

    def freed(self, upstream: Upstream, now: float) -> None:
        """See what a connection can do after one of its exchanges has ended."""
        if upstream.retiring is not None or not upstream.reusable:
            upstream.ready = False
            if not upstream.in_flight:
                upstream.close(upstream.retiring or CloseReason.SPENT)
            return
        if self._request_delay:
            upstream.not_before = max(upstream.not_before, now + self._request_delay)
            self._alarm.set(upstream.not_before)
        elif not upstream.ready and now >= upstream.not_before:
            upstream.ready = True
            if upstream.waiting:
                self.make_ready(upstream)

    def make_ready(self, upstream: Upstream) -> None:
        """Let a connection be used; `dispatch` must follow."""
        upstream.ready = True
        waiting, upstream.waiting = upstream.waiting, []
        for requester in waiting:
            self._queue.offer(requester)

    # ---- how an exchange ends ---------------------------------------------------

    def answered(self, upstream: Upstream, exchange: Exchange, response: Any) -> None:
        """Hand a response to who asked, after the device has its next request."""
        now = self.last_response = upstream.last_received
        request, requester = exchange.request, exchange.requester
        requester.in_flight -= 1
        if not requester.in_flight:
            requester.upstream = None
        self._health.count += 1
        upstream.on_trial = False
        followers = NOBODY
        if request.share_key is not None:
            sharing = self._sharing
            if sharing.ttl and not self._protocol.is_exception(response):
                sharing.answered(exchange, response, now)
            followers = sharing.ended(exchange)
        elif request.writes is not None:
            requester.writing -= 1
            self._sharing.wrote(request.writes)  # nobody sees what was before it
            self._queue.ended(exchange)
        if requester.counted:
            upstream.last_used = now
            self.recorder.answered(exchange, response, now)
        self.freed(upstream, now)
        if self._queue.depth:
            self.dispatch(now)
        requester.answered(exchange, response)
        if followers:
            self._answer_followers(followers, response, now)
        if self._pool.health_told is not Health.HEALTHY:
            self._pool.recovered(now)

    def _answer_followers(
        self, followers: list[Exchange], response: Any, now: float
    ) -> None:
        for exchange in followers:
            requester = exchange.requester
            self._queue.detach(requester)
            if not requester.gone:
                self.statistics.reads_shared += 1
                exchange.sent, exchange.attempts = exchange.arrived, 1
                self.recorder.answered(exchange, response, now)
                requester.answered(exchange, response)
                self._queue.relieve(requester)

    def _lead_followers(self, followers: list[Exchange]) -> None:
        """Let the first follower that can be served lead the others."""
        while followers:
            exchange = followers.pop(0)
            requester = exchange.requester
            self._queue.detach(requester)
            if requester.gone:
                continue
            if (failure := self._in_vain(exchange)) is not None:
                self._fail(exchange, failure)
                self._queue.relieve(requester)
                continue
            exchange.followers = followers
            self._place(exchange, exchange.request.share_key)
            return

    def unanswerable(
        self, upstream: Upstream, exchange: Exchange, failure: Failure
    ) -> None:
        """Fail an exchange whose response cannot be passed on."""
        now = self._loop.time()
        _taken_off(exchange.requester)
        self._queue.ended(exchange)
        self._fail(exchange, failure)
        self.freed(upstream, now)
        self.dispatch(now)

    def _fail(self, exchange: Exchange, failure: Failure) -> None:
        """Tell the requester that there will be no response, and why."""
        requester = exchange.requester
        if failure in _DEVICE_FAILURES:
            self._health.failed(failure.value)
        if requester.counted:
            self.recorder.failed(exchange, failure, self._loop.time())
        if exchange.request.writes is not None:
            requester.writing -= 1
            self._sharing.wrote(exchange.request.writes)
        requester.failed(exchange, failure)
        if exchange.request.share_key is not None:
            self._lead_followers(self._sharing.ended(exchange))
        self._pool.check_health()

    def fail_pending(self, failure: Failure, before: float) -> None:
        """Fail what is pending and has its deadline before `before`."""
        for requester in self._queue.requesters():
            while requester.pending and requester.pending[0].deadline < before:
                exchange = requester.pending[0]
                self._queue.drop(exchange)
                self._fail(exchange, failure)
                self._queue.relieve(requester)
        self._queue.admit()

    # ---- it gets no response ----------------------------------------------------

    def next_deadline(self) -> float:
        """Give the earliest moment at which an exchange may have to be given up."""
        moments = [
            requester.pending[0].deadline
            for requester in self._queue.requesters()
            if requester.pending
        ]
        for upstream in self._upstreams:
            moments += [_due(upstream, e) for e in upstream.in_flight.values()]
        return min(moments, default=float("inf"))

    def give_up(self, now: float) -> None:
        """Fail what has reached its deadline."""
        failure = Failure.BUSY if self._upstreams else Failure.NO_CONNECTION
        self.fail_pending(failure, before=now + 1e-9)
        for upstream in tuple(self._upstreams):
            for exchange in tuple(upstream.in_flight.values()):
                overdue = now >= _due(upstream, exchange)
                if overdue and exchange.request in upstream.in_flight:
                    self._timed_out(upstream, exchange, now)

    def _timed_out(self, upstream: Upstream, exchange: Exchange, now: float) -> None:
        keep = upstream.expire(exchange)
        _taken_off(exchange.requester)
        self._be_quiet(upstream, now)
        if upstream.discarded_for is exchange:
            self._count_misfit(exchange)
        trial_lost = upstream.on_trial
        if not keep or trial_lost or upstream.timeouts_in_a_row >= _TIMEOUTS_TO_RENEW:
            # before anything else is sent: what still comes must reach nobody
            upstream.close(CloseReason.NO_RESPONSE)
        if trial_lost and now < exchange.deadline:
            self._queue.put_back(exchange)
        else:
            self._queue.ended(exchange)
            self._fail(exchange, Failure.NO_RESPONSE)
        if upstream in self._upstreams:
            self.freed(upstream, now)

    def _be_quiet(self, upstream: Upstream, now: float) -> None:
        """Send nothing for a while where a late response would look like the next's."""
        if upstream.quiet:
            upstream.not_before = self.quiet_until = now + upstream.quiet
            self._alarm.set(upstream.not_before)

    def stray(self, upstream: Upstream, event: Stray) -> None:
        """Note bytes that belong to nobody."""
        if event.lenient:
            upstream.discarded_for = next(iter(upstream.in_flight.values()), None)
        self.recorder.stray(event, self._loop.time())

    def _count_misfit(self, exchange: Exchange) -> None:
        """See whether the device never echoes identifiers, or erred but once."""
        self.statistics.would_match_leniently += 1
        if self.last_response is not None and self.last_response > self._misfit_sent:
            self._misfits = 0
        self._misfits += 1
        self._misfit_sent = exchange.sent
        if self._misfits == _MISFITS_TO_TELL:
            LOGGER.warning(
                "%s answers, but not with the transaction identifiers that it is asked "
                "with; lenient matching would pass its answers on",
                self._pool.name,
            )
            self._events.tell(Event(EventType.LENIENT_WOULD_HELP))

    def lost(self, upstream: Upstream, reason: CloseReason, detail: str) -> None:
        """Ask again, or fail, what a connection that is gone leaves behind."""
        now = self._loop.time()
        upstream.ready = False
        unfinished = list(upstream.in_flight.values())
        if unfinished:
            self._be_quiet(upstream, now)
        again = [e for e in unfinished if self._may_resend(upstream, e, now)]
        upstream.in_flight.clear()
        for exchange in unfinished:
            _taken_off(exchange.requester)
        for exchange in reversed(again):
            self._queue.put_back(exchange)
        for requester in upstream.waiting:
            self._queue.offer(requester)
        self._pool.lost(upstream, reason, detail, now)
        for exchange in unfinished:
            if exchange not in again:
                self._queue.ended(exchange)
                self._fail(exchange, Failure.CONNECTION_LOST)
        self._pool.check_health()
        self.dispatch(now)

    def _may_resend(self, upstream: Upstream, exchange: Exchange, now: float) -> bool:
        return (
            exchange.request.retry_safe
            and exchange.attempts == 1
            and now < exchange.deadline
            and not self._pool.stopped
            and not self._pool.paused
            and not exchange.requester.gone
            and exchange.requester.counted  # a probe asks after this connection
            and (upstream.responses > 0 or not self._protocol.retry_needs_served)
            and not upstream.begun(exchange)
        )


def _taken_off(requester: Requester) -> None:
    """Note that an exchange of a requester's is on no connection any more."""
    requester.in_flight -= 1
    if not requester.in_flight:
        requester.upstream = None


def _due(upstream: Upstream, exchange: Exchange) -> float:
    """Give the moment up to which a response is awaited."""
    if upstream.on_trial and not upstream.begun(exchange):
        return upstream.trial_until
    return exchange.deadline
