"""One timer for whatever comes next.

A timer per request costs more than the request (two heap operations and an object);
almost none would ever ring. So there is one, set to the earliest moment that anybody
cares for. When it rings, everybody looks at the clock, and it is set anew.
"""

import asyncio
from collections.abc import Callable
from math import inf


class Alarm:
    """Calls `ring` at the earliest of the moments it was set to."""

    def __init__(self, ring: Callable[[float], None]) -> None:
        """Ring by calling `ring(now)`; set nothing yet."""
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self.at = inf
        """When it will ring; loop time."""

    def set(self, at: float) -> None:
        """Ring at `at`, or earlier if it was set so."""
        if at < self.at:
            if self._handle is not None:
                self._handle.cancel()
            self.at = at
            self._handle = self._loop.call_at(at, self._fire)

    def cancel(self) -> None:
        """Ring no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.at = inf

    def _fire(self) -> None:
        # The loop rings up to its clock's resolution early; asking its clock again
        # could thus find nothing due and set the same moment over and over.
        now = max(self.at, self._loop.time())
        self._handle = None
        self.at = inf
        self._ring(now)
