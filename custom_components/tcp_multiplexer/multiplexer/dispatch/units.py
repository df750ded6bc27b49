"""What the engine knows of each unit of the device, and when that matters.

As long as all units answer within a fraction of a second, nothing is kept of them, and
nothing is looked at: `active` is False. Otherwise there is more to know of a request
than whose turn it is:

* Slow units: no request is sent with less time left than its response takes
  (`response_times`).
* Silent ones: they are asked now and then (`breakers`).
* Overdue responses, where responses name their request: others do not wait for them
  (`patience`).
* Late ones, where a response names at most its unit (RTU): after a timeout nothing is
  sent to that unit until the response can no longer come, because it could be taken for
  the response to whatever is sent meanwhile. Other units are not affected.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ..protocols.base import Failure
from .breakers import Breakers
from .patience import Patience
from .response_times import SLOW, ResponseTimes

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ..observe.events import Events
    from ..protocols.base import Request
    from .exchange import Exchange, Upstream
    from .known_reads import KnownReads
    from .queue import RequestQueue
    from .timer import Timer


class Units:
    """Watches what is slow, silent, overdue or late."""

    def __init__(  # noqa: PLR0917 - the parts that it connects
        self,
        queue: RequestQueue,
        timer: Timer,
        timeout: float,
        known: KnownReads,
        describe: Callable[[bytes, None], str],
        events: Events,
        name: str,
    ) -> None:
        """Watch units; `known` are reads that they have answered."""
        self._watch(active=False)
        self.times = ResponseTimes()
        self.breakers = Breakers(known, describe, events, name)
        self.patience = Patience(queue, self.times, self.breakers, known)
        self.held: dict[Hashable, float] = {}
        """Units to which nothing is sent, and until when (loop time)."""
        self._queue = queue
        self._timer = timer
        self.timeout = timeout

    @property
    def timeout(self) -> float:
        """Seconds after which a request times out."""
        return self.patience.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self.patience.timeout = seconds

    def _watch(self, *, active: bool) -> None:
        self.active = active
        """Whether there is anything to be looked at."""
        self.unremarkable = -inf if active else SLOW
        """A response that took no longer than this (seconds) is not looked at."""

    def _update_active(self) -> None:
        self._watch(
            active=bool(
                self.times.watched
                or self.held
                or self.breakers
                or not self.patience.resting
            )
        )

    # ---- before a request is sent -----------------------------------------------

    def verdict(self, exchange: Exchange, now: float) -> Failure | None:
        """Return why a request is not to be sent at all, or None if it may be.

        Its unit may be silent, or held until its deadline, or there may be less time
        left than a response takes: the median of the unit's times, but at most half the
        timeout, because if no request were sent, the times could never improve.
        """
        if self.breakers and self.breakers.blocks(exchange, now):
            return Failure.SILENT
        unit, deadline = exchange.request.unit, exchange.deadline
        if self.held.get(unit, 0.0) > deadline:
            return Failure.BUSY
        if deadline - now < min(self.times.usual(unit), self.timeout / 2):
            return Failure.BUSY
        return None

    def sent(self, upstream: Upstream, exchange: Exchange) -> None:
        """Note that a request was sent; needed only while `active`."""
        self.breakers.sent(exchange)
        self.patience.sent(upstream, exchange)

    # ---- how it ends ------------------------------------------------------------

    def answered(self, upstream: Upstream, exchange: Exchange, now: float) -> bool:
        """Note a response; needed only while `active`, or if it was slow.

        Returns whether it is known by it of any unit that it is that which is silent.
        """
        unit = exchange.request.unit
        tells, passed = self.patience.answered(upstream, exchange, now)
        if tells:
            self.times.add(unit, now - exchange.sent)
        opens = bool(self.breakers) and self.breakers.answered(exchange, now)
        opens |= self._gone_past(upstream, passed, now)
        if not self.patience.resting:
            self._timer.set(max(now, self.patience.next_moment(upstream)))
        self._update_active()
        return opens

    def answered_late(
        self, upstream: Upstream, unit: Hashable, request: Request | None, now: float
    ) -> bool:
        """Note a response of a unit that came too late; return the same.

        `request` is what it answers, if that is known.
        """
        self.breakers.lives(unit)
        opens = self.breakers.judge(now, proof=now)
        if request is not None:
            passed = self.patience.answered_late(upstream, request, now)
            opens |= self._gone_past(upstream, passed, now)
        self._update_active()
        return opens

    def _gone_past(
        self, upstream: Upstream, passed: list[Exchange], now: float
    ) -> bool:
        """Count timeouts that the device has gone past since; return the same."""
        opens = False
        for exchange in passed:
            if self.fair(upstream, exchange, now):
                opens |= self.silent(exchange, now, proof=now)
        return opens

    def timed_out(
        self, upstream: Upstream, exchange: Exchange, now: float, *, fair: bool
    ) -> bool:
        """Note a timeout; return whether it says something about its unit by now."""
        tells = self.patience.timed_out(upstream, exchange, now, fair=fair)
        self.breakers.ended(exchange, now)
        self._update_active()
        return tells

    def fair(self, upstream: Upstream, exchange: Exchange, now: float) -> bool:
        """Return whether a response has had the time that it may take.

        That is half the time that it had in all, or as long as the slowest ones of its
        unit take.
        """
        slowest = self.times.slowest(exchange.request.unit)
        allowed = exchange.deadline - exchange.arrived
        needed = max(allowed / 2, min(slowest, 0.9 * allowed))
        took = now - self.patience.first_sent(upstream, exchange)
        return took >= needed - 1e-6

    def ended(self, upstream: Upstream, exchange: Exchange, now: float) -> None:
        """Note that a request has ended in a way that says nothing about its unit."""
        self.patience.ended(upstream, exchange, now)
        self.breakers.ended(exchange, now)
        self._update_active()

    def silent(self, exchange: Exchange, now: float, proof: float) -> bool:
        """Count a timeout; return whether a unit is only tried now and then by it.

        `proof` is when the device last answered anything (loop time).
        """
        self._watch(active=True)
        answered_before = exchange.split is not None and exchange.split.number > 1
        if answered_before or self.patience.heard(exchange):
            self.breakers.refused_read(exchange, now, proof)
            return False
        return self.breakers.silent(exchange, now, proof)

    def lost(self, upstream: Upstream, now: float) -> None:
        """Note that a connection is gone, with what is in flight on it."""
        for exchange in upstream.in_flight.values():
            self.breakers.ended(exchange, now)
        self.patience.closed(upstream)
        self._update_active()

    def hung_up(self, exchange: Exchange, now: float, proof: float) -> None:
        """Note that the device closed the connection in place of a response."""
        self.breakers.refused_read(exchange, now, proof)
        self._update_active()

    # ---- time passes ------------------------------------------------------------

    def look(self, upstream: Upstream, now: float) -> list[Exchange]:
        """Return the requests on a connection that have become overdue."""
        overdue = self.patience.look(upstream, now)
        if overdue:
            self._watch(active=True)
        return overdue

    def hold(self, unit: Hashable, until: float) -> None:
        """Send nothing to a unit until a moment (loop time)."""
        self.held[unit] = max(until, self.held.get(unit, 0.0))
        self._queue.bar(unit)
        self._timer.set(until)
        self._watch(active=True)

    def release(self, now: float) -> None:
        """Release the units whose time is up; `dispatch` must follow."""
        for unit, until in tuple(self.held.items()):
            if until <= now:
                del self.held[unit]
                self._queue.unbar(unit)
        self._update_active()

    def next_moment(self) -> float:
        """Return when `release` next has something to do (loop time), or infinity."""
        return min(self.held.values(), default=inf)
