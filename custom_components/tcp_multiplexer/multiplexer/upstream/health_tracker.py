"""Judges the health of the upstream by the traffic itself.

Real exchanges are the best probe. The upstream is degraded when at least `BAD` of the
last `WINDOW` exchanges were unanswered (an exception is an answer). Only the positions
of the last failures are kept for that, so a good exchange costs one addition.

An outage begins with the first connection that could not be opened, or that ended
without a response although a request had been sent on it, or very soon after opening.
It ends with the first good response, not with the connection: some devices accept
connections and stay silent. The wait before each attempt is a fifth of the time since
the outage began, which makes it exponential; it is bounded, and jitter only shortens
it.
"""

from collections import deque
import random

WINDOW = 20
"""Exchanges by which the upstream is judged."""
BAD = 2
"""Unanswered ones among these that make it degraded."""
_SHARE = 5
"""The wait before an attempt is the time since the outage began, divided by this."""
_JITTER = 0.2
"""The largest share by which jitter shortens a wait."""


class HealthTracker:
    """Tracks recent failures, and when to connect next; moments are loop time."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._count = 0
        """Exchanges that have ended, counted as far as `_failures` needs it."""
        self._failures: deque[int] = deque(maxlen=BAD)
        """The numbers of the last exchanges that failed, by that count."""
        self.outage_since: float | None = None
        """When the outage began, if there is one."""
        self.next_attempt = 0.0
        """No connection is opened earlier."""
        self.reason: str | None = None
        """The last error, for people."""

    @property
    def failed_lately(self) -> bool:
        """Whether one of the last `WINDOW` exchanges got no answer."""
        return bool(self._failures)

    @property
    def degraded(self) -> bool:
        """Whether at least `BAD` of the last `WINDOW` exchanges got no answer."""
        return len(self._failures) == BAD and self._count - self._failures[0] < WINDOW

    def answered(self) -> None:
        """Count an answered exchange; needed only while `failed_lately`."""
        self._count += 1
        if self._failures and self._count - self._failures[-1] >= WINDOW:
            self._failures.clear()

    def failed(self, reason: str) -> None:
        """Count an unanswered exchange."""
        self._count += 1
        self._failures.append(self._count)
        self.reason = reason

    def attempt_failed(
        self, now: float, reason: str, backoff: float, backoff_max: float
    ) -> bool:
        """Count a failed attempt; return whether an outage begins with it.

        The next one waits between `backoff` and `backoff_max` seconds.
        """
        news = self.outage_since is None
        since = now if self.outage_since is None else self.outage_since
        self.outage_since = since
        self.reason = reason
        delay = min(max((now - since) / _SHARE, backoff), backoff_max)
        self.next_attempt = now + delay * (1 - _JITTER * self._rng.random())
        return news

    def recovered(self, now: float) -> float | None:
        """Note a good response; return how long the outage lasted (s), or None."""
        if self.outage_since is None:
            return None
        lasted = now - self.outage_since
        self.outage_since = None
        self.next_attempt = 0.0
        return lasted

    def forget(self) -> None:
        """Forget failures and backoff: a new connection was asked for."""
        self._failures.clear()
        self.next_attempt = 0.0
