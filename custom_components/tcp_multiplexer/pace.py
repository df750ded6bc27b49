"""How often what changes is shown: rate limits, and what damps a flapping value.

They bound what follows from a storm of changes: a client that connects for every
request, a device that flaps, a port scan. All times are seconds of one clock.
"""

from math import inf
from typing import Final

_RESOLUTION: Final = 0.001
"""A timer may ring so much too early."""


class Pace:
    """Lets a burst through, then one every `interval` seconds.

    The generic cell rate algorithm: its only state is the time up to which the
    allowance is spent.
    """

    def __init__(self, interval: float, burst: int) -> None:
        self._interval = interval
        self._tolerance = (burst - 1) * interval
        self._spent_until = 0.0

    def due(self, now: float, more: int = 0) -> float:
        """Return when the next one may come: `now` or later.

        With `more`, as if the burst was so much larger.
        """
        return max(now, self._spent_until - self._tolerance - more * self._interval)

    def spend(self, now: float) -> None:
        """Count one that comes at `now`."""
        self._spent_until = max(now, self._spent_until) + self._interval

    def idle(self, now: float) -> bool:
        """Return whether nothing of the allowance is spent."""
        return self._spent_until <= now


class Damper:
    """Shows bad news at once, and good news once it has lasted.

    How long it must last depends on how often it did not: at first not at all, then
    longer and longer. So what flaps is shown at its worst until it is calm for about
    twice as long as it used to be (the idea of route flap damping, RFC 2439).
    """

    WAITS: Final = (0.0, 0.0, 60.0, 240.0, 900.0)
    """How long good news must last, by how often it did not."""
    CALM_SECONDS: Final = 900.0
    """Good news that lasts so long settles what was before."""

    def __init__(self) -> None:
        self.shown: int | None = None
        """The rank that is shown: the higher, the worse. None: none yet."""
        self._relapses = 0
        self._better_since: float | None = None
        """Since when it is better than what is shown."""
        self._better_shown = -inf
        """When something better was shown last."""

    def due(self, rank: int | None, now: float) -> float:
        """Return when what has this rank may be shown, if it lasts: `now` or later.

        If that is `now`, it counts as shown. A rank of None, as what the owner did, is
        shown at once, and begins anew.
        """
        if rank is None or self.shown is None:
            self.shown, self._better_since, self._relapses = rank, None, 0
            return now
        if rank >= self.shown:
            self._better_since = None
            if rank > self.shown:
                self.shown = rank
                calm = now - self._better_shown >= self.CALM_SECONDS
                self._relapses = 0 if calm else self._relapses + 1
            return now
        if self._better_since is None:
            self._better_since = now
        wait = self.WAITS[min(self._relapses, len(self.WAITS) - 1)]
        due = self._better_since + wait
        if due > now + _RESOLUTION:
            return due
        self.shown, self._better_since, self._better_shown = rank, None, now
        return now


class Sparing:
    """Shows a number at once if it moves much, and else now and then."""

    LITTLE_SECONDS: Final = 300.0
    """How often it is shown while it moves little."""
    BURST: Final = 3
    """How often in a row it may move much."""
    STEP: Final = 10
    """It moves little as long as it changes by less than this, ..."""

    def __init__(self) -> None:
        self._shown_at = -inf
        self._pace = Pace(self.LITTLE_SECONDS, self.BURST)

    def may_show(self, shown: object, value: object, now: float) -> bool:
        """Return whether `value` may replace what is shown; then it counts as shown."""
        if now - self._shown_at < self.LITTLE_SECONDS and not (
            self._moves_much(shown, value) and self._pace.due(now) <= now
        ):
            return False
        self.count(now)
        return True

    def count(self, now: float) -> None:
        """Count that it is shown, whatever it is."""
        self._shown_at = now
        self._pace.spend(now)

    def _moves_much(self, shown: object, value: object) -> bool:
        """Return whether it at least doubles or halves, or comes or goes."""
        if not (isinstance(shown, int | float) and isinstance(value, int | float)):
            return (shown is None) is not (value is None)
        return abs(value - shown) >= max(self.STEP, min(abs(shown), abs(value)))
