"""The connections to one device: when they are opened, kept, renewed and closed.

At most one is being opened at a time. The first is opened at the start or, with
`connect_on_demand`, for the first request. Further ones are opened when all open ones
are busy and requests wait. What is sent over them is up to the dispatcher.

An extra connection is on trial until its first response (see `dispatch.dispatcher`). A
lost trial shrinks the pool, until the next `reconnect`.

One timer wakes the pool at the earliest moment at which something is due.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, override

from ..dispatch.exchange import CloseReason
from ..dispatch.supply import Supply
from ..limits import LIMITS
from ..observe.events import Event, EventType
from ..observe.snapshot import Health
from ..protocols.base import Failure
from .upkeep import Duty, due, next_due

if TYPE_CHECKING:
    from ..dispatch.connections import Connections
    from ..dispatch.dispatcher import Dispatcher
    from ..dispatch.exchange import Upstream
    from ..dispatch.queue import RequestQueue
    from ..dispatch.timer import Timer
    from ..observe.events import Events
    from ..observe.statistics import Statistics
    from ..protocols.base import Protocol
    from ..settings import Settings
    from .connector import Connector
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
"""Reasons for which the multiplexer itself closes a connection of a healthy device."""

_DEVICE_FAILURES = frozenset(
    (Failure.CONNECTION_LOST, Failure.NO_RESPONSE, Failure.INVALID_RESPONSE)
)
"""Failures that say something about the device."""


class UpstreamPool(Supply):
    """Opens, judges and closes the connections to one device."""

    def __init__(  # noqa: PLR0917 - the parts that it connects
        self,
        settings: Settings,
        protocol: Protocol[Any],
        queue: RequestQueue,
        connections: Connections,
        dispatcher: Dispatcher,
        connector: Connector,
        health: HealthTracker,
        prober: Prober,
        statistics: Statistics,
        events: Events,
        timer: Timer,
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
        self._connector = connector
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._connect_now = not settings.connect_on_demand
        """Open a connection even if no request waits."""
        self._opened_before = False
        self._closed: asyncio.Future[None] | None = None
        """Resolved when the next connection is gone, or when closing is called off."""
        self._reported = self.status
        """The `status` last reported."""
        self.well = False
        timer.callback = self._on_timer

    @override
    def __repr__(self) -> str:
        connecting = ", connecting" if self._connector.busy else ""
        return f"<UpstreamPool {self._name}: {self.status.value}{connecting}>"

    # ---- connections come and go ------------------------------------------------

    @override
    def refuses(self, deadline: float) -> Failure | None:
        if self._stopped:
            return Failure.NO_CONNECTION
        if self.paused:
            return Failure.PAUSED
        if not self._connections.open and self.health.next_attempt > deadline:
            return Failure.NO_CONNECTION
        return None

    @override
    def connect(self) -> None:
        """Open a connection if one is wanted and may be opened now."""
        if not self.willing or self._connector.busy:
            return
        upstreams = self._connections.open
        if upstreams:
            wanted = (
                len(upstreams) < self.limit
                and self._queue.depth > self._queue.joined
                and not any(u.ready or u.on_trial for u in upstreams)
            )
        else:
            wanted = (
                self._connect_now or self._queue.depth > 0 or self._connector.expects
            )
        if not wanted:
            return
        if self._loop.time() < self.health.next_attempt:
            self._timer.set(self.health.next_attempt)
            return
        self._connector.begin(self._opened, self._open_failed)

    def _opened(self, upstream: Upstream) -> None:
        if self._opened_before:
            self._statistics.reconnects += 1
        self._opened_before = True
        self._connect_now = not self._settings.connect_on_demand
        LOGGER.debug("Connected to %s", self._name)
        self._events.emit(Event(EventType.CONNECTION_OPENED))
        self._connections.add(upstream, self._settings.connect_delay)
        self._timer.set(self._next_moment())
        self._report_health()
        self._dispatcher.dispatch(self._loop.time())

    def _open_failed(self, reason: str) -> None:
        self._events.emit(Event(EventType.CONNECTION_FAILED, detail=reason))
        if self._connections.open:
            self._shrink(reason)
        else:
            self._attempt_failed(reason)

    def _attempt_failed(self, reason: str) -> None:
        """Schedule the next attempt; fail the requests that it comes too late for."""
        settings = self._settings
        news = self.health.attempt_failed(
            self._loop.time(),
            reason,
            settings.reconnect_backoff,
            settings.reconnect_backoff_max,
        )
        if news:
            LOGGER.info("%s is unavailable: %s", self._name, reason)
            self._events.emit(Event(EventType.UPSTREAM_LOST, detail=reason))
        self._report_health()
        self._dispatcher.fail_pending(
            Failure.NO_CONNECTION, before=self.health.next_attempt
        )
        self.connect()

    @override
    def lost(
        self, upstream: Upstream, reason: CloseReason, detail: str, now: float
    ) -> None:
        """Remove a connection that is gone; replace it where one is wanted."""
        self._connections.open.remove(upstream)
        self._prober.lost(upstream)
        LOGGER.debug("Disconnected from %s: %s %s", self._name, reason.value, detail)
        shown = detail or ("" if upstream.received else "no data")
        self._events.emit(Event(EventType.CONNECTION_CLOSED, None, reason, shown))
        self._judge_loss(upstream, reason, detail or reason.value, now)
        self.connect()
        self._wake_closers()
        self._report_health()

    def _judge_loss(
        self, upstream: Upstream, reason: CloseReason, detail: str, now: float
    ) -> None:
        """Decide what the end of a connection says about the device."""
        if reason in _OWN_REASONS or self._connector.expects:
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
                # No request was sent on it: like an idle one, it comes back on demand.
                self._connect_now = False

    def _shrink(self, detail: str) -> None:
        """Limit the pool to the connections that the device can evidently serve."""
        limit = max(1, len(self._connections.open))
        if limit < self.limit:
            text = "%s cannot serve %d connections (%s); using %d"
            LOGGER.info(text, self._name, self.limit, detail, limit)
            self.limit = limit

    # ---- what the owner controls ------------------------------------------------

    async def reconnect(self, *, drain: bool) -> None:
        """Close every connection and open a new one.

        With `drain`, exchanges in flight may finish first. Pending requests survive.
        Returns when the old connections are closed.
        """
        self.limit = self._settings.max_connections
        self.health.forget()
        await self._connector.cancel()
        self._connect_now = True
        await self._close_all(CloseReason.RECONNECT, drain=drain)
        self.connect()

    async def pause(self) -> None:
        """Close every connection once its exchanges have finished, and open none.

        Returns when they are closed. Pending requests fail.
        """
        if not self.paused:
            self.paused = True
            self.willing = False
            LOGGER.info("%s is left alone: paused", self._name)
        self._dispatcher.fail_pending(Failure.PAUSED, before=float("inf"))
        await self._connector.cancel()
        self._report_health()
        await self._close_all(CloseReason.PAUSED, drain=True)

    def resume(self) -> None:
        """Open connections again."""
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
        self.connect()

    async def stop(self) -> None:
        """Close every connection at once, and fail all requests."""
        self._stopped = True
        self.willing = False
        await self._connector.cancel()
        self._dispatcher.fail_pending(Failure.NO_CONNECTION, before=float("inf"))
        for upstream in self._connections:
            upstream.close(CloseReason.STOPPED)
        self._timer.cancel()

    def apply(self, settings: Settings) -> None:
        """Apply changed settings; connections stay open as far as these allow."""
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
        self.connect()
        self._dispatcher.dispatch(now)

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
        """Wake `_close_all` to check again."""
        if self._closed is not None:
            self._closed.set_result(None)
            self._closed = None

    # ---- time passes ------------------------------------------------------------

    def _on_timer(self, now: float) -> None:
        self._dispatcher.give_up(now)
        for upstream in self._connections:
            self._look_after(upstream, now)
        self.connect()
        self._dispatcher.dispatch(now)
        if not self._stopped:
            self._timer.set(self._next_moment())

    def _look_after(self, upstream: Upstream, now: float) -> None:
        """Do what is due on a connection."""
        if upstream.draining is not None:
            return
        duty = due(upstream, self._settings, now, busy=self._busy(upstream))
        if duty is Duty.RENEW:
            self._connections.drain(upstream, CloseReason.LIFETIME)
            return
        self._connections.refresh(upstream, now)
        if duty is Duty.CLOSE:
            upstream.close(CloseReason.IDLE)
        elif duty is Duty.PROBE:
            self._probe(upstream, now)

    def _busy(self, upstream: Upstream) -> bool:
        return bool(upstream.in_flight) or self._queue.depth > 0

    def _probe(self, upstream: Upstream, now: float) -> None:
        upstream.last_received = now  # the next one is due an interval from now
        for last_good in (self._dispatcher.recorder.last_good, None):
            request = self._protocol.probe(last_good)
            if request is not None and self._dispatcher.policy.permits(request):
                self._prober.probe(upstream, request, now, self._settings.timeout)
                return

    def _next_moment(self) -> float:
        """Return the earliest moment at which something may be due (loop time)."""
        now = self._loop.time()
        moments = [self._timer.at, self._dispatcher.next_deadline()]
        for upstream in self._connections.open:
            if upstream.draining is not None:
                continue
            if not upstream.ready and self._connections.has_room(upstream):
                moments.append(upstream.not_before)
            busy = self._busy(upstream)
            moments.append(next_due(upstream, self._settings, now, busy=busy))
        if not self._connections.open and self.health.next_attempt > now:
            moments.append(self.health.next_attempt)
        return min(moments)

    # ---- the health of the upstream ---------------------------------------------

    @property
    def status(self) -> Health:
        """The health of the upstream."""
        if self.paused:
            return Health.PAUSED
        if self.health.outage_since is not None:
            return Health.UNREACHABLE
        if not self._connections.open and self._connector.expects:
            return Health.WAITING
        if not self._connections.open and not (
            self._opened_before and self._connector.busy
        ):
            return Health.IDLE
        return Health.DEGRADED if self.health.degraded else Health.HEALTHY

    @override
    def answered(self, now: float) -> None:
        self.health.answered()
        lasted = self.health.recovered(now)
        if lasted is not None:
            LOGGER.info("%s is back after %.0f s", self._name, lasted)
            self._events.emit(Event(EventType.UPSTREAM_BACK))
        self._report_health()

    @override
    def unanswered(self, failure: Failure) -> None:
        if failure in _DEVICE_FAILURES:
            self.health.failed(failure.value)
        self._report_health()

    def _report_health(self) -> None:
        """Report the upstream's health if it has changed."""
        status = self.status
        self.well = status is Health.HEALTHY and not self.health.failed_lately
        if status is not self._reported:
            self._reported = status
            reason = self.health.reason if status is not Health.HEALTHY else None
            self._events.emit(Event(EventType.HEALTH_CHANGED, None, status, reason))
