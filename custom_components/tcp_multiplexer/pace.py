"""How often something may happen: a burst at once, then one at a time.

It bounds what follows from a storm of changes outside: clients that connect for every
request, a device that flaps, a scan of the port.
"""


class Pace:
    """Lets a burst through, then one every `interval` seconds.

    The strategy is the generic cell rate algorithm: one number, the moment up to
    which the allowance is spent.
    """

    def __init__(self, interval: float, burst: int) -> None:
        """Start with the whole burst unspent."""
        self._interval = interval
        self._tolerance = (burst - 1) * interval
        self._spent_until = 0.0

    def due(self, now: float) -> float:
        """Give the moment at which the next one may come: `now` or later."""
        return max(now, self._spent_until - self._tolerance)

    def spend(self, now: float) -> None:
        """Count one that comes now."""
        self._spent_until = max(now, self._spent_until) + self._interval
