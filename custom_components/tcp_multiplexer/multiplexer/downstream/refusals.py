"""Refusals that a client provokes again at once reach it a little later.

A client that repeats what was just refused, as fast as it can, would keep the event
loop busy with nothing. From the second such refusal on it is told after
`REFUSAL_DELAY`, and no other client waits for that.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ..limits import REFUSAL_DELAY

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..dispatch.exchange import Exchange
    from ..protocols.base import Failure

type Refused = tuple[Exchange, Failure]


class Refusals:
    """The refusals of one client that are to reach it later."""

    __slots__ = ("_delayed", "_last", "_loop", "_served", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._last = -inf
        """When a refusal last reached the client; loop time."""
        self._served = 0
        """Responses that it had got by then."""
        self._delayed: list[Refused] = []
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._delayed)

    def __contains__(self, exchange: Exchange) -> bool:
        return any(refused is exchange for refused, _ in self._delayed)

    def repeats(self, exchange: Exchange, now: float, served: int) -> bool:
        """Return whether a request was refused at once, right after such a refusal.

        `served` is how many responses the client has got: one in between is no
        repetition.
        """
        if now - exchange.arrived >= REFUSAL_DELAY:
            return False
        if now + REFUSAL_DELAY > exchange.deadline:
            return False  # its time is over before
        if self._delayed:
            return True
        again = self._served == served and (
            0 < exchange.arrived - self._last < REFUSAL_DELAY
        )
        self._last = now
        self._served = served
        return again

    def delay(
        self,
        exchange: Exchange,
        failure: Failure,
        refuse: Callable[[list[Refused]], None],
    ) -> None:
        """Have `refuse` called with this later; one timer serves all that wait."""
        if not self._delayed:
            self._timer = self._loop.call_later(REFUSAL_DELAY, self._due, refuse)
        self._delayed.append((exchange, failure))

    def _due(self, refuse: Callable[[list[Refused]], None]) -> None:
        delayed, self._delayed = self._delayed, []
        self._last = self._loop.time()
        refuse(delayed)

    def cancel(self) -> None:
        """Refuse nothing more: the client is gone."""
        self._delayed = []
        if self._timer is not None:
            self._timer.cancel()
