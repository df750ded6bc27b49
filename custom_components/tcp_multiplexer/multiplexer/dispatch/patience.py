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

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from .crowd import Crowd
from .line import GivenUp, Line

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
_LONGEST = 11.0
"""Seconds; a little more than the longest for which gateways wait."""
_TIMES_SLOWEST = 4
"""A response is overdue after this many times the slowest one."""
_MAX_WITH_UNIT = 2
"""Requests that are with a unit while one of them is overdue."""


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
        self._line = Line()
        """What the device may still be busy with, whatever connection it came by."""
        self._heard: dict[Hashable, float] = {}
        """When units last answered while something was watched (loop time)."""
        self._queue = queue
        self._times = times
        self._breakers = breakers
        self._known = known

    @property
    def resting(self) -> bool:
        """Whether there is nothing to watch on any connection."""
        return not self._line and all(c.resting for c in self._crowds.values())

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

    @property
    def _reserve(self) -> float:
        """What is left of a timeout for asking once more, in seconds."""
        return min(SHORTEST, self.timeout / 4)

    def due(self, upstream: Upstream, exchange: Exchange) -> float:
        """Return when a request in flight is overdue (loop time)."""
        crowd, request = self._crowds.get(upstream), exchange.asked
        if crowd is not None and crowd.alone:
            return exchange.sent + min(self.timeout - self._reserve, _LONGEST)
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
        if crowd is not None:
            moments += [
                self._again_at(upstream, crowd, upstream.in_flight[request])
                for request, others in crowd.beside.items()
                if others
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
            crowd = self._crowd(upstream)
            for exchange in late:
                crowd.overdue[exchange.asked] = exchange
                self._limit(upstream, exchange.asked.unit)
            if len(upstream.in_flight) > 1:
                crowd.note_pipelined(upstream.in_flight)
        return late

    def _crowd(self, upstream: Upstream) -> Crowd:
        crowd = self._crowds.get(upstream)
        if crowd is None:
            crowd = self._crowds[upstream] = Crowd(alone=self._one_at_a_time)
        return crowd

    def room_beside(self, upstream: Upstream) -> int:
        """Return how many requests may be in flight beyond the usual number."""
        crowd = self._crowds.get(upstream)
        if crowd is None:
            return 0
        return crowd.room(len(crowd.overdue))

    def may_go(self, upstream: Upstream, exchange: Exchange, now: float) -> bool:
        """Return whether a request may go out now.

        Beside what is overdue, unless it is known that the device takes that, only a
        read may, and not one of a unit that is silent. A silent unit for which the
        device seems to keep others waiting is not asked at all.
        """
        crowd, request = self._crowds.get(upstream), exchange.asked
        silent = request.unit in self._breakers.units
        if (
            silent
            and exchange.requester.counted  # a probe is to find out
            and self._line.is_held_up_by(request.unit, self._breakers.units, now)
        ):
            return False
        if crowd is None or not crowd.overdue or crowd.open:
            return True
        return request.retry_safe and not silent

    def sent(self, upstream: Upstream, exchange: Exchange) -> None:
        """Note that a request was sent."""
        crowd = self._crowds.get(upstream)
        if crowd is not None and crowd.overdue:
            crowd.sent(exchange)
            self._limit(upstream, exchange.asked.unit)

    def answered(
        self, upstream: Upstream, exchange: Exchange, now: float
    ) -> tuple[bool, list[Exchange]]:
        """Note a response.

        Returns whether its time says something about its unit, and the timeouts that
        do by now: the device has gone past them.
        """
        crowd, request = self._crowds.get(upstream), exchange.asked
        beside = None
        if crowd is not None:
            beside = self._ended(upstream, crowd, exchange, now)
            if crowd.first_sent.pop(request, None) is not None:
                crowd.alone = True  # only the second sending was answered
            if beside is not None:
                crowd.works = True
                crowd.slowest = max(crowd.slowest, now - exchange.sent)
            elif crowd.suspect == request.unit:
                crowd.suspect = None  # it answers what is sent alone
        tells = not (beside or self._line.is_behind(exchange, ()))
        return tells, self._gone_past(upstream, request.unit, exchange.sent, now)

    def answered_late(
        self, upstream: Upstream, request: Request, now: float
    ) -> list[Exchange]:
        """Note a response that came too late; return the timeouts as `answered`.

        If it was sent beside others, the device does take that.
        """
        crowd, given_up = self._crowds.get(upstream), self._line.leave(request)
        if given_up is not None:
            sent, beside = given_up.first_sent, given_up.beside
        elif crowd is not None and request in crowd.first_sent:
            sent, beside = crowd.first_sent.pop(request), True
        else:
            return []
        if crowd is not None and beside:
            crowd.works, crowd.alone, crowd.suspect = True, False, None
        return self._gone_past(upstream, request.unit, sent, now)

    def timed_out(
        self, upstream: Upstream, exchange: Exchange, now: float, *, fair: bool
    ) -> bool:
        """Note a timeout; return whether it says something about its unit by now.

        If it was not `fair`, or the device may have been busy with what it was asked
        before, it does only once the device has gone past it.
        """
        if not upstream.identifies:
            return fair
        crowd, request = self._crowd(upstream), exchange.asked
        first_sent = crowd.first_sent.pop(request, exchange.sent)
        beside = bool(self._ended(upstream, crowd, exchange, now))
        passed = crowd.passed > exchange.sent
        says = fair
        if beside or self._line.is_behind(exchange, upstream.in_flight.values()):
            says = passed and self._is_silent(crowd, exchange) and fair
        elif fair and crowd.suspect == request.unit:
            crowd.suspect, crowd.alone = None, False  # it is the unit that is silent
        if not passed:
            self._line.join(GivenUp(exchange, upstream, first_sent, beside, says))
        return says

    def _gone_past(
        self, upstream: Upstream, unit: Hashable, sent: float, now: float
    ) -> list[Exchange]:
        """Note that a unit answered what was sent then; return what that judges."""
        crowd = self._crowds.get(upstream)
        if crowd is None:
            if not (self._line or upstream.in_flight):
                return []
            crowd = self._crowd(upstream)
        self._heard[unit] = now
        crowd.passed = max(crowd.passed, sent)
        return [
            entry.exchange
            for entry in self._line.answered(sent)
            if not entry.judged
            and self._is_silent(
                crowd if entry.upstream is upstream else None, entry.exchange
            )
        ]

    def _is_silent(self, crowd: Crowd | None, exchange: Exchange) -> bool:
        """Return whether it is the unit that has not answered, not the device."""
        unit = exchange.asked.unit
        if self._answers(unit):
            if crowd is not None:
                self._suspect(crowd, unit)
            return False
        return crowd is None or not crowd.alone

    def first_sent(self, upstream: Upstream, exchange: Exchange) -> float:
        """Return when a request in flight was sent first (loop time)."""
        crowd = self._crowds.get(upstream)
        first_sent = {} if crowd is None else crowd.first_sent
        return first_sent.get(exchange.asked, exchange.sent)

    def heard(self, exchange: Exchange) -> bool:
        """Return whether its unit has answered something since a request was sent."""
        return self._heard.get(exchange.asked.unit, 0.0) > exchange.sent

    def ended(self, upstream: Upstream, exchange: Exchange, now: float) -> None:
        """Note that a request has ended otherwise."""
        crowd = self._crowds.get(upstream)
        if crowd is not None:
            crowd.first_sent.pop(exchange.asked, None)
            self._ended(upstream, crowd, exchange, now)

    def lost(self, upstream: Upstream, now: float) -> Exchange | None:
        """Return a read that was sent beside and is to be asked again now, or None."""
        crowd = self._crowds.get(upstream)
        if crowd is None:
            return None
        for request, others in crowd.beside.items():
            exchange = upstream.in_flight[request]
            if others and now >= self._again_at(upstream, crowd, exchange):
                crowd.beside[request] = False
                if now >= self._lost_at(upstream, crowd, exchange):
                    self._suspect(crowd, request.unit)
                if not upstream.begun(exchange) and self._may_ask_again(exchange, now):
                    self._ended(upstream, crowd, exchange, now)
                    crowd.first_sent[request] = exchange.sent
                    return exchange
        return None

    def _again_at(self, upstream: Upstream, crowd: Crowd, exchange: Exchange) -> float:
        """Return when a request sent beside is asked again (loop time), or infinity.

        That is when it is lost, or at the last moment at which that may help.
        """
        request = exchange.asked
        if not (self._answers(request.unit) and _has_room(upstream, crowd, request)):
            return inf
        sent, deadline = exchange.sent, exchange.deadline
        latest = max(deadline - self._reserve, sent + self.shortest)
        lost_at = self._lost_at(upstream, crowd, exchange)
        return min(lost_at, latest, sent + _LONGEST)

    def _lost_at(self, upstream: Upstream, crowd: Crowd, exchange: Exchange) -> float:
        """Return when a request is taken for lost (loop time), or infinity.

        So it is a patience after it was sent if something sent later was answered, or
        after nothing sent earlier is left.
        """
        begun = exchange.sent
        if crowd.passed <= begun:
            if self._line or next(iter(upstream.in_flight)) is not exchange.asked:
                return inf
            begun = max(begun, crowd.freed_at)
        return begun + self.of(exchange.asked.unit)

    def _may_ask_again(self, exchange: Exchange, now: float) -> bool:
        return (
            exchange.asked.retry_safe
            and exchange.sent_once
            and exchange.requester.counted  # a probe is about this very connection
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


def _has_room(upstream: Upstream, crowd: Crowd, without: Request) -> bool:
    """Return whether another request may go out if one is taken off a connection."""
    overdue = len(crowd.overdue)
    usual = upstream.capacity - crowd.room(overdue)
    room = usual + crowd.room(overdue - (without in crowd.overdue))
    return len(upstream.in_flight) <= room
