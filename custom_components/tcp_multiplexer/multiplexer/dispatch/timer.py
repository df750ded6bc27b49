"""One timer, set to the earliest moment that matters.

A timer per request would cost more than the request (two heap operations and an
object), and almost none would ever expire. So there is one for all of them. When it
expires, its callback looks for everything that is due, and sets it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf


class Timer:
    """Calls `callback(now)` at the earliest of the moments it was set to."""

    def __init__(self, callback: Callable[[float], None] | None = None) -> None:
        self.callback = callback
        """Must be assigned before the timer is set."""
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self.at = inf
        """When it expires (loop time); infinity while it is not set."""
        self.early = 0.0
        """Seconds before a deadline at which there is something to do already."""
        self.covers = inf
        """The latest deadline for which it need not be set again (loop time)."""

    def cover(self, deadline: float) -> None:
        """Expire `early` enough before a deadline (loop time)."""
        self.set(deadline - self.early)

    def set(self, at: float) -> None:
        """Expire at `at` (loop time), unless it is already set to an earlier moment."""
        if at < self.at:
            if self._handle is not None:
                self._handle.cancel()
            self.at = at
            self.covers = at + self.early
            self._handle = self._loop.call_at(at, self._expire)

    def cancel(self) -> None:
        """Do not expire until it is set again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.at = self.covers = inf

    def _expire(self) -> None:
        # The loop may call this early, by up to its clock's resolution. Reading the
        # clock alone could thus find nothing due, and set the same moment again.
        now = max(self.at, self._loop.time())
        self._handle = None
        self.at = self.covers = inf
        if self.callback is not None:
            self.callback(now)
