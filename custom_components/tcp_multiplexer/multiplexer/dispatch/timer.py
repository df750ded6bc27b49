"""One timer for whatever comes next.

A timer per request costs more than the request (two heap operations and an object);
almost none would ever expire. So there is one, set to the earliest moment that matters
to anything. When it expires, everything looks at the clock, and it is set anew.
"""

import asyncio
from collections.abc import Callable
from math import inf


class Timer:
    """Calls `callback(now)` at the earliest of the moments it was set to."""

    def __init__(self, callback: Callable[[float], None] | None = None) -> None:
        self.callback = callback
        """Must be there before the timer is set."""
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self.at = inf
        """When it expires; loop time."""

    def set(self, at: float) -> None:
        """Expire at `at`, or earlier if it was set so."""
        if at < self.at:
            if self._handle is not None:
                self._handle.cancel()
            self.at = at
            self._handle = self._loop.call_at(at, self._expire)

    def cancel(self) -> None:
        """Do not expire any more, until it is set again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.at = inf

    def _expire(self) -> None:
        # The loop calls up to its clock's resolution early; asking its clock again
        # could thus find nothing due and set the same moment over and over.
        now = max(self.at, self._loop.time())
        self._handle = None
        self.at = inf
        if self.callback is not None:
            self.callback(now)
