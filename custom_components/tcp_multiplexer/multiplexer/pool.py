"""Where requests meet connections: the only room that decides what goes upstream.

State: the queue of requests that wait, the connections that are open, at most one
that is being opened, and one alarm. Whenever any of these changes, `dispatch` is
called, and only there does a request get a connection:

1. A connection is ready: the request whose turn it is goes out on it.
2. None is ready, but another may be opened: it is, and the request waits.
3. Otherwise the request waits for a connection to become ready, or its deadline.

An exchange ends in exactly one way: its response is handed to the requester, or its
failure is. A request not yet sent survives whatever happens to connections. One that
was sent is sent again only if it is `retry_safe`, once, and if no byte of its response
had come.

Extra connections are on trial until their first response: some devices accept more
than they serve, or drop the older for the newer. A trial begins with a request that
may be sent twice, and is lost to half of its deadline, so that the other half is left
for doing it right. A lost trial shrinks the pool.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, override

from .alarm import Alarm
from .events import Event, EventType
from .exchange import NOBODY, Exchange, Requester
from .health import Health as HealthTracker
from .policy import Policy, Verdict
from .protocols.base import Failure
from .recorder import Recorder
from .sharing import SharedReads
from .snapshot import Health
from .upstream import CloseReason

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from .events import Events
    from .protocols.base import Protocol, Request, Stray
    from .queue import RequestQueue
    from .settings import Settings
    from .statistics import Statistics
    from .upstream import Upstream

LOGGER = logging.getLogger(__name__)

_TIMEOUTS_TO_RENEW = 2
"""Timeouts in a row, without a byte between, after which a connection is renewed."""
_TRIAL_SECONDS = 2.0
"""An older connection that drops so soon after a newer was opened was dropped for it;
one that ends so soon after its own opening had no place at the device."""

_MISFITS_TO_TELL = 3
"""Requests in a row that timed out though something like their response came."""

_OWN_REASONS = frozenset(
    (
        CloseReason.IDLE,
        CloseReason.LIFETIME,
        CloseReason.RECONNECT,
        CloseReason.PAUSED,
        CloseReason.STOPPED,
        CloseReason.SPENT,
    )
)
_DEVICE_FAILURES = frozenset(
    (Failure.CONNECTION_LOST, Failure.NO_RESPONSE, Failure.INVALID_RESPONSE)
)


class _Prober(Requester):
    """The health check: asks something harmless, and wants no answer."""

    name = "health check"
    counted = False

    @override
    def answered(self, exchange: Exchange, response: Any) -> None:
        pass

    @override
    def failed(self, exchange: Exchange, failure: Failure) -> None:
        pass


class UpstreamPool:
    """The connections to one device, and the exchanges on them."""

    def __init__(  # noqa: PLR0917 - the parts that it joins
        self,
        settings: Settings,
        protocol: Protocol[Any],
        queue: RequestQueue,
        statistics: Statistics,
        events: Events,
        make_upstream: Callable[[], Upstream],
        *,
        paused: bool,
        name: str,
    ) -> None:
        """Join the parts; `start` opens the first connection."""
        self.settings = settings
        self.paused = paused
        self.health = HealthTracker()
        self.upstreams: list[Upstream] = []
        self.last_response: float | None = None
        self._name = name
        self._protocol = protocol
        self._queue = queue
        self.statistics = statistics
        self._events = events
        self._make_upstream = make_upstream
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(self._on_alarm)
        self._connecting: asyncio.Task[None] | None = None
        self._limit = settings.max_connections
        self._has_units = protocol.has_units
        self._max_in_flight = _max_in_flight(settings)
        self._connect_now = not settings.connect_on_demand
        """Open a connection though nobody asks."""
        self._opened_before = False
        self._stopped = False
        self._dispatching = False
        self._quiet_until = 0.0
        """Nothing is sent on a new connection before: a line may still answer."""
        self._misfits = 0
        """Requests in a row that lenient matching would have seen answered."""
        self._misfit_sent = 0.0
        """When the last of these was sent."""
        self._closed: asyncio.Future[None] | None = None
        """Resolved when the next connection is gone, or need not go any more."""
        self._status = self.status
        self._policy = Policy(settings, has_units=protocol.has_units)
        self._sharing = SharedReads(share=settings.share_reads, ttl=settings.cache_ttl)
        self._prober = _Prober()
        self._recorder = Recorder(protocol, statistics, events)
        queue.join(self._prober)

    # ---- what requesters call ---------------------------------------------------

    def submit(self, exchange: Exchange) -> None:
        """Take a request; `dispatch` must follow, once for several."""
        self._recorder.asked(exchange)
        request = exchange.request
        if self._policy.active:
            verdict = self._policy.judge(request, exchange.requester.peer)
            if verdict is not Verdict.PASS:
                self._turn_down(exchange, verdict)
                return
        if request.share_key is not None:
            if self._share(exchange, request.share_key):
                return
        elif request.writes is not None:
            exchange.requester.writing += 1
            self._sharing.wrote(request.writes)
        self._place(exchange)

    def _turn_down(self, exchange: Exchange, verdict: Verdict) -> None:
        """Answer a request that the owner's rules do not let pass."""
        requester = exchange.requester
        if verdict is Verdict.ACKNOWLEDGE:
            response = self._protocol.acknowledge(exchange.request)
            if response is not None:
                self._recorder.acknowledged(exchange, response)
                requester.answered(exchange, response)
                return
        too_large = verdict is Verdict.REFUSE_SIZE
        failure = Failure.TOO_LARGE if too_large else Failure.REFUSED
        self._recorder.refused(exchange, failure)
        requester.failed(exchange, failure)

    def _place(self, exchange: Exchange) -> None:
        """Let a request wait for its turn, unless that would be in vain."""
        if (failure := self._in_vain(exchange)) is not None:
            self._fail(exchange, failure)
            return
        self._queue.put(exchange)
        self._sharing.lead(exchange)
        if exchange.deadline < self._alarm.at:
            self._alarm.set(exchange.deadline)

    def _in_vain(self, exchange: Exchange) -> Failure | None:
        """Tell why a request cannot be served before its deadline, if so."""
        if self._stopped:
            return Failure.NO_CONNECTION
        if self.paused:
            return Failure.PAUSED
        if not self.upstreams and self.health.next_attempt > exchange.deadline:
            return Failure.NO_CONNECTION
        return None

    def _share(self, exchange: Exchange, key: tuple[Hashable, Hashable]) -> bool:
        """Serve a read by what is known or already asked, if that is right."""
        requester = exchange.requester
        if requester.writing or self.paused or self._queue.writing(key[0]):
            return False
        if self._sharing.ttl:
            now = exchange.arrived
            response = self._sharing.recall(key, now)
            if response is not None:
                self.statistics.reads_cached += 1
                exchange.sent, exchange.attempts = now, 1
                self._recorder.answered(exchange, response, now)
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

    def _answer_followers(
        self, followers: list[Exchange], response: Any, now: float
    ) -> None:
        for exchange in followers:
            requester = exchange.requester
            self._queue.detach(requester)
            if not requester.gone:
                self.statistics.reads_shared += 1
                exchange.sent, exchange.attempts = exchange.arrived, 1
                self._recorder.answered(exchange, response, now)
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
            self._place(exchange)
            return

    def dispatch(self, now: float) -> None:
        """Send what can be sent; open a connection where that helps."""
        if self._dispatching:
            return  # the loop below goes on until nothing is left to do
        queue = self._queue
        upstream = self._ready_upstream()
        self._dispatching = True
        try:
            while upstream is not None and queue.depth:
                exchange = queue.take(retry_safe=upstream.on_trial)
                if exchange is None:
                    break
                self._send(exchange.requester.upstream or upstream, exchange, now)
                if queue.blocked:
                    queue.admit()
                upstream = self._ready_upstream()
        finally:
            self._dispatching = False
        if upstream is None and queue.depth and len(self.upstreams) < self._limit:
            self._connect()

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

    # ---- a request meets a connection -------------------------------------------

    def _ready_upstream(self) -> Upstream | None:
        """Give the connection with the fewest requests, one on trial last."""
        upstreams = self.upstreams
        if len(upstreams) == 1:
            return upstreams[0] if upstreams[0].ready else None
        best = None
        for upstream in upstreams:
            if upstream.ready and (
                best is None
                or best.on_trial > upstream.on_trial
                or len(best.in_flight) > len(upstream.in_flight)
            ):
                best = upstream
        return best

    def _room(self, upstream: Upstream) -> bool:
        limit = 1 if upstream.on_trial else self._max_in_flight
        return len(upstream.in_flight) < limit

    def _send(self, upstream: Upstream, exchange: Exchange, now: float) -> None:
        requester = exchange.requester
        requester.in_flight += 1
        requester.upstream = upstream
        exchange.sent = now
        exchange.attempts += 1
        if upstream.on_trial:
            upstream.trial_until = now + (exchange.deadline - now) / 2
            self._alarm.set(upstream.trial_until)
        if exchange.request.share_key is not None:
            self._sharing.sent(exchange)
        elif exchange.request.writes is not None:
            self._sharing.wrote(exchange.request.writes)
        upstream.send(exchange)
        if len(upstream.in_flight) >= self._max_in_flight or upstream.on_trial:
            upstream.ready = False

    def _taken_off(self, exchange: Exchange) -> None:
        """Note that an exchange is on no connection any more."""
        requester = exchange.requester
        requester.in_flight -= 1
        if not requester.in_flight:
            requester.upstream = None

    def _freed(self, upstream: Upstream, now: float) -> None:
        """See what a connection can do after one of its exchanges has ended."""
        if upstream.retiring is not None or not upstream.reusable:
            upstream.ready = False
            if not upstream.in_flight:
                upstream.close(upstream.retiring or CloseReason.SPENT)
            return
        delay = self.settings.request_delay
        if delay:
            upstream.not_before = max(upstream.not_before, now + delay)
            self._alarm.set(upstream.not_before)
        elif not upstream.ready and now >= upstream.not_before:
            self._make_ready(upstream)

    def _make_ready(self, upstream: Upstream) -> None:
        upstream.ready = True
        waiting, upstream.waiting = upstream.waiting, []
        for requester in waiting:
            self._queue.offer(requester)

    # ---- how an exchange ends ---------------------------------------------------

    def answered(self, upstream: Upstream, exchange: Exchange, response: Any) -> None:
        """Hand a response to who asked, after the device has its next request."""
        now = upstream.last_received
        requester = exchange.requester
        self._taken_off(exchange)
        self.health.succeeded()
        self.last_response = now
        upstream.on_trial = False
        request = exchange.request
        followers = NOBODY
        if request.writes is not None:
            requester.writing -= 1
            self._write_ended(exchange)
        elif request.share_key is not None:
            followers = self._sharing.ended(exchange)
            if not self._protocol.is_exception(response):
                self._sharing.answered(exchange, response, now)
        if requester.counted:
            upstream.last_used = now
            self._recorder.answered(exchange, response, now)
        self._freed(upstream, now)
        if self._queue.depth:
            self.dispatch(now)
        requester.answered(exchange, response)
        if followers:
            self._answer_followers(followers, response, now)
        if self._status is not Health.HEALTHY:
            self._recovered(now)

    def _write_ended(self, exchange: Exchange) -> None:
        """Let the next write go, and let nobody see what was before this one."""
        self._sharing.wrote(exchange.request.writes)
        self._queue.ended(exchange)

    def unanswerable(
        self, upstream: Upstream, exchange: Exchange, failure: Failure
    ) -> None:
        """Fail an exchange whose response cannot be passed on."""
        now = self._loop.time()
        self._taken_off(exchange)
        self._queue.ended(exchange)
        self._fail(exchange, failure)
        self._freed(upstream, now)
        self.dispatch(now)

    def _fail(self, exchange: Exchange, failure: Failure) -> None:
        """Tell the requester that there will be no response, and why."""
        requester = exchange.requester
        if failure in _DEVICE_FAILURES:
            self.health.failed(failure.value)
        if requester.counted:
            self._recorder.failed(exchange, failure, self._loop.time())
        if exchange.request.writes is not None:
            requester.writing -= 1
            self._sharing.wrote(exchange.request.writes)
        requester.failed(exchange, failure)
        if exchange.request.share_key is not None:
            self._lead_followers(self._sharing.ended(exchange))
        self._check_status()

    def _fail_pending(self, failure: Failure, before: float) -> None:
        """Fail what is pending and has its deadline before `before`."""
        for requester in self._queue.requesters():
            while requester.pending and requester.pending[0].deadline < before:
                exchange = requester.pending[0]
                self._queue.drop(exchange)
                self._fail(exchange, failure)
                self._queue.relieve(requester)
        self._queue.admit()

    def _timed_out(self, upstream: Upstream, exchange: Exchange, now: float) -> None:
        keep = upstream.expire(exchange)
        self._taken_off(exchange)
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
        if upstream in self.upstreams:
            self._freed(upstream, now)

    def _be_quiet(self, upstream: Upstream, now: float) -> None:
        """Send nothing for a while where a late response would look like the next's."""
        if upstream.quiet:
            upstream.not_before = self._quiet_until = now + upstream.quiet
            self._alarm.set(upstream.not_before)

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
                self._name,
            )
            self._events.tell(Event(EventType.LENIENT_WOULD_HELP))

    def stray(self, upstream: Upstream, event: Stray) -> None:
        """Note bytes that belong to nobody."""
        if event.lenient:
            upstream.discarded_for = next(iter(upstream.in_flight.values()), None)
        self._recorder.stray(event, self._loop.time())

    # ---- connections come and go ------------------------------------------------

    def start(self) -> None:
        """Begin to connect."""
        self._connect()

    def _connect(self) -> None:
        """Open a connection if one is wanted and may be opened now."""
        if self._stopped or self.paused or self._connecting is not None:
            return
        if self.upstreams:
            wanted = (
                len(self.upstreams) < self._limit
                and self._queue.depth > self._queue.joined
                and not any(u.ready or u.on_trial for u in self.upstreams)
            )
        else:
            wanted = self._connect_now or self._queue.depth > 0
        if not wanted:
            return
        if self._loop.time() < self.health.next_attempt:
            self._alarm.set(self.health.next_attempt)
            return
        self._connecting = self._loop.create_task(self._open())

    async def _open(self) -> None:
        # A connection just closed is gone only after a turn of the loop, and a device
        # with one slot must see that one's end before this one's beginning.
        await asyncio.sleep(0)
        self.statistics.connection_attempts += 1
        upstream = self._make_upstream()
        reason = None
        try:
            await upstream.open()
        except (OSError, ValueError) as err:
            reason = str(err) or type(err).__name__
        except Exception as err:
            # a resolver or a host program's link at fault: there must be a next attempt
            LOGGER.exception("Connecting to %s failed in an unexpected way", self._name)
            reason = type(err).__name__
        self._connecting = None
        if reason is None:
            self._opened(upstream)
        else:
            self._open_failed(reason)

    def _opened(self, upstream: Upstream) -> None:
        if self._opened_before:
            self.statistics.reconnects += 1
        self._opened_before = True
        self._connect_now = not self.settings.connect_on_demand
        upstream.on_trial = bool(self.upstreams)
        self.upstreams.append(upstream)
        LOGGER.debug("Connected to %s", self._name)
        self._events.tell(Event(EventType.CONNECTION_OPENED))
        upstream.not_before = max(
            upstream.opened_at + self.settings.connect_delay, self._quiet_until
        )
        if upstream.not_before > upstream.opened_at:
            self._alarm.set(upstream.not_before)
        else:
            self._make_ready(upstream)
        self._alarm.set(self._next_moment())
        self._check_status()
        self.dispatch(self._loop.time())

    def _open_failed(self, reason: str) -> None:
        self._events.tell(Event(EventType.CONNECTION_FAILED, detail=reason))
        if self.upstreams:
            self._shrink(reason)
        else:
            self._attempt_failed(reason)

    def _attempt_failed(self, reason: str) -> None:
        """Wait for the next attempt, and let nobody wait for it in vain."""
        settings = self.settings
        news = self.health.attempt_failed(
            self._loop.time(),
            reason,
            settings.reconnect_backoff,
            settings.reconnect_backoff_max,
        )
        if news:
            LOGGER.info("%s is unavailable: %s", self._name, reason)
            self._events.tell(Event(EventType.UPSTREAM_LOST, detail=reason))
        self._check_status()
        self._fail_pending(Failure.NO_CONNECTION, before=self.health.next_attempt)
        self._connect()

    def lost(self, upstream: Upstream, reason: CloseReason, detail: str) -> None:
        """Take over what a connection that is gone leaves behind."""
        now = self._loop.time()
        self.upstreams.remove(upstream)
        upstream.ready = False
        unfinished = list(upstream.in_flight.values())
        if unfinished:
            self._be_quiet(upstream, now)
        again = [e for e in unfinished if self._may_resend(upstream, e, now)]
        upstream.in_flight.clear()
        for exchange in unfinished:
            self._taken_off(exchange)
        for exchange in reversed(again):
            self._queue.put_back(exchange)
        if self._prober.upstream is upstream and self._prober.pending:
            # a probe asks after an open connection: it never opens one
            self._queue.drop(self._prober.pending[0])
            self._prober.upstream = None
        for requester in upstream.waiting:
            self._queue.offer(requester)
        LOGGER.debug("Disconnected from %s: %s %s", self._name, reason.value, detail)
        told = "" if upstream.received else "no data"
        self._events.tell(
            Event(EventType.CONNECTION_CLOSED, None, reason.value, detail or told)
        )
        self._judge_loss(upstream, reason, detail or reason.value, now)
        self._connect()
        for exchange in unfinished:
            if exchange not in again:
                self._queue.ended(exchange)
                self._fail(exchange, Failure.CONNECTION_LOST)
        self._wake_closers()
        self._check_status()
        self.dispatch(now)

    def _may_resend(self, upstream: Upstream, exchange: Exchange, now: float) -> bool:
        return (
            exchange.request.retry_safe
            and exchange.attempts == 1
            and now < exchange.deadline
            and not self._stopped
            and not self.paused
            and not exchange.requester.gone
            and exchange.requester is not self._prober  # it asks after this connection
            and (upstream.responses > 0 or not self._protocol.retry_needs_served)
            and not upstream.begun(exchange)
        )

    def _judge_loss(
        self, upstream: Upstream, reason: CloseReason, detail: str, now: float
    ) -> None:
        """Decide what the end of a connection says about the device."""
        if reason in _OWN_REASONS:
            if reason is CloseReason.IDLE and not self.upstreams:
                self._connect_now = False
            return
        if self.upstreams:
            newest = max(other.opened_at for other in self.upstreams)
            if upstream.on_trial or upstream.opened_at < newest > now - _TRIAL_SECONDS:
                self._shrink(detail)
        elif not upstream.responses:
            if upstream.sent or now - upstream.opened_at < _TRIAL_SECONDS:
                self._attempt_failed(detail)
            else:
                # it was never asked: it waits for the next request like an idle one
                self._connect_now = False

    def _shrink(self, detail: str) -> None:
        """Ask no more of the device than it has shown to bear."""
        limit = max(1, len(self.upstreams))
        if limit < self._limit:
            LOGGER.info(
                "%s does not bear %d connections (%s); using %d",
                self._name,
                self._limit,
                detail,
                limit,
            )
            self._limit = limit

    def _retire(self, upstream: Upstream, reason: CloseReason) -> None:
        """Close a connection as soon as it has nothing in flight."""
        upstream.retiring = upstream.retiring or reason
        upstream.ready = False
        if not upstream.in_flight:
            upstream.close(reason)

    # ---- what the owner may ask -------------------------------------------------

    async def reconnect(self, *, drain: bool) -> None:
        """Close every connection and open one anew.

        With `drain`, exchanges in flight may finish first. Pending requests survive.
        Gives back when the old connections are closed.
        """
        self._limit = self.settings.max_connections
        self.health.forget()
        await self._cancel_connecting()
        self._connect_now = True
        await self._close_all(CloseReason.RECONNECT, drain=drain)
        self._connect()

    async def pause(self) -> None:
        """Close every connection once its exchanges are finished, and open none."""
        if not self.paused:
            self.paused = True
            LOGGER.info("%s is left alone: paused", self._name)
        self._fail_pending(Failure.PAUSED, before=float("inf"))
        await self._cancel_connecting()
        self._check_status()
        await self._close_all(CloseReason.PAUSED, drain=True)

    def resume(self) -> None:
        """Connect again."""
        if not self.paused:
            return
        self.paused = False
        LOGGER.info("%s is used again", self._name)
        self.health.forget()
        for upstream in self.upstreams:
            if upstream.retiring is CloseReason.PAUSED:
                upstream.retiring = None
                self._freed(upstream, self._loop.time())
        self._wake_closers()
        self._connect_now = not self.settings.connect_on_demand
        self._check_status()
        self._connect()

    async def stop(self) -> None:
        """Close everything at once and fail what is unfinished."""
        self._stopped = True
        await self._cancel_connecting()
        self._fail_pending(Failure.NO_CONNECTION, before=float("inf"))
        for upstream in tuple(self.upstreams):
            upstream.close(CloseReason.STOPPED)
        self._alarm.cancel()

    def apply(self, settings: Settings) -> None:
        """Go on with other settings; connections stay."""
        now = self._loop.time()
        self.settings = settings
        self._limit = settings.max_connections
        self._max_in_flight = _max_in_flight(settings)
        self._policy = Policy(settings, has_units=self._has_units)
        self._sharing.share = settings.share_reads
        self._sharing.ttl = settings.cache_ttl
        for requester in self._queue.requesters():
            for exchange in requester.pending:
                exchange.deadline = min(exchange.deadline, now + settings.timeout)
        self._connect_now = not settings.connect_on_demand
        for upstream in self.upstreams[settings.max_connections :]:
            self._retire(upstream, CloseReason.IDLE)
        for upstream in self.upstreams:
            if not upstream.retiring and now >= upstream.not_before:
                upstream.ready = self._room(upstream)
                if upstream.ready:
                    self._make_ready(upstream)
        self._alarm.set(self._next_moment())
        self._connect()
        self.dispatch(now)

    async def _cancel_connecting(self) -> None:
        task, self._connecting = self._connecting, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _close_all(self, reason: CloseReason, *, drain: bool) -> None:
        closing = tuple(self.upstreams)
        for upstream in closing:
            if drain:
                self._retire(upstream, reason)
            else:
                upstream.close(reason)
        while any(u.retiring and u in self.upstreams for u in closing):
            if self._closed is None:
                self._closed = self._loop.create_future()
            await asyncio.shield(self._closed)

    def _wake_closers(self) -> None:
        """Let those who wait for connections to close look again."""
        if self._closed is not None:
            self._closed.set_result(None)
            self._closed = None

    # ---- time passes ------------------------------------------------------------

    def _on_alarm(self, now: float) -> None:
        failure = Failure.BUSY if self.upstreams else Failure.NO_CONNECTION
        self._fail_pending(failure, before=now + 1e-9)
        for upstream in tuple(self.upstreams):
            for exchange in tuple(upstream.in_flight.values()):
                until = upstream.trial_until if upstream.on_trial else None
                if now < (until or exchange.deadline):
                    continue
                if exchange.request in upstream.in_flight:
                    self._timed_out(upstream, exchange, now)
        for upstream in tuple(self.upstreams):
            self._look_after(upstream, now)
        self._connect()
        self.dispatch(now)
        if not self._stopped:
            self._alarm.set(self._next_moment())

    def _look_after(self, upstream: Upstream, now: float) -> None:
        """Do what time asks of a connection."""
        settings = self.settings
        if upstream.retiring is not None:
            return
        if settings.max_lifetime and now >= upstream.opened_at + settings.max_lifetime:
            self._retire(upstream, CloseReason.LIFETIME)
            return
        if not upstream.ready and now >= upstream.not_before and self._room(upstream):
            self._make_ready(upstream)
        if upstream.in_flight or self._queue.depth:
            return
        if settings.idle_timeout and now >= upstream.last_used + settings.idle_timeout:
            upstream.close(CloseReason.IDLE)
        elif (
            settings.health_check_interval
            and now >= upstream.last_received + settings.health_check_interval
        ):
            self._probe(upstream, now)

    def _probe(self, upstream: Upstream, now: float) -> None:
        upstream.last_received = now  # the next one is due an interval from now
        request = self._protocol.probe(self._recorder.last_good)
        if request is None or self._prober.pending or self._prober.in_flight:
            return
        self._prober.upstream = upstream
        self._queue.put(
            Exchange(request, self._prober, now, now + self.settings.timeout)
        )

    def _next_moment(self) -> float:
        """Give the earliest moment at which there may be something to do."""
        settings = self.settings
        now = self._loop.time()
        moments = [self._alarm.at]
        for upstream in self.upstreams:
            until = upstream.trial_until if upstream.on_trial else None
            moments.extend(until or e.deadline for e in upstream.in_flight.values())
            if upstream.retiring is not None:
                continue
            if not upstream.ready and self._room(upstream):
                moments.append(upstream.not_before)
            if settings.max_lifetime:
                moments.append(upstream.opened_at + settings.max_lifetime)
            busy = upstream.in_flight or self._queue.depth
            if settings.idle_timeout:
                since = now if busy else upstream.last_used
                moments.append(since + settings.idle_timeout)
            if settings.health_check_interval:
                since = now if busy else upstream.last_received
                moments.append(since + settings.health_check_interval)
        moments.extend(
            requester.pending[0].deadline
            for requester in self._queue.requesters()
            if requester.pending
        )
        if not self.upstreams and self.health.next_attempt > now:
            moments.append(self.health.next_attempt)
        return min(moments)

    # ---- how the upstream does --------------------------------------------------

    @property
    def status(self) -> Health:
        """How the upstream does."""
        if self.paused:
            return Health.PAUSED
        if self.health.outage_since is not None:
            return Health.UNREACHABLE
        if not self.upstreams and not (self._opened_before and self._connecting):
            return Health.IDLE
        return Health.DEGRADED if self.health.degraded else Health.HEALTHY

    def _recovered(self, now: float) -> None:
        lasted = self.health.recovered(now)
        if lasted is not None:
            LOGGER.info("%s is back after %.0f s", self._name, lasted)
            self._events.tell(Event(EventType.UPSTREAM_BACK))
        self._check_status()

    def _check_status(self) -> None:
        status = self.status
        if status is not self._status:
            self._status = status
            reason = self.health.reason if status is not Health.HEALTHY else None
            self._events.tell(
                Event(EventType.HEALTH_CHANGED, None, status.value, reason)
            )


def _max_in_flight(settings: Settings) -> int:
    """Give how many requests a connection carries: with a gap between them, one."""
    return 1 if settings.request_delay else settings.max_in_flight
