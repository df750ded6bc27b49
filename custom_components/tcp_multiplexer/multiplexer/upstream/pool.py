"""The connections to one device: when they are opened, kept, renewed and closed.

At most one is being opened at a time. The first is opened at the start, or where
`connect_on_demand` is set with the first request; further ones when all that are open
are busy and requests wait. What goes over them is the dispatcher's business.

An extra connection is on trial until its first response (see `dispatch.dispatcher`). A
lost trial shrinks the pool, until the next `reconnect`.

One timer wakes the pool at the earliest moment at which time alone changes something.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, override

from ..dispatch.dispatcher import Supply
from ..dispatch.exchange import CloseReason
from ..limits import LIMITS
from ..observe.events import Event, EventType
from ..observe.snapshot import Health
from ..protocols.base import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..dispatch.connections import Connections
    from ..dispatch.dispatcher import Dispatcher
    from ..dispatch.exchange import Upstream
    from ..dispatch.queue import RequestQueue
    from ..dispatch.timer import Timer
    from ..observe.events import Events
    from ..observe.statistics import Statistics
    from ..protocols.base import Protocol
    from ..settings import Settings
    from .health_tracker import HealthTracker
    from .prober import Prober

LOGGER = logging.getLogger(__name__)

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
"""Failures that say something about the device."""


class UpstreamPool(Supply):
    """Opens, judges and closes the connections to one device."""

    def __init__(  # noqa: PLR0917 - the parts that it joins
        self,
        settings: Settings,
        protocol: Protocol[Any],
        queue: RequestQueue,
        connections: Connections,
        dispatcher: Dispatcher,
        health: HealthTracker,
        prober: Prober,
        statistics: Statistics,
        events: Events,
        timer: Timer,
        make_upstream: Callable[[], Upstream],
        *,
        paused: bool,
        name: str,
        trial_seconds: float = LIMITS.trial,
    ) -> None:
        self.paused = paused
        self.willing = not paused
        self.health = health
        self.limit = settings.max_connections
        self._name = name
        """For logs."""
        self._trial_seconds = trial_seconds
        self._connections = connections
        self._dispatcher = dispatcher
        self._prober = prober
        self._timer = timer
        self._settings = settings
        self._protocol = protocol
        self._queue = queue
        self._statistics = statistics
        self._events = events
        self._make_upstream = make_upstream
        self._loop = asyncio.get_running_loop()
        self._connecting: asyncio.Task[None] | None = None
        self._stopped = False
        self._connect_now = not settings.connect_on_demand
        """Open a connection though nobody asks."""
        self._opened_before = False
        self._closed: asyncio.Future[None] | None = None
        """Resolved when the next connection is gone, or need not go any more."""
        self._reported = self.status
        """The last `status` that was reported."""
        timer.callback = self._on_timer

    @override
    def __repr__(self) -> str:
        connecting = ", connecting" if self._connecting is not None else ""
        return f"<UpstreamPool {self._name}: {self.status.value}{connecting}>"

    # ---- connections come and go ------------------------------------------------

    @override
    def wanted(self) -> None:
        self._connect()

    @override
    def refuses(self, deadline: float) -> Failure | None:
        if self._stopped:
            return Failure.NO_CONNECTION
        if self.paused:
            return Failure.PAUSED
        if not self._connections.open and self.health.next_attempt > deadline:
            return Failure.NO_CONNECTION
        return None

    def start(self) -> None:
        """Begin to connect."""
        self._connect()

    def _connect(self) -> None:
        """Open a connection if one is wanted and may be opened now."""
        if not self.willing or self._connecting is not None:
            return
        upstreams = self._connections.open
        if upstreams:
            wanted = (
                len(upstreams) < self.limit
                and self._queue.depth > self._queue.joined
                and not any(u.ready or u.on_trial for u in upstreams)
            )
        else:
            wanted = self._connect_now or self._queue.depth > 0
        if not wanted:
            return
        if self._loop.time() < self.health.next_attempt:
            self._timer.set(self.health.next_attempt)
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
            LOGGER.exception("Connecting to %s failed in an unexpected way", self._name)
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
        LOGGER.debug("Connected to %s", self._name)
        self._events.tell(Event(EventType.CONNECTION_OPENED))
        self._connections.add(upstream, self._settings.connect_delay)
        self._timer.set(self._next_moment())
        self._report_health()
        self._dispatcher.dispatch(self._loop.time())

    def _open_failed(self, reason: str) -> None:
        self._events.tell(Event(EventType.CONNECTION_FAILED, detail=reason))
        if self._connections.open:
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
            LOGGER.info("%s is unavailable: %s", self._name, reason)
            self._events.tell(Event(EventType.UPSTREAM_LOST, detail=reason))
        self._report_health()
        self._dispatcher.fail_pending(
            Failure.NO_CONNECTION, before=self.health.next_attempt
        )
        self._connect()

    @override
    def lost(
        self, upstream: Upstream, reason: CloseReason, detail: str, now: float
    ) -> None:
        """Do without a connection that is gone; replace it where one is wanted."""
        self._connections.open.remove(upstream)
        self._prober.lost(upstream)
        LOGGER.debug("Disconnected from %s: %s %s", self._name, reason.value, detail)
        told = "" if upstream.received else "no data"
        self._events.tell(
            Event(EventType.CONNECTION_CLOSED, None, reason.value, detail or told)
        )
        self._judge_loss(upstream, reason, detail or reason.value, now)
        self._connect()
        self._wake_closers()
        self._report_health()

    def _judge_loss(
        self, upstream: Upstream, reason: CloseReason, detail: str, now: float
    ) -> None:
        """Decide what the end of a connection says about the device."""
        if reason in _OWN_REASONS:
            if reason is CloseReason.IDLE and not self._connections.open:
                self._connect_now = False
            return
        if self._connections.open:
            newest = max(other.opened_at for other in self._connections.open)
            if (
                upstream.on_trial
                or upstream.opened_at < newest > now - self._trial_seconds
            ):
                self._shrink(detail)
        elif not upstream.responses:
            if upstream.sent or now - upstream.opened_at < self._trial_seconds:
                self._attempt_failed(detail)
            else:
                # it was never asked: it waits for the next request like an idle one
                self._connect_now = False

    def _shrink(self, detail: str) -> None:
        """Ask no more of the device than it has shown to bear."""
        limit = max(1, len(self._connections.open))
        if limit < self.limit:
            LOGGER.info(
                "%s does not bear %d connections (%s); using %d",
                self._name,
                self.limit,
                detail,
                limit,
            )
            self.limit = limit

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
        self._connect()

    async def pause(self) -> None:
        """Close every connection once its exchanges are finished, and open none."""
        if not self.paused:
            self.paused = True
            self.willing = False
            LOGGER.info("%s is left alone: paused", self._name)
        self._dispatcher.fail_pending(Failure.PAUSED, before=float("inf"))
        await self._cancel_connecting()
        self._report_health()
        await self._close_all(CloseReason.PAUSED, drain=True)

    def resume(self) -> None:
        """Connect again."""
        if not self.paused:
            return
        self.paused = False
        self.willing = not self._stopped
        LOGGER.info("%s is used again", self._name)
        self.health.forget()
        for upstream in self._connections.open:
            if upstream.draining is CloseReason.PAUSED:
                upstream.draining = None
                self._connections.freed(upstream, self._loop.time())
        self._wake_closers()
        self._connect_now = not self._settings.connect_on_demand
        self._report_health()
        self._connect()

    async def stop(self) -> None:
        """Close everything at once and fail what is unfinished."""
        self._stopped = True
        self.willing = False
        await self._cancel_connecting()
        self._dispatcher.fail_pending(Failure.NO_CONNECTION, before=float("inf"))
        for upstream in self._connections:
            upstream.close(CloseReason.STOPPED)
        self._timer.cancel()

    def apply(self, settings: Settings) -> None:
        """Go on with other settings; connections stay."""
        now = self._loop.time()
        self._settings = settings
        self.limit = settings.max_connections
        self._dispatcher.apply(settings)
        self._connect_now = not settings.connect_on_demand
        for upstream in self._connections.open[settings.max_connections :]:
            self._connections.drain(upstream, CloseReason.IDLE)
        for upstream in self._connections:
            self._connections.refresh(upstream, now)
        self._timer.set(self._next_moment())
        self._connect()
        self._dispatcher.dispatch(now)

    async def _cancel_connecting(self) -> None:
        task, self._connecting = self._connecting, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _close_all(self, reason: CloseReason, *, drain: bool) -> None:
        closing = tuple(self._connections)
        for upstream in closing:
            if drain:
                self._connections.drain(upstream, reason)
            else:
                upstream.close(reason)
        while any(u.draining and u in self._connections.open for u in closing):
            if self._closed is None:
                self._closed = self._loop.create_future()
            await asyncio.shield(self._closed)

    def _wake_closers(self) -> None:
        """Let those who wait for connections to close look again."""
        if self._closed is not None:
            self._closed.set_result(None)
            self._closed = None

    # ---- time passes ------------------------------------------------------------

    def _on_timer(self, now: float) -> None:
        self._dispatcher.give_up(now)
        for upstream in self._connections:
            self._look_after(upstream, now)
        self._connect()
        self._dispatcher.dispatch(now)
        if not self._stopped:
            self._timer.set(self._next_moment())

    def _look_after(self, upstream: Upstream, now: float) -> None:
        """Do what time asks of a connection."""
        settings = self._settings
        if upstream.draining is not None:
            return
        if settings.max_lifetime and now >= upstream.opened_at + settings.max_lifetime:
            self._connections.drain(upstream, CloseReason.LIFETIME)
            return
        self._connections.refresh(upstream, now)
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
        request = self._protocol.probe(self._dispatcher.recorder.last_good)
        if request is not None:
            self._prober.probe(upstream, request, now, self._settings.timeout)

    def _next_moment(self) -> float:
        """Give the earliest moment at which there may be something to do."""
        settings = self._settings
        now = self._loop.time()
        moments = [self._timer.at, self._dispatcher.next_deadline()]
        for upstream in self._connections.open:
            if upstream.draining is not None:
                continue
            if not upstream.ready and self._connections.has_room(upstream):
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
        if not self._connections.open and self.health.next_attempt > now:
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
        if not self._connections.open and not (
            self._opened_before and self._connecting
        ):
            return Health.IDLE
        return Health.DEGRADED if self.health.degraded else Health.HEALTHY

    @override
    def answered(self, now: float) -> None:
        health = self.health
        health.count += 1
        if self._reported is Health.HEALTHY:  # nearly always
            return
        lasted = health.recovered(now)
        if lasted is not None:
            LOGGER.info("%s is back after %.0f s", self._name, lasted)
            self._events.tell(Event(EventType.UPSTREAM_BACK))
        self._report_health()

    @override
    def unanswered(self, failure: Failure) -> None:
        if failure in _DEVICE_FAILURES:
            self.health.failed(failure.value)
        self._report_health()

    def _report_health(self) -> None:
        """Report the upstream's health if it has changed."""
        status = self.status
        if status is not self._reported:
            self._reported = status
            reason = self.health.reason if status is not Health.HEALTHY else None
            self._events.tell(
                Event(EventType.HEALTH_CHANGED, None, status.value, reason)
            )
