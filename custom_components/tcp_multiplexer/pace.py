"""Rate limit: a burst at once, then one every so many seconds.

It bounds what follows from a storm of changes: a client that connects for every
request, a device that flaps, a port scan.
"""


class Pace:
    """Lets a burst through, then one every `interval` seconds.

    The generic cell rate algorithm: its only state is the time up to which the
    allowance is spent. Times are in seconds, of one clock.
    """

    def __init__(self, interval: float, burst: int) -> None:
        self._interval = interval
        self._tolerance = (burst - 1) * interval
        self._spent_until = 0.0

    def due(self, now: float) -> float:
        """Return when the next one may come: `now` or later."""
        return max(now, self._spent_until - self._tolerance)

    def spend(self, now: float) -> None:
        """Count one that comes at `now`."""
        self._spent_until = max(now, self._spent_until) + self._interval
