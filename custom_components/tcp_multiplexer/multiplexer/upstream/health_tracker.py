"""How the upstream does, judged by the traffic itself.

Real exchanges are the best probe. Degraded are at least `BAD` unanswered ones among
the last `WINDOW` (an exception is an answer). Only the positions of the last failures
need to be known for that, so that a good exchange costs one addition.

An outage begins with the first connection that could not be opened, or ended without
a response though it had been asked or had hardly begun. It ends with the first good
response, not with the mere connect: some devices accept and stay silent. Meanwhile
attempts come after a fifth of the time that the device has been away, which is
exponential, within bounds, and spread by a jitter that only shortens.
"""

from collections import deque
import random

WINDOW = 20
BAD = 2
_SHARE = 5
_JITTER = 0.2


class HealthTracker:
    """The upstream's recent past, and when to try it next."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._count = 0
        """Exchanges that ended, as far as they matter to `_failures`."""
        self._failures: deque[int] = deque(maxlen=BAD)
        self.outage_since: float | None = None
        self.next_attempt = 0.0
        """No connection is opened earlier (loop time)."""
        self.reason: str | None = None
        """For people: the last thing that went wrong."""

    @property
    def failed_lately(self) -> bool:
        """One of the last `WINDOW` exchanges got no answer."""
        return bool(self._failures)

    @property
    def degraded(self) -> bool:
        """At least `BAD` of the last `WINDOW` exchanges got no answer."""
        return len(self._failures) == BAD and self._count - self._failures[0] < WINDOW

    def answered(self) -> None:
        """Count an exchange that the device answered; needed if it `failed_lately`."""
        self._count += 1
        if self._failures and self._count - self._failures[-1] >= WINDOW:
            self._failures.clear()

    def failed(self, reason: str) -> None:
        """Count an exchange that the device did not answer."""
        self._count += 1
        self._failures.append(self._count)
        self.reason = reason

    def attempt_failed(
        self, now: float, reason: str, backoff: float, backoff_max: float
    ) -> bool:
        """Count a connection that came to nothing; tell whether that is news."""
        news = self.outage_since is None
        since = now if self.outage_since is None else self.outage_since
        self.outage_since = since
        self.reason = reason
        delay = min(max((now - since) / _SHARE, backoff), backoff_max)
        self.next_attempt = now + delay * (1 - _JITTER * self._rng.random())
        return news

    def recovered(self, now: float) -> float | None:
        """Note a good response; give how long the outage lasted, if there was one."""
        if self.outage_since is None:
            return None
        lasted = now - self.outage_since
        self.outage_since = None
        self.next_attempt = 0.0
        return lasted

    def forget(self) -> None:
        """Begin anew: somebody asked for a fresh connection."""
        self._failures.clear()
        self.next_attempt = 0.0
