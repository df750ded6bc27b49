"""How long the units of the device take to respond, as far as they have been slow.

A unit that has been slow is watched: its last response times predict how long the next
response takes. Units that have always been fast cost nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

SLOW: Final = 0.25
"""Seconds; a unit that answers within them is not watched."""
_TIMES_KEPT = 16
"""Response times kept of a watched unit; the slowest of them is their 95th percentile.
"""
_MAX_WATCHED = 256


class ResponseTimes:
    """The last response times, in seconds, of units that have been slow."""

    def __init__(self) -> None:
        self.watched: dict[Hashable, deque[float]] = {}
        """By unit, the latest last."""

    def add(self, unit: Hashable, took: float) -> None:
        """Note a response that took `took` seconds."""
        times = self.watched.get(unit)
        if times is None:
            if took <= SLOW or len(self.watched) >= _MAX_WATCHED:
                return
            times = self.watched[unit] = deque(maxlen=_TIMES_KEPT)
        times.append(took)
        if max(times) <= SLOW:
            del self.watched[unit]

    def usual(self, unit: Hashable) -> float:
        """Return the median of a unit's times; 0 if it is fast, or unknown."""
        times = self.watched.get(unit)
        if not times:
            return 0.0
        from statistics import median  # noqa: PLC0415 - 4 ms, and few units are slow

        return median(times)

    def slowest(self, unit: Hashable) -> float:
        """Return the 95th percentile of a unit's times; 0 if it is fast, or unknown."""
        return max(self.watched.get(unit, ()), default=0.0)

    def slowest_of_all(self) -> float:
        """Return the same over all units."""
        return max(map(max, self.watched.values()), default=0.0)
