"""The connections to one device: when they are opened, kept, renewed and closed.

At most one is being opened at a time. The first is opened at the start, or where
`connect_on_demand` is set when somebody asks; further ones when all that are open are
busy and requests wait. What goes over them is the dispatcher's.

Extra connections are on trial until their first response: some devices accept more
than they serve, or drop the older for the newer. A lost trial shrinks the pool, until
the next `reconnect`.

One alarm wakes the pool at the earliest moment at which time alone changes something.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, override

from ..dispatch.dispatcher import Dispatcher
from ..dispatch.exchange import CloseReason, Exchange, Requester
from ..dispatch.timer import Alarm
from ..observe.events import Event, EventType
from ..observe.snapshot import Health
from ..protocols.base import Failure
from .health_tracker import Health as HealthTracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..dispatch.exchange import Upstream
    from ..dispatch.queue import RequestQueue
    from ..observe.events import Events
    from ..observe.statistics import Statistics
    from ..protocols.base import Protocol
    from ..settings import Settings

LOGGER = logging.getLogger(__name__)

_TRIAL_SECONDS = 2.0
"""An older connection that drops so soon after a newer was opened was dropped for it;
one that ends so soon after its own opening had no place at the device."""

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


class _Prober(Requester):
    """The health check: asks something harmless, and wants no answer."""

    __slots__ = ()

    counted = False

    @override
    def answered(self, exchange: Exchange, response: Any) -> None:
        pass

    @override
    def failed(self, exchange: Exchange, failure: Failure) -> None:
        pass


class UpstreamPool:
    """The connections to one device."""

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
        self.name = name
        """For logs."""
        self.paused = paused
        self.stopped = False
        self.health = HealthTracker()
        self.upstreams: list[Upstream] = []
        """Those that are open."""
        self.alarm = Alarm(self._on_alarm)
        self.dispatcher = Dispatcher(
            self, settings, protocol, queue, statistics, events
        )
        self._settings = settings
        self._protocol = protocol
        self._queue = queue
        self._statistics = statistics
        self._events = events
        self._make_upstream = make_upstream
        self._loop = asyncio.get_running_loop()
        self._connecting: asyncio.Task[None] | None = None
        self.limit = settings.max_connections
        """How many connections the device bears, as far as is known."""
        self._connect_now = not settings.connect_on_demand
        """Open a connection though nobody asks."""
        self._opened_before = False
        self._closed: asyncio.Future[None] | None = None
        """Resolved when the next connection is gone, or need not go any more."""
        self.health_told = self.status
        """The last that was told of `status`."""
        self._prober = _Prober("health check")
        queue.join(self._prober)

    # ---- connections come and go ------------------------------------------------

    def start(self) -> None:
        """Begin to connect."""
        self.connect()

    def connect(self) -> None:
        """Open a connection if one is wanted and may be opened now."""
        if self.stopped or self.paused or self._connecting is not None:
            return
        if self.upstreams:
            wanted = (
                len(self.upstreams) < self.limit
                and self._queue.depth > self._queue.joined
                and not any(u.ready or u.on_trial for u in self.upstreams)
            )
        else:
            wanted = self._connect_now or self._queue.depth > 0
        if not wanted:
            return
        if self._loop.time() < self.health.next_attempt:
            self.alarm.set(self.health.next_attempt)
            return
        self._connecting = self._loop.create_task(self._open())

    async def _open(self) -> None:
        # A connection just closed is gone only after a turn of the loop, and a device
        # with one slot must see that one's end before this one's beginning.
        await asyncio.sleep(0)
        self._statistics.connection_attempts += 1
        upstream = self._make_upstream()
        reason = None
        try:
            await upstream.open()
        except (OSError, ValueError) as err:
            reason = str(err) or type(err).__name__
        except Exception as err:
            # a resolver or a host program's link at fault: there must be a next attempt
            LOGGER.exception("Connecting to %s failed in an unexpected way", self.name)
            reason = type(err).__name__
        self._connecting = None
        if reason is None:
            self._opened(upstream)
        else:
            self._open_failed(reason)

    def _opened(self, upstream: Upstream) -> None:
        if self._opened_before:
            self._statistics.reconnects += 1
        self._opened_before = True
        self._connect_now = not self._settings.connect_on_demand
        upstream.on_trial = bool(self.upstreams)
        self.upstreams.append(upstream)
        LOGGER.debug("Connected to %s", self.name)
        self._events.tell(Event(EventType.CONNECTION_OPENED))
        upstream.not_before = max(
            upstream.opened_at + self._settings.connect_delay,
            self.dispatcher.quiet_until,
        )
        if upstream.not_before > upstream.opened_at:
            self.alarm.set(upstream.not_before)
        else:
            self.dispatcher.make_ready(upstream)
        self.alarm.set(self._next_moment())
        self.check_health()
        self.dispatcher.dispatch(self._loop.time())

    def _open_failed(self, reason: str) -> None:
        self._events.tell(Event(EventType.CONNECTION_FAILED, detail=reason))
        if self.upstreams:
            self._shrink(reason)
        else:
            self._attempt_failed(reason)

    def _attempt_failed(self, reason: str) -> None:
        """Wait for the next attempt, and let nobody wait for it in vain."""
        settings = self._settings
        news = self.health.attempt_failed(
            self._loop.time(),
            reason,
            settings.reconnect_backoff,
            settings.reconnect_backoff_max,
        )
        if news:
            LOGGER.info("%s is unavailable: %s", self.name, reason)
            self._events.tell(Event(EventType.UPSTREAM_LOST, detail=reason))
        self.check_health()
        self.dispatcher.fail_pending(
            Failure.NO_CONNECTION, before=self.health.next_attempt
        )
        self.connect()

    def lost(
        self, upstream: Upstream, reason: CloseReason, detail: str, now: float
    ) -> None:
        """Do without a connection that is gone; replace it where one is wanted."""
        self.upstreams.remove(upstream)
        if self._prober.upstream is upstream and self._prober.pending:
            # a probe asks after an open connection: it never opens one
            self._queue.drop(self._prober.pending[0])
            self._prober.upstream = None
        LOGGER.debug("Disconnected from %s: %s %s", self.name, reason.value, detail)
        told = "" if upstream.received else "no data"
        self._events.tell(
            Event(EventType.CONNECTION_CLOSED, None, reason, detail or told)
        )
        self._judge_loss(upstream, reason, detail or reason.value, now)
        self.connect()
        self._wake_closers()

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
        if limit < self.limit:
            LOGGER.info(
                "%s does not bear %d connections (%s); using %d",
                self.name,
                self.limit,
                detail,
                limit,
            )
            self.limit = limit

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
        self.limit = self._settings.max_connections
        self.health.forget()
        await self._cancel_connecting()
        self._connect_now = True
        await self._close_all(CloseReason.RECONNECT, drain=drain)
        self.connect()

    async def pause(self) -> None:
        """Close every connection once its exchanges are finished, and open none."""
        if not self.paused:
            self.paused = True
            LOGGER.info("%s is left alone: paused", self.name)
        self.dispatcher.fail_pending(Failure.PAUSED, before=float("inf"))
        await self._cancel_connecting()
        self.check_health()
        await self._close_all(CloseReason.PAUSED, drain=True)

    def resume(self) -> None:
        """Connect again."""
        if not self.paused:
            return
        self.paused = False
        LOGGER.info("%s is used again", self.name)
        self.health.forget()
        for upstream in self.upstreams:
            if upstream.retiring is CloseReason.PAUSED:
                upstream.retiring = None
                self.dispatcher.freed(upstream, self._loop.time())
        self._wake_closers()
        self._connect_now = not self._settings.connect_on_demand
        self.check_health()
        self.connect()

    async def stop(self) -> None:
        """Close everything at once and fail what is unfinished."""
        self.stopped = True
        await self._cancel_connecting()
        self.dispatcher.fail_pending(Failure.NO_CONNECTION, before=float("inf"))
        for upstream in tuple(self.upstreams):
            upstream.close(CloseReason.STOPPED)
        self.alarm.cancel()

    def apply(self, settings: Settings) -> None:
        """Go on with other settings; connections stay."""
        now = self._loop.time()
        self._settings = settings
        self.limit = settings.max_connections
        self.dispatcher.apply(settings)
        self._connect_now = not settings.connect_on_demand
        for upstream in self.upstreams[settings.max_connections :]:
            self._retire(upstream, CloseReason.IDLE)
        for upstream in self.upstreams:
            if not upstream.retiring and now >= upstream.not_before:
                upstream.ready = self.dispatcher.has_room(upstream)
                if upstream.ready:
                    self.dispatcher.make_ready(upstream)
        self.alarm.set(self._next_moment())
        self.connect()
        self.dispatcher.dispatch(now)

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
        self.dispatcher.give_up(now)
        for upstream in tuple(self.upstreams):
            self._look_after(upstream, now)
        self.connect()
        self.dispatcher.dispatch(now)
        if not self.stopped:
            self.alarm.set(self._next_moment())

    def _look_after(self, upstream: Upstream, now: float) -> None:
        """Do what time asks of a connection."""
        settings = self._settings
        if upstream.retiring is not None:
            return
        if settings.max_lifetime and now >= upstream.opened_at + settings.max_lifetime:
            self._retire(upstream, CloseReason.LIFETIME)
            return
        if (
            not upstream.ready
            and now >= upstream.not_before
            and self.dispatcher.has_room(upstream)
        ):
            self.dispatcher.make_ready(upstream)
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
        request = self._protocol.probe(self.dispatcher.recorder.last_good)
        if request is None or self._prober.pending or self._prober.in_flight:
            return
        self._prober.upstream = upstream
        self._queue.put(
            Exchange(request, self._prober, now, now + self._settings.timeout)
        )

    def _next_moment(self) -> float:
        """Give the earliest moment at which there may be something to do."""
        settings = self._settings
        now = self._loop.time()
        moments = [self.alarm.at, self.dispatcher.next_deadline()]
        for upstream in self.upstreams:
            if upstream.retiring is not None:
                continue
            if not upstream.ready and self.dispatcher.has_room(upstream):
                moments.append(upstream.not_before)
            if settings.max_lifetime:
                moments.append(upstream.opened_at + settings.max_lifetime)
            busy = upstream.in_flight or self._queue.depth
            if settings.idle_timeout:
                due = upstream.last_used + settings.idle_timeout
                # if it is due and busy, look again later
                later = now + settings.idle_timeout
                moments.append(later if busy and due <= now else due)
            if settings.health_check_interval:
                since = now if busy else upstream.last_received
                moments.append(since + settings.health_check_interval)
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

    def recovered(self, now: float) -> None:
        """Note a response though the device was not known to be healthy."""
        lasted = self.health.recovered(now)
        if lasted is not None:
            LOGGER.info("%s is back after %.0f s", self.name, lasted)
            self._events.tell(Event(EventType.UPSTREAM_BACK))
        self.check_health()

    def check_health(self) -> None:
        """Tell of the upstream's health if it has changed."""
        status = self.status
        if status is not self.health_told:
            self.health_told = status
            reason = self.health.reason if status is not Health.HEALTHY else None
            self._events.tell(Event(EventType.HEALTH_CHANGED, None, status, reason))
