"""A clock that stands still until a test moves it, for what only needs timers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Timer:
    """What a loop gives for a callback to come."""

    def __init__(self, when: float, callback: Callable[..., None], args: Any) -> None:
        """Ring at `when`."""
        self._when = when
        self._callback = callback
        self._args = args
        self.cancelled = False

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self.cancelled = True

    def ring(self) -> None:
        """Call back."""
        self.cancelled = True
        self._callback(*self._args)


class Clock:
    """The part of an event loop that knows the time."""

    def __init__(self) -> None:
        """Begin at some time that is not 0."""
        self._now = 1000.0
        self._timers: list[Timer] = []

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[..., None], *args: Any) -> Timer:
        timer = Timer(when, callback, args)
        self._timers.append(timer)
        return timer

    @property
    def waiting(self) -> list[float]:
        """In how many seconds something is to ring."""
        return sorted(
            timer.when() - self._now for timer in self._timers if not timer.cancelled
        )

    def advance(self, seconds: float) -> None:
        """Let time pass, and ring what is due at its own moment."""
        until = self._now + seconds
        while self.waiting and self._now + self.waiting[0] <= until:
            timer = min(
                (timer for timer in self._timers if not timer.cancelled),
                key=Timer.when,
            )
            # A loop may ring early, by as much as its clock can tell apart.
            self._now = max(self._now, timer.when() - 1e-9)
            timer.ring()
        self._now = until
