"""What is known of each unit of the device: its response times, and late responses.

A unit that has been slow is watched: its last response times predict how long the next
response takes, so that no request is sent with less time left than that. Units that
have always been fast cost nothing.

Where a response does not identify its request but only its unit (RTU), a unit is held
after one of its requests timed out: a late response could be taken for the response to
whatever is sent to it meanwhile. Other units are not affected.
"""

from collections import deque
from math import inf
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .exchange import Exchange
    from .queue import RequestQueue
    from .timer import Timer

SLOW = 0.25
"""Seconds; a unit that answers within them is not watched."""
_TIMES_KEPT = 16
"""Response times kept of a watched unit."""
_MAX_WATCHED = 256


class Units:
    """Watches slow units, and holds units whose late response may still come."""

    def __init__(self, queue: RequestQueue, timer: Timer, timeout: float) -> None:
        self.timeout = timeout
        """Seconds after which a request times out."""
        self.active = False
        """Whether any unit is watched or held."""
        self.watched: dict[Hashable, deque[float]] = {}
        """The last response times, in seconds, of units that have been slow."""
        self.held: dict[Hashable, float] = {}
        """Units to which nothing is sent, and until when (loop time)."""
        self._queue = queue
        self._timer = timer

    def answered(self, unit: Hashable, took: float) -> None:
        """Note a response that took `took` seconds."""
        times = self.watched.get(unit)
        if times is None:
            if took <= SLOW or len(self.watched) >= _MAX_WATCHED:
                return
            times = self.watched[unit] = deque(maxlen=_TIMES_KEPT)
        times.append(took)
        if max(times) <= SLOW:
            del self.watched[unit]
        self._update_active()

    def _update_active(self) -> None:
        self.active = bool(self.watched or self.held)

    def too_late(self, now: float, exchange: Exchange) -> bool:
        """Return whether the response to a request would come after its deadline.

        So it is if its unit is held until then, or if less time is left than a response
        takes. That is estimated as the median of the times kept, but at most half the
        timeout: if no request were sent, the estimate could never improve.
        """
        unit, deadline = exchange.request.unit, exchange.deadline
        if self.held.get(unit, 0.0) > deadline:
            return True
        times = self.watched.get(unit)
        if times is None:
            return False
        return deadline - now < min(median(times), self.timeout / 2)

    def hold(self, unit: Hashable, until: float) -> None:
        """Send nothing to a unit until a moment (loop time)."""
        self.held[unit] = max(until, self.held.get(unit, 0.0))
        self._queue.bar(unit)
        self._timer.set(until)
        self.active = True

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
