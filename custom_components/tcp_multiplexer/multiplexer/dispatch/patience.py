"""Patience: a response that is overdue does not keep others waiting.

Where a response names its request, a connection can carry a request beside one that
the device does not answer. So a request holds its connection only for as long as a
response may be expected to take, its patience; then it is overdue, and the next goes
out beside it. Its own response still counts until its deadline.

What that does to the device is learned for each connection. A few reads go first, of
units that are not known to be silent. If one of them is answered, anything may go out
beside what is overdue. If one is lost although its unit answers otherwise, the device
takes one request at a time (some gateways drop what comes while they wait for a silent
unit): nothing goes beside on that connection any more.

A gateway that serves in order holds the line until its own timeout. Then what was sent
beside an overdue request waits for that too, so its time says nothing about its unit
unless something sent later has been answered.
"""

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..protocols.base import Request
    from .breakers import Breakers
    from .exchange import Exchange, Upstream
    from .known_reads import KnownReads
    from .queue import RequestQueue
    from .response_times import ResponseTimes

SHORTEST = 1.03
"""Seconds; a little more than the second for which many gateways wait for a unit."""
_TIMES_SLOWEST = 4
"""A response is overdue after this many times the slowest one."""
_MAX_OVERDUE = 16
"""Overdue requests on one connection that do not count as in flight."""
_MAX_TRIED = 2
"""The same while it is not known whether requests may go beside them."""
_MAX_WITH_UNIT = 2
"""Requests that are with a unit while one of them is overdue."""


class Crowd:
    """The overdue requests of one connection, and those sent beside them."""

    __slots__ = (
        "alone",
        "beside",
        "freed_at",
        "heard",
        "overdue",
        "passed",
        "slowest",
        "suspect",
        "works",
    )

    def __init__(self) -> None:
        self.overdue: dict[Request, Exchange] = {}
        self.beside: dict[Request, bool] = {}
        """Requests in flight that were sent beside overdue ones, and whether any of
        these is of another unit."""
        self.works = False
        """One that was sent beside has been answered."""
        self.alone = False
        """One was lost: nothing may go beside any more."""
        self.suspect: Hashable | None = None
        """The unit whose request was lost, until one sent alone has shown whether it
        is the device that lost it, or the unit that is silent."""
        self.passed = 0.0
        """When the latest request that was answered had been sent (loop time)."""
        self.heard: dict[Hashable, float] = {}
        """When each unit last answered (loop time)."""
        self.freed_at = 0.0
        """When an overdue request last ended (loop time)."""
        self.slowest = 0.0
        """The longest response time of what was sent beside, in seconds."""

    @property
    def resting(self) -> bool:
        """Whether there is nothing to watch."""
        return not (self.overdue or self.beside or self.suspect is not None)


class Patience:
    """Judges which requests in flight are overdue, and what may go beside them."""

    def __init__(
        self,
        queue: RequestQueue,
        times: ResponseTimes,
        breakers: Breakers,
        known: KnownReads,
    ) -> None:
        """Use response times, breakers, and the reads `known` to be answered."""
        self.timeout = 0.0
        """Seconds after which a request times out."""
        self._one_at_a_time = False
        """On the last connection, the device took nothing beside what was overdue."""
        self._crowds: dict[Upstream, Crowd] = {}
        """Of the connections on which something has been overdue."""
        self._queue = queue
        self._times = times
        self._breakers = breakers
        self._known = known

    @property
    def resting(self) -> bool:
        """Whether there is nothing to watch on any connection."""
        return all(crowd.resting for crowd in self._crowds.values())

    @property
    def shortest(self) -> float:
        """The shortest patience, in seconds."""
        return min(SHORTEST, self.timeout / 2)

    def of(self, unit: Hashable) -> float:
        """Return for how long a response of a unit is awaited while others wait, in s.

        It is four times the 95th percentile of what the unit has shown, or the whole
        device if the unit is not known; never more than half the timeout.
        """
        times = self._times
        slowest = times.slowest(unit)
        if not slowest and not self._known.of(unit):
            slowest = times.slowest_of_all()
        return min(max(SHORTEST, _TIMES_SLOWEST * slowest), self.timeout / 2)

    def due(self, upstream: Upstream, exchange: Exchange) -> float:
        """Return when a request in flight is overdue (loop time)."""
        crowd, request = self._crowds.get(upstream), exchange.asked
        patience = self.of(request.unit)
        if crowd is not None and crowd.beside.get(request):
            patience = max(patience, crowd.slowest + self.shortest)
        return exchange.sent + min(patience, self.timeout / 2)

    def next_moment(self, upstream: Upstream) -> float:
        """Return when a request is next overdue, or lost (loop time), or infinity."""
        crowd = self._crowds.get(upstream)
        overdue = () if crowd is None else crowd.overdue
        moments = [
            self.due(upstream, exchange)
            for request, exchange in upstream.in_flight.items()
            if request not in overdue
        ]
        if crowd is not None and not crowd.alone:
            moments += [
                self._lost_at(upstream, crowd, exchange)
                for exchange in crowd.overdue.values()
            ]
        return min(moments, default=inf)

    # ---- what happens on a connection -------------------------------------------

    def look(self, upstream: Upstream, now: float) -> list[Exchange]:
        """Return the requests that have become overdue."""
        crowd = self._crowds.get(upstream)
        overdue = () if crowd is None else crowd.overdue
        late = [
            exchange
            for request, exchange in upstream.in_flight.items()
            if request not in overdue and now >= self.due(upstream, exchange)
        ]
        if late:
            if crowd is None:
                crowd = self._crowds[upstream] = Crowd()
                crowd.alone = self._one_at_a_time
            for exchange in late:
                crowd.overdue[exchange.asked] = exchange
                self._limit(upstream, exchange.asked.unit)
        return late

    def room_beside(self, upstream: Upstream) -> int:
        """Return how many requests may be in flight beyond the usual number."""
        crowd = self._crowds.get(upstream)
        if crowd is None or crowd.alone:
            return 0
        return min(len(crowd.overdue), _MAX_OVERDUE if crowd.works else _MAX_TRIED)

    def may_go(self, upstream: Upstream, exchange: Exchange) -> bool:
        """Return whether a request may go out beside what is overdue, if anything is.

        Until it is known how the device takes that, only a read may, and not one of a
        unit that is silent.
        """
        crowd = self._crowds.get(upstream)
        if crowd is None or not crowd.overdue or crowd.works:
            return True
        request = exchange.asked
        return request.retry_safe and request.unit not in self._breakers.units

    def sent(self, upstream: Upstream, exchange: Exchange) -> None:
        """Note that a request was sent."""
        crowd = self._crowds.get(upstream)
        if crowd is not None and crowd.overdue:
            unit = exchange.asked.unit
            crowd.beside[exchange.asked] = any(
                other.unit != unit for other in crowd.overdue
            )
            self._limit(upstream, unit)

    def answered(self, upstream: Upstream, exchange: Exchange, now: float) -> bool:
        """Note a response; return whether its time says something about its unit."""
        crowd = self._crowds.get(upstream)
        if crowd is None:
            return True
        beside = self._ended(upstream, crowd, exchange, now)
        crowd.passed = max(crowd.passed, exchange.sent)
        crowd.heard[exchange.asked.unit] = now
        if beside is not None:
            crowd.works = True
            crowd.slowest = max(crowd.slowest, now - exchange.sent)
        elif crowd.suspect == exchange.asked.unit:
            crowd.suspect = None  # it answers what is sent alone
        return not beside

    def timed_out(self, upstream: Upstream, exchange: Exchange, now: float) -> bool:
        """Note a timeout; return whether it says something about its unit.

        What was sent beside others does only if the device has gone past it since.
        """
        crowd, unit = self._crowds.get(upstream), exchange.asked.unit
        if crowd is None:
            return True
        beside = self._ended(upstream, crowd, exchange, now)
        if not beside:
            if crowd.suspect == unit:
                crowd.suspect, crowd.alone = None, False  # the unit is silent
            return True
        if self._answers(unit):
            self._suspect(crowd, unit)
            return False
        return crowd.passed > exchange.sent and not crowd.alone

    def heard(self, upstream: Upstream, exchange: Exchange) -> bool:
        """Return whether its unit has answered something since a request was sent."""
        crowd = self._crowds.get(upstream)
        return (
            crowd is not None
            and crowd.heard.get(exchange.asked.unit, 0.0) > exchange.sent
        )

    def ended(self, upstream: Upstream, exchange: Exchange, now: float) -> None:
        """Note that a request has ended otherwise."""
        crowd = self._crowds.get(upstream)
        if crowd is not None:
            self._ended(upstream, crowd, exchange, now)

    def lost(self, upstream: Upstream, now: float) -> Exchange | None:
        """Return a read that the device has lost, to be asked again, or None.

        So it has if it answered something sent later, or if nothing sent earlier is
        left to be answered, and the patience with it is over.
        """
        crowd = self._crowds.get(upstream)
        if crowd is None or crowd.alone:
            return None
        for exchange in crowd.overdue.values():
            if now >= self._lost_at(upstream, crowd, exchange):
                self._suspect(crowd, exchange.asked.unit)
                if upstream.begun(exchange) or not self._may_ask_again(exchange, now):
                    return None
                self._ended(upstream, crowd, exchange, now)
                return exchange
        return None

    def _lost_at(self, upstream: Upstream, crowd: Crowd, exchange: Exchange) -> float:
        """Return when an overdue request is taken for lost (loop time), or infinity."""
        request, begun = exchange.asked, exchange.sent
        if not crowd.beside.get(request) or not self._answers(request.unit):
            return inf
        if crowd.passed <= begun:
            if next(iter(upstream.in_flight)) is not request:
                return inf
            begun = max(begun, crowd.freed_at)
        return begun + self.of(request.unit)

    def _may_ask_again(self, exchange: Exchange, now: float) -> bool:
        return (
            exchange.asked.retry_safe
            and exchange.sent_once
            and not exchange.requester.gone
            and now + self._times.usual(exchange.asked.unit) < exchange.deadline
        )

    def closed(self, upstream: Upstream) -> None:
        """Note that a connection is gone, and what was in flight on it."""
        crowd = self._crowds.pop(upstream, None)
        if crowd is not None:
            self._one_at_a_time = crowd.alone
            for request in crowd.overdue:
                self._queue.unbar(request.unit)

    # ---- what is kept of it -----------------------------------------------------

    def _answers(self, unit: Hashable) -> bool:
        """Return whether a unit has answered, and not been silent since."""
        return unit not in self._breakers.units and bool(self._known.of(unit))

    def _suspect(self, crowd: Crowd, unit: Hashable) -> None:
        crowd.alone = True
        crowd.suspect = unit

    def _ended(
        self, upstream: Upstream, crowd: Crowd, exchange: Exchange, now: float
    ) -> bool | None:
        """Forget a request; return what `beside` said of it, None if nothing."""
        request = exchange.asked
        if crowd.overdue.pop(request, None) is not None:
            crowd.freed_at = now
            self._limit(upstream, request.unit)
        elif any(other.unit == request.unit for other in crowd.overdue):
            self._limit(upstream, request.unit)
        return crowd.beside.pop(request, None)

    def _limit(self, upstream: Upstream, unit: Hashable) -> None:
        """Let no more requests go to a unit than may, while one of its is overdue."""
        crowd = self._crowds.get(upstream)
        overdue = () if crowd is None else crowd.overdue
        if any(request.unit == unit for request in overdue):
            limit = 1 if unit in self._breakers.units else _MAX_WITH_UNIT
            if sum(request.unit == unit for request in upstream.in_flight) >= limit:
                self._queue.bar(unit)
                return
        self._queue.unbar(unit)
