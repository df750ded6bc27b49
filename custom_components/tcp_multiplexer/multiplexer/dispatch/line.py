"""What a device may still be busy with, as far as can be told.

A device may have forgotten a request that was given up, or still wait for the unit, and
make everything behind it wait too. Nothing tells which, until something sent later is
answered: a device that serves in order has gone past it then. That answer may come too
late for its client, and still tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container, Hashable, Iterable

    from ..protocols.base import Request
    from .exchange import Exchange, Upstream

_MAX_KEPT = 64
"""Requests that are remembered."""
_LONGEST_BUSY = 30.0
"""Seconds after which a device is not busy any more with what it was asked."""


class GivenUp(NamedTuple):
    """A request whose deadline has passed without a response."""

    exchange: Exchange
    upstream: Upstream
    """The connection on which it was sent."""
    first_sent: float
    """When it was sent, or the first time of two (loop time)."""
    beside: bool
    """Whether it was sent beside an overdue one of another unit."""
    judged: bool
    """Whether it is known already what that says about its unit."""


class Line:
    """The requests that were given up since something sent later was answered."""

    def __init__(self) -> None:
        self._given_up: dict[Request, GivenUp] = {}
        """The oldest first."""

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._given_up)

    def leave(self, request: Request) -> GivenUp | None:
        """Remove a request; return what is known of it, if it is one of them."""
        return self._given_up.pop(request, None)

    def join(self, given_up: GivenUp) -> None:
        """Add a request."""
        if len(self._given_up) >= _MAX_KEPT:
            del self._given_up[next(iter(self._given_up))]
        self._given_up[given_up.exchange.asked] = given_up

    def answered(self, sent: float) -> list[GivenUp]:
        """Note that something sent then was answered; return what was sent before."""
        gone = [g for g in self._given_up.values() if g.exchange.sent < sent]
        for given_up in gone:
            del self._given_up[given_up.exchange.asked]
        return gone

    def is_behind(self, exchange: Exchange, in_flight: Iterable[Exchange]) -> bool:
        """Return whether another unit's request may be in the way of this one."""
        unit, sent = exchange.asked.unit, exchange.sent
        before = [entry.exchange for entry in self._given_up.values()]
        before = [other for other in before if other.sent <= sent]
        before += [other for other in in_flight if other.sent < sent]
        return any(other.asked.unit != unit for other in before)

    def is_held_up_by(
        self, unit: Hashable, silent: Container[Hashable], now: float
    ) -> bool:
        """Return whether a unit keeps others waiting that are not `silent`, it seems.

        It was asked, and so were they, and none of them has been answered since.
        """
        units = {
            request.unit
            for request, entry in self._given_up.items()
            if now < entry.exchange.sent + _LONGEST_BUSY
        }
        return unit in units and any(other not in silent for other in units)
