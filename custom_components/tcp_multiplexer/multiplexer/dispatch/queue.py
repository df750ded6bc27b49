"""The requests that wait, and whose turn it is.

Fairness is between requesters, not requests: each keeps its own requests in their
order, and of those who have one pending, the one served longest ago goes next. They
stand in a line, each at most once. Who comes to it was as a rule served later than all
who stand there, and goes to its end; who was not goes where it belongs.

Four things can keep a requester from its turn. While it has a request in flight on a
connection that is full, it waits there (its requests must not overtake each other).
While its next request writes to a scope that has an older write unanswered, it waits
for that one (writes to one unit reach the device one at a time, in the order of their
arrival over all requesters). While nothing may go to the unit of its next request, it
waits for that (see `units`). And one that does not read its responses gets no more.
Each waits where the event will find it that lets it go on: nobody searches.

Writes go first: a requester whose next request is a write is served before those
whose next is a read, but at most `WRITES_IN_A_ROW` times while a read waits. A person
or a controller waits for a write; a poll comes again anyway.

The bound: a requester with nothing pending may always place one request; beyond that
`size` bounds the requests of all. Who finds no room is `blocked` and is told, first
come first served, when there is some.
"""

from bisect import insort
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from math import inf
from typing import TYPE_CHECKING, override

if TYPE_CHECKING:
    from ..protocols.base import Request
    from .exchange import Exchange, Requester


WRITES_IN_A_ROW = 4

type _Test = Callable[[Exchange], bool] | None


class RequestQueue:
    """Fair between requesters, bounded, first come first served within each."""

    def __init__(self, size: int, *, writes_first: bool = False) -> None:
        """Allow `size` pending requests beyond each requester's first."""
        self.size = size
        self.writes_first = writes_first
        self.depth = 0
        """Requests pending now."""
        self.peak = 0
        self.joined = 0
        """Of these, reads that need no connection: they wait for another's response."""
        self._count = 0
        """Of turns given, so that each is later than all before."""
        self._line: deque[tuple[int, Requester]] = deque()
        """Who waits for a turn, each with the count of its last, which sorts them."""
        self._write_line: deque[tuple[int, Requester]] = deque()
        """The line of those whose next request is a write, if these go first."""
        self._writes_in_a_row = 0
        self.blocked: dict[Requester, None] = {}
        """Requesters that found no room, in the order in which they came."""
        self._writes: dict[Hashable, deque[Exchange]] = {}
        """Per scope, writes pending or in flight, the oldest first."""
        self._after_write: dict[Hashable, list[Requester]] = {}
        """Per scope, requesters whose next request waits for an older write."""
        self._barred: dict[Hashable, list[Requester]] = {}
        """Per unit to which nothing may go, requesters whose next request would."""
        self.late: list[Exchange] = []
        """Dropped by `take`; whatever takes must fail them."""
        self._members: dict[Requester, None] = {}

    @override
    def __repr__(self) -> str:
        return f"<RequestQueue: {self.depth} pending, {len(self.blocked)} blocked>"

    def join(self, requester: Requester) -> None:
        """Count a requester in; its first turn is counted from now."""
        self._count += 1
        requester.turn = self._count
        self._members[requester] = None

    def leave(
        self, requester: Requester, droppable: Callable[[Request], bool]
    ) -> list[Exchange]:
        """Count a requester out and give its pending requests that nobody misses.

        The others stay and are served in their turn.
        """
        kept: deque[Exchange] = deque()
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
            self._offer_anew(requester)
        return dropped

    def _forget(self, requester: Requester) -> None:
        """Keep no trace of somebody who is gone: turns may not be taken for hours."""
        self._members.pop(requester, None)
        self._withdraw(requester)

    def _withdraw(self, requester: Requester) -> None:
        """Let a requester wait for its turn no more."""
        if requester.queued:
            requester.queued = False
            for line in (self._line, self._write_line):
                for place in line:
                    if place[1] is requester:
                        line.remove(place)
                        return

    def has_room(self, requester: Requester) -> bool:
        """Tell whether `requester` may place another request now."""
        return self.depth < self.size or not (requester.pending or requester.joined)

    def block(self, requester: Requester) -> None:
        """Remember a requester that found no room; `unblock` will be called."""
        requester.blocked = True
        self.blocked[requester] = None

    def put(self, exchange: Exchange) -> None:
        """Place a request behind those of its requester that came before."""
        requester = exchange.requester
        pending = requester.pending
        if pending and pending[-1].arrived > exchange.arrived:
            # it followed another's until now, and came before some of these
            before = sum(other.arrived <= exchange.arrived for other in pending)
            pending.insert(before, exchange)
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
            # it waits for the turn of one that was dropped, perhaps of another kind
            self._offer_anew(requester)

    def requeue(self, exchange: Exchange) -> None:
        """Place a request that was taken before all others: it had its turn."""
        requester = exchange.requester
        requester.pending.appendleft(exchange)
        self.depth += 1
        self.peak = max(self.peak, self.depth)
        self._members[requester] = None
        self._count += 1
        exchange.turn = -self._count
        self._offer_anew(requester)

    def offer(self, requester: Requester) -> None:
        """Let a requester wait for its turn, if it has something to ask."""
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

    def _offer_anew(self, requester: Requester) -> None:
        """Let a requester wait where its next request belongs, which is another now."""
        self._withdraw(requester)
        self.offer(requester)

    def take(self, retry_safe: bool = False, too_late: _Test = None) -> Exchange | None:
        """Return the request whose turn it is, if any may go; `relieve` must follow.

        With `retry_safe`, only what may be sent twice; what is `too_late`: to `late`.
        """
        passed: list[Requester] = []
        taken = None
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
            if retry_safe and not exchange.request.retry_safe:
                passed.append(requester)
                continue
            if too_late is not None and too_late(exchange):
                self.late.append(exchange)
                self.drop(exchange)
                self.offer(requester)
                continue
            if self._barred and exchange.request.unit in self._barred:
                self._barred[exchange.request.unit].append(requester)
                continue
            scope = exchange.request.writes
            if scope is not None and self._writes[scope][0] is not exchange:
                self._after_write.setdefault(scope, []).append(requester)
                continue
            taken = exchange
            if line is self._line:
                self._writes_in_a_row = 0
            elif self._line:
                self._writes_in_a_row += 1
            pending.popleft()
            self.depth -= 1
            self._count += 1
            requester.turn = self._count
            if pending:
                self.offer(requester)
            elif requester.gone:
                self._forget(requester)
            break
        for requester in passed:
            self.offer(requester)
        return taken

    def _whose_turn(self) -> deque[tuple[int, Requester]]:
        """Give the line to serve from: that of writes, or of all others."""
        if not self._line or self._writes_in_a_row < WRITES_IN_A_ROW:
            return self._write_line
        return self._line

    def attach(self, requester: Requester) -> None:
        """Count a read that waits for another's response."""
        requester.joined += 1
        self.joined += 1
        self.depth += 1
        self.peak = max(self.peak, self.depth)

    def detach(self, requester: Requester) -> None:
        """Count such a read out; `relieve` must follow."""
        requester.joined -= 1
        self.joined -= 1
        self.depth -= 1

    def writing(self, scope: Hashable) -> bool:
        """Tell whether a write to `scope` waits or is in flight."""
        return scope in self._writes

    def bar(self, unit: Hashable) -> None:
        """Let requests to a unit wait until `unbar`, and with them what is behind."""
        self._barred.setdefault(unit, [])

    def unbar(self, unit: Hashable) -> None:
        """Let requests to a unit be taken again; `dispatch` must follow."""
        for requester in self._barred.pop(unit, ()):
            self.offer(requester)

    def drop(self, exchange: Exchange) -> None:
        """Take a pending request out of its turn: it has been refused."""
        requester = exchange.requester
        requester.pending.remove(exchange)
        self.depth -= 1
        self.ended(exchange)
        if requester.pending:
            if self._barred:
                self.offer(requester)  # what it waited for may have been the unit
            if exchange.turn or not _same_kind(exchange, requester.pending[0]):
                self._offer_anew(requester)
        elif requester.gone:
            self._forget(requester)

    def ended(self, exchange: Exchange) -> None:
        """Note that a request needs the device no more, so the next write may go."""
        scope = exchange.request.writes
        if scope is None:
            return
        writes = self._writes[scope]
        writes.remove(exchange)
        if not writes:
            del self._writes[scope]
        for requester in self._after_write.pop(scope, ()):
            self.offer(requester)

    def admit(self) -> None:
        """Let those go on who found no room, as far as there is some."""
        while self.blocked and self.depth < self.size:
            self._unblock(next(iter(self.blocked)))

    def relieve(self, requester: Requester) -> None:
        """Let one go on that has nothing pending any more: it may place one again."""
        if requester.blocked and not (requester.joined or requester.pending):
            self._unblock(requester)

    def _unblock(self, requester: Requester) -> None:
        del self.blocked[requester]
        requester.blocked = False
        requester.unblock()

    def next_deadline(self) -> float:
        """Return the earliest deadline of those that stand first, or infinity."""
        return min(
            (
                requester.pending[0].deadline
                for requester in self._members
                if requester.pending
            ),
            default=inf,
        )

    def shorten(self, latest: float) -> None:
        """Let no request wait beyond a moment (loop time)."""
        for requester in self._members:
            for exchange in requester.pending:
                exchange.deadline = min(exchange.deadline, latest)

    def requesters(self) -> Iterator[Requester]:
        """Give everybody who may have something pending."""
        return iter(tuple(self._members))


def _same_kind(one: Exchange, other: Exchange) -> bool:
    """Tell whether both write, or neither does."""
    return (one.request.writes is None) == (other.request.writes is None)
