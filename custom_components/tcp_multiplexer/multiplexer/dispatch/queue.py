"""The waiting requests, and whose turn it is.

Fairness is between requesters, not requests: each keeps its own requests in order, and
of the requesters with a pending request, the one served longest ago goes next. They
stand in a line, each at most once. A requester that joins was usually served more
recently than everyone waiting, so it goes to the end; otherwise it is inserted in
order.

Four things can keep a requester from its turn:

* It has a request in flight on a connection that is full. It waits for that connection,
  because its requests must not overtake each other.
* Its next request is a write to a scope with an older unanswered write. It waits for
  that one: writes to a scope reach the device one at a time, in the order in which they
  arrived over all requesters.
* The unit of its next request is held (see `units`). It waits until that is over.
* It does not read its responses. It gets no more until it does.

Each is parked where the event that unblocks it will find it, so nothing is ever
searched.

Writes go first: a requester whose next request is a write is served before those whose
next is a read, but at most `WRITES_IN_A_ROW` times while a read waits. A person or a
controller waits for a write; a poll is repeated anyway.

The bound: a requester with nothing pending may always place one request; beyond that,
`size` limits the requests of all. A requester that finds no room is `blocked`, and is
unblocked when there is some, in the order of arrival.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from math import inf
from typing import TYPE_CHECKING, override

from .exchange import NOTHING_JOINED

if TYPE_CHECKING:
    from ..protocols.base import Failure, Request
    from .exchange import Exchange, Requester


WRITES_IN_A_ROW = 4
"""Writes served in a row while a read waits."""

type Screen = Callable[[Exchange], bool | Failure]
"""Says whether a request may go now, or why it is not to be sent at all."""


class RequestQueue:
    """A bounded queue, fair between requesters and in order within each."""

    def __init__(self, size: int, *, writes_first: bool = False) -> None:
        """Allow `size` pending requests beyond each requester's first."""
        self.size = size
        self.writes_first = writes_first
        self.depth = 0
        """Requests pending now."""
        self.peak = 0
        """The highest `depth` so far."""
        self.joined = 0
        """How many of these are followers, which need no connection of their own."""
        self._count = 0
        """Turns given; each turn is a higher number than all before it."""
        self._turn_before = 0
        """The turn before its last of the requester that was served last."""
        self._line: deque[tuple[int, Requester]] = deque()
        """The requesters waiting for a turn, sorted by their last one."""
        self._write_line: deque[tuple[int, Requester]] = deque()
        """The same for those whose next request is a write, if writes go first."""
        self._writes_in_a_row = 0
        self._writes_before = 0
        """What that was before the last request was taken."""
        self.blocked: dict[Requester, None] = {}
        """Requesters that found no room, in the order of arrival."""
        self._writes: dict[Hashable, deque[Exchange]] = {}
        """By scope: writes pending or in flight, the oldest first."""
        self._after_write: dict[Hashable, dict[Requester, None]] = {}
        """By scope: requesters whose next request waits for an older write."""
        self._barred: dict[Hashable, list[Requester]] = {}
        """By held unit: requesters whose next request is for it."""
        self._passed: list[Requester] = []
        """Requesters whose next request may not go for now."""
        self.turned_down: list[tuple[Exchange, Failure]] = []
        """Requests that `take` dropped; its caller must fail them."""
        self._members: dict[Requester, None] = {}
        """Every requester that may have pending requests, in the order of joining."""

    @override
    def __repr__(self) -> str:
        return f"<RequestQueue: {self.depth} pending, {len(self.blocked)} blocked>"

    def join(self, requester: Requester) -> None:
        """Add a requester; it counts as served just now."""
        self._count += 1
        requester.turn = self._count
        self._members[requester] = None

    def leave(
        self, requester: Requester, droppable: Callable[[Request], bool]
    ) -> list[Exchange]:
        """Remove a requester; return its pending requests that are `droppable`.

        The others stay and are served in their turn.
        """
        kept: list[Exchange] = []
        dropped: list[Exchange] = []
        for exchange in requester.pending:
            (dropped if droppable(exchange.request) else kept).append(exchange)
        requester.pending = kept
        self.depth -= len(dropped)
        for exchange in dropped:
            self.ended(exchange)
        requester.blocked = False
        self.blocked.pop(requester, None)
        if not kept:
            self._forget(requester)
        else:
            self._reoffer(requester)
        return dropped

    def _forget(self, requester: Requester) -> None:
        """Remove every trace of a requester at once: a turn may take hours to come."""
        self._members.pop(requester, None)
        self._withdraw(requester)

    def _withdraw(self, requester: Requester) -> None:
        """Take a requester out of the line."""
        if requester.queued:
            requester.queued = False
            for line in (self._line, self._write_line):
                for place in line:
                    if place[1] is requester:
                        line.remove(place)
                        return

    def has_room(self, requester: Requester) -> bool:
        """Return whether `requester` may place another request now."""
        return self.depth < self.size or not (requester.pending or requester.joined)

    def block(self, requester: Requester) -> None:
        """Mark a requester that found no room; its `unblock` will be called."""
        requester.blocked = True
        self.blocked[requester] = None

    def put(self, exchange: Exchange) -> None:
        """Queue a request behind the earlier ones of its requester."""
        requester = exchange.requester
        pending = requester.pending
        if pending and (
            pending[-1].arrived > exchange.arrived
            or pending[-1].deadline > exchange.deadline
        ):
            # it was a follower until now, and arrived before some of these
            place = _place(exchange)
            _insert(pending, sum(_place(o) <= place for o in pending), exchange)
        else:
            pending.append(exchange)
        self.depth += 1
        if self.depth > self.peak:  # noqa: PLR1730 - max() costs more, on the hot path
            self.peak = self.depth
        if (scope := exchange.request.writes) is not None:
            self._writes.setdefault(scope, deque()).append(exchange)
        if not requester.queued:
            self.offer(requester)
        elif pending[0] is exchange:
            # the place in line is that of a dropped request, perhaps of another kind
            self._reoffer(requester)

    def requeue(self, exchange: Exchange, *, ahead: bool = True) -> None:
        """Put a request that had its turn back, `ahead` of all others or not."""
        requester = exchange.requester
        pending = requester.pending
        # another that came before it may have been put back, too
        place = _place(exchange)
        _insert(pending, sum(_place(o) < place for o in pending), exchange)
        self.depth += 1
        self.peak = max(self.peak, self.depth)
        self._members[requester] = None
        if ahead:
            self._count += 1
            exchange.turn = -self._count
        self._reoffer(requester)

    def offer(self, requester: Requester) -> None:
        """Put a requester in line, if it has something pending."""
        pending = requester.pending
        if not pending or requester.queued or requester.held:
            return
        requester.queued = True
        exchange = pending[0]
        line = self._line
        if exchange.request.writes is not None and self.writes_first:
            line = self._write_line
        place = (exchange.turn or requester.turn, requester)
        if line and line[-1] > place:
            insort(line, place)
        else:
            line.append(place)

    def _reoffer(self, requester: Requester) -> None:
        """Move a requester to where its next request, now a different one, belongs."""
        self._withdraw(requester)
        self.offer(requester)

    def take(self, screen: Screen | None = None) -> Exchange | None:
        """Remove and return the request whose turn it is; `relieve` must follow.

        What the `screen` does not let pass waits on, or goes to `turned_down`. Without
        one, no unit must be barred.
        """
        while line := self._whose_turn() if self._write_line else self._line:
            requester = line.popleft()[1]
            requester.queued = False
            pending = requester.pending
            if not pending or requester.held:
                continue
            upstream = requester.upstream
            if upstream is not None and not upstream.ready:
                upstream.waiting.append(requester)
                continue
            exchange = pending[0]
            if screen is not None and self._set_aside(exchange, screen(exchange)):
                continue
            scope = exchange.request.writes
            if scope is not None and self._writes[scope][0] is not exchange:
                self._after_write.setdefault(scope, {})[requester] = None
                continue
            self._writes_before = self._writes_in_a_row
            if line is self._line:
                self._writes_in_a_row = 0
            elif self._read_waits():
                self._writes_in_a_row += 1
            del pending[0]
            self.depth -= 1
            self._count += 1
            self._turn_before = requester.turn
            requester.turn = self._count
            if pending:
                self.offer(requester)
            elif requester.gone:
                self._forget(requester)
            if screen is not None:
                self._offer_passed()
            return exchange
        self._offer_passed()
        return None

    def _offer_passed(self) -> None:
        """Put those back in line that were passed over."""
        passed, self._passed = self._passed, []
        for requester in passed:
            self.offer(requester)

    def not_served(self, exchange: Exchange) -> None:
        """Note that what was just taken is not sent: that was no turn of anybody's."""
        requester = exchange.requester
        self._withdraw(requester)
        self._writes_in_a_row = self._writes_before
        requester.turn = self._turn_before
        self.offer(requester)
        self.ended(exchange)

    def _set_aside(self, exchange: Exchange, verdict: bool | Failure) -> bool:
        """Set a request aside that is not to be taken now; return whether so."""
        requester, unit = exchange.requester, exchange.request.unit
        if verdict is False:
            self._passed.append(requester)
        elif verdict is not True:
            self.turned_down.append((exchange, verdict))
            self.drop(exchange)
            self.offer(requester)
        elif unit in self._barred:
            self._barred[unit].append(requester)
        else:
            return False
        return True

    def _whose_turn(self) -> deque[tuple[int, Requester]]:
        """Return the line to serve from: that of writes, or that of all others."""
        if not self._line or self._writes_in_a_row < WRITES_IN_A_ROW:
            return self._write_line
        return self._line

    def _read_waits(self) -> bool:
        """Return whether somebody who stands in the line of reads can be served."""
        line = self._line
        while line:
            requester = line[0][1]
            if requester.pending and not requester.held:
                return True
            line.popleft()  # what it had asked has failed
            requester.queued = False
        return False

    def attach(self, follower: Exchange, leader: Exchange) -> None:
        """Count a follower in."""
        requester = follower.requester
        if requester.joined is NOTHING_JOINED:
            requester.joined = {}
        requester.joined[follower] = leader
        self.joined += 1
        self.depth += 1
        self.peak = max(self.peak, self.depth)

    def detach(self, follower: Exchange) -> None:
        """Count a follower out; `relieve` must follow."""
        del follower.requester.joined[follower]
        self.joined -= 1
        self.depth -= 1

    def writing(self, scope: Hashable) -> bool:
        """Return whether a write to `scope` is pending or in flight."""
        return scope in self._writes

    def bar(self, unit: Hashable) -> None:
        """Hold requests to a unit, and those behind them, until `unbar`."""
        self._barred.setdefault(unit, [])

    def unbar(self, unit: Hashable) -> None:
        """Release requests to a unit; `dispatch` must follow."""
        for requester in self._barred.pop(unit, ()):
            self.offer(requester)

    def drop(self, exchange: Exchange) -> None:
        """Remove a pending request that will not be sent."""
        requester = exchange.requester
        requester.pending.remove(exchange)
        self.depth -= 1
        self.ended(exchange)
        if requester.pending:
            self.offer(requester)  # it may have waited for that one's unit or scope
            if exchange.turn or not _same_kind(exchange, requester.pending[0]):
                self._reoffer(requester)
        elif requester.gone:
            self._forget(requester)

    def ended(self, exchange: Exchange) -> None:
        """Note that a request is finished: the next write to its scope may go."""
        scope = exchange.request.writes
        if scope is None:
            return
        writes = self._writes[scope]
        writes.remove(exchange)
        waiting = self._after_write.get(scope, {})
        if exchange.requester in waiting:
            del waiting[exchange.requester]  # its next request may be another kind
            self.offer(exchange.requester)
        if not writes:
            del self._writes[scope]
            self._after_write.pop(scope, None)
        elif writes[0].requester in waiting:
            # nobody else: waking all for each write costs the square of their number
            del waiting[writes[0].requester]
            self.offer(writes[0].requester)

    def admit(self) -> None:
        """Unblock requesters as long as there is room."""
        while self.blocked and self.depth < self.size:
            self._unblock(next(iter(self.blocked)))

    def relieve(self, requester: Requester) -> None:
        """Unblock a requester that has nothing pending: it may place one request."""
        if requester.blocked and not (requester.joined or requester.pending):
            self._unblock(requester)

    def _unblock(self, requester: Requester) -> None:
        del self.blocked[requester]
        requester.blocked = False
        requester.unblock()

    def next_deadline(self) -> float:
        """Return the earliest deadline of those that wait, followers too, or inf."""
        firsts = [r.pending[0].deadline for r in self._members if r.pending]
        firsts += [follower.deadline for follower in self._followers()]
        return min(firsts, default=inf)

    def _followers(self) -> list[Exchange]:
        if not self.joined:
            return []
        return [follower for r in self._members for follower in r.joined]

    def overdue(self, before: float) -> list[Exchange]:
        """Return the followers whose deadline is before `before` (loop time)."""
        return [f for f in self._followers() if f.deadline < before]

    def shorten(self, latest: float) -> None:
        """Let no deadline be later than `latest` (loop time)."""
        for requester in self._members:
            for exchange in (*requester.pending, *requester.joined):
                exchange.deadline = min(exchange.deadline, latest)

    def requesters(self) -> Iterator[Requester]:
        """Iterate over a copy of all requesters that may have something pending."""
        return iter(tuple(self._members))


def _place(exchange: Exchange) -> tuple[float, float]:
    """Return what the order of one requester's requests goes by.

    Several that waited for room were taken at one time, the one that came first first.
    """
    return exchange.arrived, exchange.deadline


def _insert(pending: list[Exchange], at: int, exchange: Exchange) -> None:
    """Insert a request; of all, the first one's deadline stays the earliest.

    It may have been sent before the timeout was made shorter.
    """
    if at < len(pending):
        exchange.deadline = min(exchange.deadline, pending[at].deadline)
    pending.insert(at, exchange)


def _same_kind(one: Exchange, other: Exchange) -> bool:
    """Return whether both are writes, or neither is."""
    return (one.request.writes is None) == (other.request.writes is None)
