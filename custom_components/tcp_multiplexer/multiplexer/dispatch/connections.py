"""The connections that are open, and which of them may carry a request now.

A connection is `ready` while the next request may go out on it. It is not ready while
it carries `max_in_flight` requests, during the pause between requests, the wait after
connecting or the silence after a timeout, during a trial (see `dispatcher`), and while
it is draining, which means that it is closed as soon as nothing is in flight on it.

`send` and `freed` run for every request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..protocols.base import Failure
from .closing_habit import SECONDS, ClosingHabit
from .exchange import CloseReason
from .first_read import FirstRead
from .response_times import SLOW

if TYPE_CHECKING:
    from ..protocols.base import Request
    from ..settings import Settings
    from .exchange import Exchange, Upstream
    from .queue import RequestQueue
    from .timer import Timer
    from .units import Units


class Connections:
    """The open connections to one device."""

    probe: Callable[[], Request | None]
    """Gives something harmless to ask; must be assigned before the first connection."""

    def __init__(
        self, settings: Settings, queue: RequestQueue, timer: Timer, units: Units
    ) -> None:
        self.open: list[Upstream] = []
        self.only: Upstream | None = None
        """The one that is open, if there is no other."""
        self.quiet_until = 0.0
        """When the first request may go out on a new connection (loop time): the line
        may still carry the response to a request that timed out."""
        self._one_at_a_time = False
        """Whether the device takes no more, whatever the settings are."""
        self._habit = ClosingHabit()
        self._queue = queue
        self._timer = timer
        self._units = units
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Apply changed settings."""
        self._request_delay = settings.request_delay
        self._discards_first = settings.discard_first_read
        # nothing goes between the parts of a read
        self._allowed_in_flight = 1 if settings.splits_reads else settings.max_in_flight
        self._update()

    def _update(self) -> None:
        self._rests = bool(self._request_delay or self._habit.known)
        # a pause between requests implies one at a time
        alone = self._rests or self._one_at_a_time
        self._max_in_flight = 1 if alone else self._allowed_in_flight
        for upstream in self.open:
            self._measure(upstream)

    def __iter__(self) -> Iterator[Upstream]:
        """Iterate over a copy: connections may open and close meanwhile."""
        return iter(tuple(self.open))

    @property
    def never_sent(self) -> Failure:
        """Why a request fails whose deadline comes before it could be sent."""
        return Failure.BUSY if self.open else Failure.NO_CONNECTION

    def best(self) -> Upstream | None:
        """Return the ready connection with the fewest requests; those on trial last."""
        best = None
        for upstream in self.open:
            if upstream.ready and (
                best is None
                or best.on_trial > upstream.on_trial
                or len(best.in_flight) > len(upstream.in_flight)
            ):
                best = upstream
        return best

    def has_room(self, upstream: Upstream) -> bool:
        """Return whether a connection may carry another request."""
        limit = 1 if upstream.on_trial or upstream.alone else upstream.capacity
        return upstream.reusable and len(upstream.in_flight) < limit

    def is_late(self, upstream: Upstream, exchange: Exchange, now: float) -> bool:
        """Return whether too little time is left to send a request.

        So it is where a timeout silences others, unless the unit is surely fast enough:
        one that is not watched takes up to `SLOW`.
        """
        left = exchange.deadline - now
        return left < min(SLOW, self._units.timeout / 2) and upstream.quiet > 0

    def limit(self, upstream: Upstream, now: float, *, paused: bool = False) -> None:
        """Limit a connection anew: overdue requests do not count as in flight.

        With `paused`, the pause between requests begins now: one of them has ended, or
        is no longer waited for.
        """
        self._measure(upstream)
        if paused and self._request_delay:
            upstream.not_before = max(upstream.not_before, now + self._request_delay)
            self._timer.set(upstream.not_before)
        if not self.has_room(upstream) or now < upstream.not_before:
            upstream.ready = False

    def _measure(self, upstream: Upstream) -> None:
        beside = self._units.patience.room_beside(upstream)
        upstream.capacity = self._max_in_flight + beside

    def add(self, upstream: Upstream, connect_delay: float) -> None:
        """Add a connection that has just been opened; `dispatch` must follow.

        Its first request waits for `connect_delay` seconds.
        """
        upstream.on_trial = bool(self.open)
        upstream.capacity = self._max_in_flight
        self.open.append(upstream)
        self._count()
        not_before = max(upstream.opened_at + connect_delay, self.quiet_until)
        upstream.not_before = not_before
        if not_before > upstream.opened_at:
            self._timer.set(not_before)
        else:
            self._make_ready(upstream, upstream.opened_at)

    def remove(self, upstream: Upstream) -> None:
        """Remove a connection that is gone."""
        self.open.remove(upstream)
        self._count()

    def _count(self) -> None:
        self.only = self.open[0] if len(self.open) == 1 else None

    def send(self, upstream: Upstream, exchange: Exchange, now: float) -> None:
        """Send a request on a ready connection."""
        requester = exchange.requester
        requester.in_flight += 1
        requester.upstream = upstream
        exchange.sent = now
        exchange.attempts += 1
        upstream.send(exchange)
        if upstream.on_trial:
            upstream.trial_until = now + (exchange.deadline - now) / 2
            self._timer.set(upstream.trial_until)
            upstream.ready = False
        elif len(upstream.in_flight) >= upstream.capacity:
            upstream.ready = False

    def freed(self, upstream: Upstream, now: float) -> None:
        """Make a connection ready, or close it, after an exchange on it has ended.

        `limit` must follow if anything is overdue on it.
        """
        if upstream.draining is not None or not upstream.reusable:
            upstream.ready = False
            if not upstream.in_flight:
                upstream.close(upstream.draining or CloseReason.SPENT)
            return
        if self._rests:
            self._rest(upstream, now)
        elif not upstream.ready and now >= upstream.not_before:
            upstream.ready = True
            if upstream.waiting:
                self._make_ready(upstream, now)

    def _rest(self, upstream: Upstream, now: float) -> None:
        """Send nothing for a while behind an exchange, or nothing any more."""
        pause = self._request_delay
        if upstream.responses > 1 and self._habit.known:
            self._habit.forget()
            self._update()
        upstream.ready = False
        if len(upstream.in_flight) >= upstream.capacity:
            return
        if upstream.responses and self._habit.known and not upstream.in_flight:
            if not self._habit.is_to_be_checked():
                upstream.close(CloseReason.SPENT)
                return
            pause = max(pause, 2 * SECONDS)
        upstream.not_before = max(upstream.not_before, now + pause)
        self._timer.set(upstream.not_before)

    def closed_by_device(self, upstream: Upstream, after: float) -> None:
        """Learn from a connection that the device closed `after` seconds of silence."""
        self._habit.closed_by_device(upstream, after)
        self._update()

    def refresh(self, upstream: Upstream, now: float) -> None:
        """Make a connection ready if it may be used by now; `dispatch` must follow."""
        if upstream.draining is None and now >= upstream.not_before:
            upstream.ready = self.has_room(upstream)
            if upstream.ready:
                self._make_ready(upstream, now)

    def drain(self, upstream: Upstream, reason: CloseReason) -> None:
        """Close a connection as soon as nothing is in flight on it."""
        upstream.draining = upstream.draining or reason
        upstream.ready = False
        if not upstream.in_flight:
            upstream.close(reason)

    def timed_out(self, upstream: Upstream, exchange: Exchange) -> None:
        """Send nothing to which the late response could belong; learn from it."""
        if upstream.one_at_a_time:
            self._one_at_a_time = True
            self._max_in_flight = upstream.capacity = 1
        if not upstream.quiet:
            return
        until = exchange.sent + self._units.timeout + upstream.quiet
        if upstream.names_unit:
            self._units.hold(exchange.request.unit, until)
        else:
            self.quieten(upstream, until)

    def quieten(self, upstream: Upstream, until: float) -> None:
        """Send nothing until a moment (loop time), on new connections either."""
        self.quiet_until = max(self.quiet_until, until)
        upstream.not_before = self.quiet_until
        self._timer.set(until)

    def _make_ready(self, upstream: Upstream, now: float) -> None:
        upstream.ready = True
        if self._discards_first and not upstream.sent:
            self._read_first(upstream, now)
        if not upstream.ready:
            return
        waiting, upstream.waiting = upstream.waiting, []
        for requester in waiting:
            self._queue.offer(requester)

    def _read_first(self, upstream: Upstream, now: float) -> None:
        """Send a read of our own before anything else, as soon as its unit allows it.

        Where a connection carries one request only, there is none to spare.
        """
        request = None if self._habit.known else self.probe()
        if request is None:
            return
        upstream.ready = False
        upstream.not_before = max(now, self._units.held.get(request.unit, 0.0))
        if now < upstream.not_before:
            self._timer.set(upstream.not_before)
            return
        patience = self._units.patience.shortest
        exchange = FirstRead(upstream).exchange(request, now, patience)
        self.send(upstream, exchange, now)
        self._timer.set(exchange.deadline)
