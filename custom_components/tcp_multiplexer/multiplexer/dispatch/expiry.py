"""What happens to exchanges that get no response in time.

A deadline ends an exchange. What that says depends on who else answers: a unit may be
silent (`breakers`), or the connection may be dead, half-open since the device lost it.
Two timeouts in a row without a byte in between say that it may be. Then a unit that is
known to answer is asked; if that is silent too, or there is none, the connection is
renewed. One that has not answered at all is given longer each time: a device that takes
its time to wake up must not be made to begin again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol as Interface

from ..protocols.base import Failure
from .exchange import CloseReason

if TYPE_CHECKING:
    from .cache import Cache
    from .connections import Connections
    from .exchange import Exchange, Upstream
    from .misfits import Misfits
    from .queue import RequestQueue
    from .supply import Supply
    from .unanswered import Unanswered
    from .units import Units

_TIMEOUTS_TO_RENEW = 2
"""Timeouts in a row, with no byte in between, after which a connection is renewed."""
_MAX_DOUBLED = 5
"""How often that number is doubled for connections that have never answered."""


class Sender(Interface):
    """What it needs of the dispatcher, which it does not import."""

    supply: Supply
    unanswered: Unanswered
    last_response: float | None

    def taken_off(self, exchange: Exchange) -> None:
        """Note that an exchange is no longer on a connection."""

    def refuse_silent(self, now: float) -> None:
        """Fail soon what waits for a unit that turned out to be silent."""


class Expiry:
    """Gives up exchanges whose time is over, and judges what that says."""

    def __init__(  # noqa: PLR0917 - the parts that it connects
        self,
        dispatcher: Sender,
        queue: RequestQueue,
        connections: Connections,
        units: Units,
        misfits: Misfits,
        cache: Cache,
    ) -> None:
        self._dispatcher = dispatcher
        self._unanswered = dispatcher.unanswered
        self._queue = queue
        self._connections = connections
        self._units = units
        self._misfits = misfits
        self._cache = cache
        self._loop = asyncio.get_running_loop()
        self._silent_connections = 0
        """Connections in a row that were renewed without ever having answered."""

    def next_moment(self) -> float:
        """Return the earliest moment at which there may be something to do (loop time).

        It may be infinity.
        """
        moments = [self._units.next_moment(), self._queue.next_deadline()]
        moments.append(self._cache.sweep_at)
        for upstream in self._connections.open:
            moments += [_due(upstream, e) for e in upstream.in_flight.values()]
            if _is_patient(upstream):
                moments.append(self._units.patience.next_moment(upstream))
        return min(moments)

    def give_up(self, now: float) -> None:
        """Do what is due: fail exchanges, release units and connections."""
        self._units.release(now)
        self._cache.sweep(now)
        never_sent = self._connections.never_sent
        # first of all: none of these may succeed what it has joined
        self._unanswered.fail_followers(now, never_sent)
        self._fail_hopeless(now, never_sent)
        for upstream in self._connections:
            for exchange in tuple(upstream.in_flight.values()):
                overdue = now >= _due(upstream, exchange)
                if overdue and exchange.asked in upstream.in_flight:
                    self._timed_out(upstream, exchange, now)
            if _is_patient(upstream) and upstream.in_flight:
                self._lose_patience(upstream, now)

    def _fail_hopeless(self, now: float, never_sent: Failure) -> None:
        """Fail the pending requests that nothing can be done for any more."""
        blocked = self._units.breakers.any_open
        for requester in self._queue.requesters():
            while requester.pending:
                exchange = requester.pending[0]
                if exchange.deadline < now + 1e-9:
                    # what has been sent was lost, and would have been sent again
                    failure = Failure.NO_RESPONSE if exchange.attempts else never_sent
                elif blocked and self._units.breakers.blocks(exchange, now):
                    failure = Failure.SILENT
                else:
                    break
                self._unanswered.drop(exchange, failure, now)
        self._queue.admit()

    def _lose_patience(self, upstream: Upstream, now: float) -> None:
        """Let others go out beside what is overdue on a connection."""
        units = self._units
        overdue = units.look(upstream, now)
        for exchange in overdue:
            self._unanswered.leads_no_more(exchange, now)
        self._connections.limit(upstream, now, paused=bool(overdue))
        lost = units.patience.lost(upstream, now)
        if lost is not None:
            keep = upstream.expire(lost)
            self._dispatcher.taken_off(lost)
            self._unanswered.put_back(lost, now)
            if keep:
                self._connections.limit(upstream, now, paused=True)
            else:
                upstream.close(CloseReason.NO_RESPONSE)

    def _timed_out(self, upstream: Upstream, exchange: Exchange, now: float) -> None:
        dispatcher = self._dispatcher
        keep = upstream.expire(exchange)
        dispatcher.taken_off(exchange)
        self._connections.timed_out(upstream, exchange)
        if upstream.discarded_for is exchange:
            self._misfits.timed_out(
                exchange, dispatcher.last_response, upstream.mismatch
            )
        tells = exchange.requester.tells
        trial_lost = upstream.on_trial and tells
        dead = False
        if trial_lost or not tells:  # the former is the connection's fault
            self._units.ended(upstream, exchange, now)
        else:
            fair = self._units.fair(upstream, exchange, now)
            if self._units.timed_out(upstream, exchange, now, fair=fair):
                self._judge_unit(upstream, exchange, now)
            dead = fair and self._is_dead(upstream, exchange, now)
        self._connections.limit(upstream, now, paused=True)
        again = trial_lost and now < exchange.deadline
        if again:  # before what its requester has asked since goes elsewhere
            self._unanswered.put_back(exchange, now)
        if not keep or trial_lost or dead:
            # before anything is sent: a late response must reach no requester
            upstream.close(CloseReason.NO_RESPONSE)
        if not again:
            self._queue.ended(exchange)
            blame = not self._only_unit(exchange)
            self._unanswered.fail(
                exchange, Failure.NO_RESPONSE, now, blame_device=blame
            )
        if upstream in self._connections.open:
            self._connections.freed(upstream, now)
            self._connections.limit(upstream, now)

    def _is_dead(self, upstream: Upstream, exchange: Exchange, now: float) -> bool:
        """Count a timeout that was fair; return whether to renew the connection."""
        if upstream.last_received > exchange.sent:
            return False  # it has said something meanwhile
        upstream.timeouts_in_a_row += 1
        limit = _TIMEOUTS_TO_RENEW
        if not upstream.responses:
            limit <<= min(self._silent_connections, _MAX_DOUBLED)
        if upstream.timeouts_in_a_row < limit:
            return False
        if exchange.requester.counted:  # else it was asked to decide this
            witness = self._units.breakers.witness()
            if witness and self._dispatcher.supply.question(upstream, witness, now):
                return False
        self._silent_connections += 1
        if upstream.responses:
            self._silent_connections = 0
        self._units.breakers.renewed()
        return True

    def _judge_unit(self, upstream: Upstream, exchange: Exchange, now: float) -> None:
        """Count a timeout that was fair against its unit, or against that read."""
        if exchange.request.unit is None:
            return
        units, dispatcher = self._units, self._dispatcher
        proof = dispatcher.last_response or 0.0
        if units.silent(exchange, now, proof):
            dispatcher.refuse_silent(now)
        elif (question := units.breakers.question(proof)) and not (
            dispatcher.supply.question(upstream, question, now)
        ):
            units.breakers.units[question.unit].asked[question.subject] = None

    def _only_unit(self, exchange: Exchange) -> bool:
        """Return whether a timeout is known, or may turn out, to be its unit's alone.

        So it is if something has answered meanwhile, or may do when it is asked next.
        """
        unit = exchange.request.unit
        if unit is None:
            return False
        last_response = self._dispatcher.last_response
        return (
            last_response is not None and last_response > exchange.sent
        ) or self._units.breakers.witness(other_than=unit) is not None


def _is_patient(upstream: Upstream) -> bool:
    """Return whether others may go out beside what is overdue on a connection."""
    return upstream.identifies and not upstream.on_trial and upstream.draining is None


def _due(upstream: Upstream, exchange: Exchange) -> float:
    """Return the moment until which a response is awaited (loop time)."""
    tried = upstream.on_trial and exchange.requester.tells
    if tried and not upstream.begun(exchange):
        return upstream.trial_until
    return exchange.deadline
