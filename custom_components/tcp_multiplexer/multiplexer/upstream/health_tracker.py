"""Judges the health of the upstream by the traffic itself.

Real exchanges are the best probe. The upstream is degraded when at least `BAD` of the
last `WINDOW` exchanges were unanswered (an exception is an answer). Only the positions
of the last failures are kept for that, so a good exchange costs one addition.

An outage begins with the first connection that could not be opened, or that ended
without a response although a request had been sent on it or waited for it. It ends with
the first good response, not with the connection: some devices accept connections and
stay silent. The wait before each attempt is a fifth of the time since the outage began,
which makes it exponential; it is bounded, and jitter only shortens it.

Devices also close connections that nobody uses. That is no outage, but the wait before
the next connection that nobody asked for grows in the same way.
"""

from __future__ import annotations

from collections import deque
from math import inf
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
        self.probes_failed = 0
        """Probes that got no answer since the last answer to anything."""
        self.outage_since: float | None = None
        """When the outage began, if there is one."""
        self.next_attempt = 0.0
        """No connection is opened earlier."""
        self.reopen_at = 0.0
        """Nor one that no request waits for."""
        self._away_since: float | None = None
        """Since when connections have ended without any response."""
        self.reason: str | None = None
        """The last error, for people."""

    @property
    def failed_lately(self) -> bool:
        """Whether one of the last `WINDOW` exchanges got no answer."""
        return bool(self._failures or self.probes_failed)

    @property
    def degraded(self) -> bool:
        """Whether at least `BAD` of the last `WINDOW` exchanges got no answer."""
        recent = sum(self._count - number < WINDOW for number in self._failures)
        return recent + self.probes_failed >= BAD

    def answered(self) -> None:
        """Count an answered exchange; needed only while `failed_lately`."""
        self._count += 1
        self.probes_failed = 0
        if self._failures and self._count - self._failures[-1] >= WINDOW:
            self._failures.clear()

    def failed(self, reason: str, *, probe: bool = False) -> None:
        """Count an unanswered exchange; a probe only until something is answered."""
        self.reason = reason
        if probe:
            self.probes_failed += 1
            return
        self._count += 1
        self._failures.append(self._count)

    @property
    def ending(self) -> bool:
        """Whether connections have ended without a response since the last one."""
        return self._away_since is not None

    def attempt_failed(
        self,
        now: float,
        reason: str,
        backoff: float,
        backoff_max: float,
        opened: float = inf,
    ) -> bool:
        """Count a failed attempt; return whether an outage begins with it.

        The next one waits between `backoff` and `backoff_max` seconds. Within an
        outage these run from when the connection was `opened` (loop time), if it was.
        """
        news = self.outage_since is None
        if news:
            self.outage_since = now
        self.reason = reason
        wait = self._backoff(now, backoff, backoff_max)
        passed = 0.0 if news else max(now - opened, 0.0)
        self.next_attempt = now + max(wait - passed, min(wait, backoff))
        return news

    def closed_unasked(self, now: float, backoff: float, backoff_max: float) -> None:
        """Note that the device closed a connection on which nothing was asked."""
        self.reopen_at = now + self._backoff(now, backoff, backoff_max)

    def _backoff(self, now: float, least: float, most: float) -> float:
        if self._away_since is None:
            self._away_since = now
        delay = min(max((now - self._away_since) / _SHARE, least), most)
        return delay * (1 - _JITTER * self._rng.random())

    def waited(self, now: float) -> None:
        """Note that time has passed: the wait before an attempt may be over."""
        if now >= self.next_attempt:
            self.next_attempt = 0.0

    def patience(self, now: float, least: float, most: float) -> float:
        """Return how long to wait for a response in an outage (s).

        It grows as the backoff does, so that the end of an outage is noticed within
        such a time, and yet a device is given time to warm up.
        """
        since = now if self._away_since is None else self._away_since
        return min(max((now - since) / _SHARE, least), most)

    def recovered(self, now: float) -> float | None:
        """Note a good response; return how long the outage lasted (s), or None."""
        self._away_since = None
        self.reopen_at = 0.0
        if self.outage_since is None:
            return None
        lasted = now - self.outage_since
        self.outage_since = None
        self._failures.clear()  # they belong to the outage
        self.next_attempt = 0.0
        return lasted

    def forget(self) -> None:
        """Forget failures and backoff: a new connection was asked for."""
        self._failures.clear()
        self.probes_failed = 0
        self.next_attempt = self.reopen_at = 0.0
