"""What is known of each unit of the device: how long it takes, and what may still come.

A unit that has been slow is watched: its last response times tell how long a response
is going to take, so that no request goes out with less time left than that. Units that
always were fast cost nothing.

Where a response does not say which request it answers, but which unit (RTU), a unit is
held after one of its requests was given up: what is sent to it meanwhile could be
answered with the late response. Other units are not concerned.
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
"""Seconds; whatever answers within them is not watched."""
_REMEMBERED = 16
"""Response times of a watched unit that count."""
_MOST_UNITS = 256


class Units:
    """Watches slow units, and holds those that may still answer late."""

    def __init__(self, queue: RequestQueue, timer: Timer, timeout: float) -> None:
        self.timeout = timeout
        """Seconds after which a request is given up."""
        self.active = False
        """Some unit is watched or held."""
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
            if took <= SLOW or len(self.watched) >= _MOST_UNITS:
                return
            times = self.watched[unit] = deque(maxlen=_REMEMBERED)
        times.append(took)
        if max(times) <= SLOW:
            del self.watched[unit]
        self._see()

    def _see(self) -> None:
        self.active = bool(self.watched or self.held)

    def too_late(self, now: float, exchange: Exchange) -> bool:
        """Tell whether a request's response could not come before its deadline.

        It may not be sent before, or has less time left than a response takes: the
        median of what was seen, but never more than half the timeout, because some
        requests must go out, or nothing new would ever be seen.
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
        """Let units be asked again for which it is time; `dispatch` must follow."""
        for unit, until in tuple(self.held.items()):
            if until <= now:
                del self.held[unit]
                self._queue.unbar(unit)
        self._see()

    def next_moment(self) -> float:
        """Return when `release` has something to do next (loop time)."""
        return min(self.held.values(), default=inf)
