"""The connections to one device: when they are opened, kept, renewed and closed.

At most one is being opened at a time. The first is opened at the start or, with
`connect_on_demand`, for the first request. Further ones are opened when all open ones
are busy and requests wait. What is sent over them is up to the dispatcher.

An extra connection is on trial until its first response (see `dispatch.dispatcher`). A
lost trial shrinks the pool, until the next `reconnect`.

One timer wakes the pool at the earliest moment at which something is due.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, override

from ..dispatch.exchange import BY_DEVICE, CloseReason
from ..dispatch.supply import Supply
from ..limits import LIMITS
from ..observe.events import Event, EventType
from ..observe.snapshot import Health
from ..protocols.base import Failure
from .closer import Closer
from .losses import Loss, LossJudge

if TYPE_CHECKING:
    from ..dispatch.connections import Connections
    from ..dispatch.dispatcher import Dispatcher
    from ..dispatch.exchange import Upstream
    from ..dispatch.queue import RequestQueue
    from ..dispatch.timer import Timer
    from ..observe.events import Events
    from ..observe.statistics import Statistics
    from ..protocols.base import Request
    from ..settings import Settings
    from .connector import Connector
    from .health_tracker import HealthTracker
    from .periodic import PeriodicRequester
    from .upkeep import Upkeep

LOGGER = logging.getLogger(__name__)

_DEVICE_FAILURES = frozenset(
    (Failure.CONNECTION_LOST, Failure.NO_RESPONSE, Failure.INVALID_RESPONSE)
)
"""Failures that say something about the device."""


class UpstreamPool(Supply):
    """Opens, judges and closes the connections to one device."""

    def __init__(  # noqa: PLR0917 - the parts that it connects
        self,
        settings: Settings,
        queue: RequestQueue,
        connections: Connections,
        dispatcher: Dispatcher,
        connector: Connector,
        health: HealthTracker,
        upkeep: Upkeep,
        periodic: PeriodicRequester,
        statistics: Statistics,
        events: Events,
        timer: Timer,
        *,
        paused: bool,
        name: str,
        has_units: bool,
        trial_seconds: float = LIMITS.trial,
    ) -> None:
        """Connect the parts; `has_units` as of the protocol."""
        self.paused = paused
        self.willing = not paused
        self.health = health
        self.limit = settings.max_connections
        self._name = name
        """For logs."""
        self._trial_seconds = trial_seconds
        self._connections = connections
        self._dispatcher = dispatcher
        self._upkeep = upkeep
        self._periodic = periodic
        self._timer = timer
        self._settings = settings
        self._queue = queue
        self._statistics = statistics
        self._events = events
        self._connector = connector
        self._losses = LossJudge(connections, trial_seconds, has_units=has_units)
        self._closer = Closer(connections)
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._keeps = not settings.connect_on_demand
        """A connection is opened even if no request waits."""
        self._opened_before = False
        self._renewed = False
        """The last connection was closed because it was silent."""
        self._dropped = ""
        """Why the device closed a connection while another was being opened."""
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
        not_before = self.health.next_attempt
        if upstreams:
            wanted = (
                len(upstreams) < self.limit
                and self._queue.depth > self._queue.joined
                and not any(u.ready or u.on_trial or u.alone for u in upstreams)
            )
        elif self._queue.depth:
            wanted = True
        else:
            wanted = self._keeps or self._pursues or self._connector.expects
            not_before = max(not_before, self.health.reopen_at)
        if not wanted:
            if self.health.next_attempt:
                self._timer.set(self.health.next_attempt)  # from then on, it is idle
            return
        if self._loop.time() < not_before:
            self._timer.set(not_before)
            return
        self._dropped = ""
        self._connector.begin(self._opened, self._open_failed)

    @property
    @override
    def opening(self) -> bool:
        return self._connector.busy

    @property
    def _pursues(self) -> bool:
        """Whether attempts go on because of an outage, although nobody asks."""
        away = self.health.outage_since is not None
        return away and not self._settings.connect_on_demand

    def _opened(self, upstream: Upstream) -> None:
        if self._opened_before:
            self._statistics.reconnects += 1
        self._opened_before = True
        self._keeps = not self._settings.connect_on_demand
        LOGGER.debug("Connected to %s", self._name)
        self._events.emit(Event(EventType.CONNECTION_OPENED))
        self._dispatcher.opened(upstream, self._settings.connect_delay)
        if self._dropped:
            self._shrink(self._dropped)
        self._report_health()
        if self.health.outage_since is not None:
            self._seek_end(upstream, self._loop.time())
        elif self.health.probes_failed and not self._renewed:
            timeout = self._settings.connect_delay + self._settings.timeout
            self._upkeep.probe(upstream, self._loop.time(), timeout)
        self._timer.set(self._next_moment())
        self._dispatcher.dispatch(self._loop.time())

    def _open_failed(self, reason: str) -> None:
        self._events.emit(Event(EventType.CONNECTION_FAILED, detail=reason))
        if self._connections.open:
            self._shrink(reason)
        else:
            self._attempt_failed(reason)

    def _attempt_failed(self, reason: str, opened: float = inf) -> None:
        """Schedule the next attempt; fail the requests that it comes too late for."""
        settings = self._settings
        self._dispatcher.unreachable(self._loop.time())
        news = self.health.attempt_failed(
            self._loop.time(),
            reason,
            settings.reconnect_backoff,
            settings.reconnect_backoff_max,
            opened,
        )
        if news:
            LOGGER.info("%s is unavailable: %s", self._name, reason)
            self._events.emit(Event(EventType.UPSTREAM_LOST, detail=reason))
        self._report_health()
        self._fail_pending(Failure.NO_CONNECTION, before=self.health.next_attempt)
        self.connect()

    def _fail_pending(self, failure: Failure, before: float = inf) -> None:
        now = self._loop.time()
        self._dispatcher.unanswered.fail_pending(failure, now, before)

    @override
    def lost(
        self, upstream: Upstream, reason: CloseReason, detail: str, now: float
    ) -> None:
        """Remove a connection that is gone; replace it where one is wanted."""
        self._connections.remove(upstream)
        self._upkeep.lost(upstream)
        if not self._connections.open:
            self._periodic.disconnected()
        self._renewed = reason is CloseReason.NO_RESPONSE
        LOGGER.debug("Disconnected from %s: %s %s", self._name, reason.value, detail)
        shown = detail or ("" if upstream.received else "no data")
        self._events.emit(Event(EventType.CONNECTION_CLOSED, None, reason, shown))
        self._judge_loss(upstream, reason, detail or reason.value, now)
        self.connect()
        self._closer.wake()
        self._report_health()

    def _judge_loss(
        self, upstream: Upstream, reason: CloseReason, detail: str, now: float
    ) -> None:
        """Act on what the end of a connection says about the device."""
        answered = self._dispatcher.last_response or 0.0
        loss = self._losses.judge(upstream, reason, now, answered)
        if self._connector.expects:
            return  # the device itself connects again
        if reason in BY_DEVICE and self.opening:
            self._dropped = detail  # perhaps in favour of the one that is being opened
        if loss is Loss.ON_PURPOSE:
            self._keeps = False
        elif loss is Loss.TOO_MANY:
            self._shrink(detail)
        elif loss is Loss.UNASKED and not self._awaited:
            settings = self._settings
            self.health.closed_unasked(
                now, settings.reconnect_backoff, settings.reconnect_backoff_max
            )
        elif loss in {Loss.UNASKED, Loss.FAILED}:
            self._attempt_failed(detail, upstream.opened_at)

    @property
    def _awaited(self) -> bool:
        """Whether a request waits for a connection, or the end of an outage does."""
        return self._queue.depth > 0 or self.health.outage_since is not None

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
        self._keeps = True
        await self._closer.close_all(CloseReason.RECONNECT, drain=drain)
        self.connect()

    async def pause(self) -> None:
        """Close every connection once its exchanges have finished, and open none.

        Returns when they are closed. Pending requests fail.
        """
        if not self.paused:
            self.paused = True
            self.willing = False
            LOGGER.info("%s is left alone: paused", self._name)
        self._fail_pending(Failure.PAUSED)
        await self._connector.cancel()
        self._report_health()
        await self._closer.close_all(CloseReason.PAUSED, drain=True)

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
                self._connections.refresh(upstream, self._loop.time())
        self._closer.wake()
        self._keeps = not self._settings.connect_on_demand
        self._report_health()
        if self.willing:
            self._timer.set(self._next_moment())  # what was not done may be due
        self.connect()

    async def stop(self) -> None:
        """Close every connection at once, and fail all requests."""
        self._stopped = True
        self.willing = False
        await self._connector.cancel()
        self._fail_pending(Failure.NO_CONNECTION)
        for upstream in self._connections:
            upstream.close(CloseReason.STOPPED)
        self._timer.cancel()

    def apply(self, settings: Settings) -> None:
        """Apply changed settings; connections stay open as far as these allow."""
        now = self._loop.time()
        self._settings = self._upkeep.settings = settings
        self.limit = settings.max_connections
        self._dispatcher.apply(settings)
        self._keeps = not settings.connect_on_demand
        for upstream in self._connections.open[settings.max_connections :]:
            self._connections.drain(upstream, CloseReason.IDLE)
        for upstream in self._connections:
            self._connections.refresh(upstream, now)
        self._timer.set(self._next_moment())
        self.connect()
        self._dispatcher.dispatch(now)

    # ---- time passes ------------------------------------------------------------

    def _on_timer(self, now: float) -> None:
        self.health.waited(now)
        self._dispatcher.expiry.give_up(now)
        for upstream in self._connections:
            if self.health.outage_since is None or upstream.draining is not None:
                self._upkeep.look_after(upstream, now)
            else:
                self._seek_end(upstream, now)
        if self._may_ask:
            self._periodic.ask(self._settings, now)
        self.connect()
        self._dispatcher.dispatch(now)
        if self.health.outage_since is not None:
            self._report_health()
        if not self._stopped:
            self._timer.set(self._next_moment())

    def _seek_end(self, upstream: Upstream, now: float) -> None:
        """See in an outage whether the device is back, unless a request shows it."""
        self._connections.refresh(upstream, now)
        if not upstream.ready or self._upkeep.busy(upstream):
            return
        timeout = self._settings.timeout
        if not upstream.quiet:  # else the line would stay silent for that long anyway
            timeout = self.health.patience(now, self._trial_seconds, timeout)
        stayed = now >= upstream.opened_at + self._trial_seconds
        if not self._upkeep.probe(upstream, now, timeout) and stayed:
            self._recovered(now)

    @property
    def _may_ask(self) -> bool:
        """Whether the periodic request may be asked: over a connection that is there.

        In an outage, the probes alone decide.
        """
        there = self.willing and bool(self._connections.open)
        return there and self.health.outage_since is None

    @override
    def question(self, upstream: Upstream, request: Request, now: float) -> bool:
        timeout = self._settings.timeout
        return self._upkeep.ask(upstream, request, now, timeout)

    def _next_moment(self) -> float:
        """Return the earliest moment at which something may be due (loop time)."""
        now = self._loop.time()
        moments = [self._timer.at, self._dispatcher.expiry.next_moment()]
        if self._may_ask:
            moments.append(self._periodic.next_moment(self._settings))
        for upstream in self._connections.open:
            if self.health.outage_since is None:
                moments.append(self._upkeep.next_moment(upstream, now))
                continue
            moments.append(self._upkeep.ready_at(upstream))
            if upstream.opened_at + self._trial_seconds > now:
                moments.append(upstream.opened_at + self._trial_seconds)
        if not self._connections.open:
            due = (self.health.next_attempt, self.health.reopen_at)
            moments += [moment for moment in due if moment > now]
        return min(moments)

    # ---- the health of the upstream ---------------------------------------------

    @property
    def status(self) -> Health:
        """The health of the upstream."""
        if self.paused:
            return Health.PAUSED
        connected = bool(self._connections.open)
        if self.health.outage_since is not None:
            asked = connected or self._connector.busy or self._queue.depth
            given_up = not (asked or self._pursues or self.health.next_attempt)
            return Health.IDLE if given_up else Health.UNREACHABLE
        if self._connector.expects and not connected:
            return Health.WAITING
        coming = self.willing and (self._keeps or self._connector.busy)
        if not connected and not (self._opened_before and coming):
            return Health.IDLE
        return Health.DEGRADED if self.health.degraded else Health.HEALTHY

    @property
    def reason(self) -> str | None:
        """The last error, while the device is not well; at rest there is none."""
        unwell = self.status in {Health.DEGRADED, Health.UNREACHABLE}
        return self.health.reason if unwell else None

    @override
    def answered(self, now: float) -> None:
        self.health.answered()
        self._recovered(now)

    def _recovered(self, now: float) -> None:
        """Note that the device is there."""
        lasted = self.health.recovered(now)
        if lasted is not None:
            self._timer.set(now)  # what was not done in the outage may be due
            LOGGER.info("%s is back after %.0f s", self._name, lasted)
            self._events.emit(Event(EventType.UPSTREAM_BACK))
        self._report_health()

    @override
    def unanswered(self, failure: Failure, *, probe: bool) -> None:
        if failure in _DEVICE_FAILURES:
            self.health.failed(failure.value, probe=probe)
        self._report_health()

    def _report_health(self) -> None:
        """Report the upstream's health if it has changed."""
        status = self.status
        health = self.health
        self.well = status is Health.HEALTHY and not (
            health.failed_lately or health.ending
        )
        if status is not self._reported:
            self._reported = status
            event = Event(EventType.HEALTH_CHANGED, None, status, self.reason)
            self._events.emit(event)
