"""Open connections are renewed, closed and probed as time passes.

A connection is `busy` while something is in flight on it, or while any request waits.
"""

from __future__ import annotations

import enum
from math import inf
from typing import TYPE_CHECKING

from ..dispatch.exchange import CloseReason

if TYPE_CHECKING:
    from ..dispatch.connections import Connections
    from ..dispatch.dispatcher import Dispatcher
    from ..dispatch.exchange import Upstream
    from ..dispatch.queue import RequestQueue
    from ..protocols.base import Request
    from ..settings import Settings
    from .health_tracker import HealthTracker
    from .prober import Prober


class Upkeep:
    """Looks after the open connections."""

    def __init__(  # noqa: PLR0917 - the parts that it connects
        self,
        settings: Settings,
        queue: RequestQueue,
        connections: Connections,
        dispatcher: Dispatcher,
        prober: Prober,
        health: HealthTracker,
    ) -> None:
        self.settings = settings
        self._queue = queue
        self._connections = connections
        self._dispatcher = dispatcher
        self._prober = prober
        self._health = health
        self._probes = 0
        """Probes since the last response, after the first of them."""

    def busy(self, upstream: Upstream) -> bool:
        """Return whether something is in flight on it, or a request waits."""
        return bool(upstream.in_flight) or self._queue.depth > 0

    def look_after(self, upstream: Upstream, now: float) -> None:
        """Do what is due on a connection."""
        if upstream.draining is not None:
            return
        duty = due(upstream, self.settings, now, busy=self.busy(upstream))
        if duty is Duty.RENEW:
            self._connections.drain(upstream, CloseReason.LIFETIME)
            return
        self._connections.refresh(upstream, now)
        if duty is Duty.CLOSE:
            upstream.close(CloseReason.IDLE)
        elif duty is Duty.PROBE:
            upstream.probed_at = now  # the next one is due an interval from now
            self.probe(upstream, now, self.settings.timeout)

    def probe(self, upstream: Upstream, now: float, timeout: float) -> bool:
        """Ask the device something harmless; return whether there is anything to ask.

        The response is awaited for `timeout` seconds.
        """
        self._probes = self._probes + 1 if self._health.probes_failed else 0
        witness = self._dispatcher.witness(now, self._probes)
        request = self._dispatcher.guard.probe(witness)
        if request is not None:
            self._prober.probe(upstream, request, now, timeout)
        return request is not None

    def ask(
        self,
        upstream: Upstream,
        request: Request,
        now: float,
        timeout: float,
    ) -> bool:
        """Ask the device this, unless the rules forbid it; return whether they do not.

        It goes ahead of all clients that wait. The response is awaited for `timeout`
        seconds.
        """
        if not self._dispatcher.guard.policy.permits(request):
            return False
        self._prober.probe(upstream, request, now, timeout, ahead=True)
        return True

    def lost(self, upstream: Upstream) -> None:
        """Forget a connection that is gone."""
        self._prober.lost(upstream)

    def next_moment(self, upstream: Upstream, now: float) -> float:
        """Return the earliest moment at which something may be due (loop time)."""
        if upstream.draining is not None:
            return inf
        moment = next_due(upstream, self.settings, now, busy=self.busy(upstream))
        return min(moment, self.ready_at(upstream))

    def ready_at(self, upstream: Upstream) -> float:
        """Return when it may be used again (loop time), if it waits for that only."""
        if (
            upstream.ready
            or upstream.draining
            or not self._connections.has_room(upstream)
        ):
            return inf
        return upstream.not_before


class Duty(enum.Enum):
    """What is to be done about a connection."""

    RENEW = enum.auto()
    """It has reached its maximum age, `max_lifetime`."""
    CLOSE = enum.auto()
    """It has been unused for `idle_timeout`."""
    PROBE = enum.auto()
    """It has been silent for `health_check_interval`."""


def due(
    upstream: Upstream, settings: Settings, now: float, *, busy: bool
) -> Duty | None:
    """Return what is due now, or None."""
    if settings.max_lifetime and now >= upstream.opened_at + settings.max_lifetime:
        return Duty.RENEW
    if busy:
        return None
    if settings.idle_timeout and now >= upstream.last_used + settings.idle_timeout:
        return Duty.CLOSE
    interval = settings.health_check_interval
    if interval and now >= _last_heard(upstream) + interval:
        return Duty.PROBE
    return None


def next_due(
    upstream: Upstream, settings: Settings, now: float, *, busy: bool
) -> float:
    """Return the earliest moment at which something may be due (loop time)."""
    moment = inf
    if settings.max_lifetime:
        moment = upstream.opened_at + settings.max_lifetime
    if settings.idle_timeout:
        idle = upstream.last_used + settings.idle_timeout
        # if it is due and busy, look again later
        moment = min(
            moment, now + settings.idle_timeout if busy and idle <= now else idle
        )
    if settings.health_check_interval:
        silent_since = now if busy else _last_heard(upstream)
        moment = min(moment, silent_since + settings.health_check_interval)
    return moment


def _last_heard(upstream: Upstream) -> float:
    """Return when something last arrived, or was asked for that purpose (loop time)."""
    return max(upstream.last_received, upstream.probed_at)
