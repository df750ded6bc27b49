"""What is overdue on one connection, and what went out beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from ..protocols.base import Request
    from .exchange import Exchange

_MAX_OVERDUE = 16
"""Overdue requests on one connection that do not count as in flight."""
_MAX_TRIED = 2
"""The same while it is not known whether requests may go beside them."""


class Crowd:
    """The requests on one connection that hold it up, and those sent beside them."""

    __slots__ = (
        "alone",
        "beside",
        "first_sent",
        "freed_at",
        "overdue",
        "passed",
        "slowest",
        "suspect",
        "works",
    )

    def __init__(self, *, alone: bool) -> None:
        """Begin with whether the device takes one request at a time."""
        self.overdue: dict[Request, Exchange] = {}
        self.beside: dict[Request, bool] = {}
        """Requests in flight that were sent beside overdue ones, and whether any of
        these is of another unit."""
        self.first_sent: dict[Request, float] = {}
        """When those were sent that have been sent once more since (loop time)."""
        self.works = False
        """One that was sent beside has been answered."""
        self.alone = alone
        """One was lost: the device takes one request at a time."""
        self.suspect: Hashable | None = None
        """The unit whose request was lost, until one sent alone has shown whether it
        is the device that lost it, or the unit that is silent."""
        self.passed = 0.0
        """When the latest request that was answered had been sent (loop time)."""
        self.freed_at = 0.0
        """When an overdue request last ended (loop time)."""
        self.slowest = 0.0
        """The longest response time of what was sent beside, in seconds."""

    @property
    def resting(self) -> bool:
        """Whether there is nothing to watch."""
        return not (self.overdue or self.beside or self.suspect is not None)

    @property
    def open(self) -> bool:
        """Whether anything may go out beside what is overdue."""
        return self.works and not self.alone

    def room(self, overdue: int) -> int:
        """Return how many of so many overdue requests do not count as in flight."""
        return min(overdue, _MAX_OVERDUE if self.open else _MAX_TRIED)

    def sent(self, exchange: Exchange) -> None:
        """Note what is sent beside what is overdue."""
        unit = exchange.asked.unit
        self.beside[exchange.asked] = any(r.unit != unit for r in self.overdue)

    def note_pipelined(self, in_flight: Iterable[Request]) -> None:
        """Note what was sent, in this order, behind what has become overdue since.

        It has been with the device beside that as well, and may be lost just so.
        """
        units: set[Hashable] = set()
        for request in in_flight:
            if units and request not in self.beside:
                self.beside[request] = units != {request.unit}
            if request in self.overdue:
                units.add(request.unit)
