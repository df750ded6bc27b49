"""Whose turn it is: fairness, order, bounds, and writes one at a time."""

from __future__ import annotations

from collections.abc import Hashable
import gc
from math import inf
import sys
from typing import Any, cast, override
import weakref

from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
import pytest

from custom_components.tcp_multiplexer.multiplexer.dispatch.exchange import (
    Exchange,
    Requester,
)
from custom_components.tcp_multiplexer.multiplexer.dispatch.queue import (
    RequestQueue,
    Screen,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.base import (
    Failure,
    Request,
)

from .connections import Unused


class Asker(Requester):
    """Somebody who asks; notes when it may go on."""

    def __init__(self, name: str = "?") -> None:
        """Ask nothing yet."""
        super().__init__(name)
        self.went_on = 0

    @override
    def answered(self, exchange: Exchange, response: Any) -> None:
        pass

    @override
    def failed(self, exchange: Exchange, failure: Failure) -> None:
        pass

    @override
    def unblock(self) -> None:
        self.went_on += 1

    @override
    def __repr__(self) -> str:
        return self.name


def read(asker: Asker) -> Exchange:
    """Make a read: it may be asked twice."""
    return Exchange(Request(b"read", retry_safe=True), asker, 0, 1)


class ToUnit(Request):
    """A request to the unit that it writes to."""

    @property
    @override
    def unit(self) -> Hashable | None:
        return self.writes


def write(asker: Asker, scope: int = 1) -> Exchange:
    """Make a write to a scope."""
    return Exchange(ToUnit(b"write", writes=scope), asker, 0, 1)


def queue_of(*names: str, size: int = 32, **more: Any) -> tuple[Any, ...]:
    """Give a queue, and askers that joined it in this order."""
    queue = RequestQueue(size, **more)
    askers = [Asker(name) for name in names]
    for asker in askers:
        queue.join(asker)
    return queue, *askers


def put(queue: RequestQueue, *exchanges: Exchange) -> tuple[Exchange, ...]:
    """Place requests, and give them."""
    for exchange in exchanges:
        queue.put(exchange)
    return exchanges


def whatever(_: Exchange) -> bool:
    """Let every request pass that the queue lets pass."""
    return True


def taken(queue: RequestQueue, screen: Screen = whatever) -> str:
    """Take all that can be taken; give the names of who asked, in order."""
    names = []
    while (exchange := queue.take(screen)) is not None:
        names.append(exchange.requester.name)
    return " ".join(names)


def full_connection() -> Unused:
    """Give a connection that has no room."""
    return Unused()


def retry_safe(request: Request) -> bool:
    """Tell what nobody misses when its client is gone."""
    return request.retry_safe


# ---- turns ----------------------------------------------------------------------


def test_each_in_turn_whatever_the_others_have_pending() -> None:
    queue, a, b, c = queue_of("a", "b", "c")
    put(queue, *(read(a) for _ in range(5)), *(read(b) for _ in range(2)), read(c))
    assert taken(queue) == "a b c a b a a a"


def test_one_served_longest_ago_goes_next() -> None:
    queue, a, b, c = queue_of("a", "b", "c")
    put(queue, read(c), read(b), read(a))
    assert taken(queue) == "a b c"  # nobody was served: by when they came
    put(queue, read(c))
    assert taken(queue) == "c"
    put(queue, read(c), read(b), read(a))
    assert taken(queue) == "a b c"


def test_newcomer_comes_after_those_who_waited_since_before_it_came() -> None:
    queue, a, b = queue_of("a", "b")
    put(queue, read(a), read(b))
    c = Asker("c")
    queue.join(c)
    put(queue, read(c))
    assert taken(queue) == "a b c"
    put(queue, read(a), read(b))
    d = Asker("d")
    queue.join(d)
    put(queue, read(d))
    assert taken(queue) == "a b d"


def test_requests_of_one_keep_their_order() -> None:
    queue, a, b = queue_of("a", "b")
    mine = put(queue, read(a), write(a), read(a), write(a, 2))
    put(queue, read(b), read(b))
    got = []
    while (exchange := queue.take()) is not None:
        got.append(exchange)
    assert [exchange for exchange in got if exchange.requester is a] == list(mine)


def test_nothing_pending_gives_nothing() -> None:
    queue, a = queue_of("a")
    assert queue.take() is None
    put(queue, read(a))
    assert queue.take() is not None
    assert queue.take() is None


def test_one_that_reads_no_responses_gets_no_more_until_it_does() -> None:
    queue, a, b = queue_of("a", "b")
    put(queue, read(a), read(b))
    a.held = True
    assert taken(queue) == "b"
    put(queue, read(a), read(b))
    assert taken(queue) == "b"
    a.held = False
    queue.offer(a)
    assert taken(queue) == "a a"


def test_one_whose_connection_is_full_waits_there_and_holds_nobody_up() -> None:
    queue, a, b = queue_of("a", "b")
    put(queue, read(a), read(b))
    a.upstream = full_connection()
    assert taken(queue) == "b"
    assert a.upstream.waiting == [a]
    a.upstream.ready = True
    queue.offer(a)
    assert taken(queue) == "a"


def test_only_what_may_be_sent_twice_and_others_keep_their_turn() -> None:
    queue, a, b, c = queue_of("a", "b", "c")
    put(queue, write(a), read(b), write(c, 2))
    assert taken(queue, screen=lambda e: e.request.retry_safe) == "b"
    put(queue, read(b))
    assert taken(queue) == "a c b"


def test_requeued_requests_go_first_in_their_original_order() -> None:
    queue, a, b, c = queue_of("a", "b", "c")
    put(queue, read(a), read(b), read(a), read(c))
    first, second = queue.take(), queue.take()
    for exchange in (second, first):
        queue.requeue(exchange)
    got = [queue.take() for _ in range(4)]
    assert got[:2] == [first, second]
    assert [exchange.requester for exchange in got[2:]] == [c, a]


def test_the_first_request_of_one_has_the_earliest_deadline() -> None:
    """Several are taken at one time once there is room; timeouts are made shorter."""
    queue, a = queue_of("a")
    first, second = read(a), read(a)
    first.deadline, second.deadline = 3, 4
    put(queue, first, second)
    assert [queue.take(), queue.take()] == [first, second]
    queue.requeue(first)
    queue.requeue(second)
    assert list(a.pending) == [first, second]
    assert queue.next_deadline() == 3

    queue, a = queue_of("a")
    first, second = read(a), read(a)
    second.arrived, first.deadline = 1, 9
    put(queue, first)
    assert queue.take() is first
    put(queue, second)
    queue.requeue(first)
    assert list(a.pending) == [first, second]
    assert first.deadline == second.deadline == 1


def test_requeued_requests_of_one_keep_the_order_in_which_they_came() -> None:
    queue, a = queue_of("a")
    first, second, third = read(a), read(a), read(a)
    second.arrived, third.arrived = 1.0, 2.0
    put(queue, first, second, third)
    assert [queue.take(), queue.take()] == [first, second]
    queue.requeue(second)  # it was lost sooner
    queue.requeue(first)
    assert [queue.take() for _ in range(3)] == [first, second, third]
    queue.requeue(first)
    queue.requeue(second)
    assert [queue.take(), queue.take()] == [first, second]


# ---- writes ---------------------------------------------------------------------


def test_writes_to_a_scope_go_one_at_a_time_as_they_came_over_all() -> None:
    queue, a, b, c = queue_of("a", "b", "c")
    third, first, second = write(a), write(c), write(b)
    put(queue, first, second, third)
    assert [queue.take(), queue.take()] == [first, None]
    queue.ended(first)
    assert [queue.take(), queue.take()] == [second, None]
    put(queue, read(b))
    assert taken(queue) == "b"  # reads do not wait for writes
    queue.ended(second)
    assert [queue.take(), queue.take()] == [third, None]
    assert queue.writing(1)
    queue.ended(third)
    assert not queue.writing(1)


def test_writes_to_other_scopes_do_not_wait() -> None:
    queue, a, b, c = queue_of("a", "b", "c")
    put(queue, write(a, 1), write(b, 2), write(c, 1))
    assert taken(queue) == "a b"


def test_write_that_was_dropped_holds_nobody_up() -> None:
    queue, a, b = queue_of("a", "b")
    first, second = put(queue, write(a), write(b))
    b.turn = 0
    queue.drop(first)
    assert queue.take() is second
    assert queue.depth == 0


def test_what_follows_a_refused_request_waits_where_its_kind_does() -> None:
    """A write behind a read goes first, and a read behind a write no more."""
    queue, a, b = queue_of("a", "b", writes_first=True)
    _, refused, _ = put(queue, read(a), read(b), write(b))
    queue.drop(refused)
    assert taken(queue) == "b a"

    queue, a, b = queue_of("a", "b", writes_first=True)
    _, refused, _ = put(queue, read(a), write(b), read(b))
    queue.drop(refused)
    assert taken(queue) == "a b"


def test_what_goes_to_a_barred_unit_waits_and_holds_up_only_its_own() -> None:
    queue, a, b, c = queue_of("a", "b", "c")
    put(queue, write(a, 1), read(a), write(b, 2), read(c))
    queue.bar(1)
    assert taken(queue) == "b c"
    assert queue.depth == 2
    queue.unbar(1)
    assert taken(queue) == "a a"


def test_what_follows_a_refused_request_to_a_barred_unit_need_not_wait() -> None:
    queue, a = queue_of("a")
    refused, _ = put(queue, write(a, 1), write(a, 2))
    queue.bar(1)
    assert not taken(queue)
    queue.drop(refused)
    assert taken(queue) == "a"


def test_what_comes_too_late_is_dropped_and_was_not_served() -> None:
    """Its requester keeps its turn, and the count of writes in a row goes on."""
    queue, a, b = queue_of("a", "b", writes_first=True)
    late, _, waits = put(queue, read(a), read(b), read(a))
    assert queue.take(lambda e: Failure.BUSY if e is late else True) is waits
    assert queue.turned_down == [(late, Failure.BUSY)]
    assert queue.depth == 1
    assert taken(queue) == "b"

    queue, a, b, c = queue_of("a", "b", "c", writes_first=True)
    late, waits, *_ = put(queue, read(a), read(c), *(write(b) for _ in range(6)))
    for _ in range(4):
        queue.ended(queue.take())
    # four writes in a row: it is a read's turn, and the one dropped was not it
    assert queue.take(lambda e: Failure.BUSY if e is late else True) is waits


def test_what_was_taken_and_is_not_served_was_nobodys_turn() -> None:
    """Four writes go in a row, and then a read, whatever was turned down between."""
    queue, a, b, c, d = queue_of("a", "b", "c", "d", writes_first=True)
    put(queue, read(a), *(write(b) for _ in range(11)), read(c), read(d))

    def served() -> str:
        exchange = queue.take()
        queue.ended(exchange)
        name: str = exchange.requester.name
        return name

    assert [served() for _ in range(4)] == ["b"] * 4
    queue.not_served(queue.take())
    assert [served() for _ in range(4)] == ["c", "b", "b", "b"]
    queue.not_served(queue.take())
    assert [served() for _ in range(3)] == ["b", "d", "b"]


def test_next_deadline_is_that_of_whatever_stands_first() -> None:
    queue, a, b = queue_of("a", "b")
    assert queue.next_deadline() == inf
    first, second, third = put(queue, read(a), read(a), read(b))
    first.deadline, second.deadline, third.deadline = 5, 1, 4
    assert queue.next_deadline() == 4
    queue.shorten(3)
    assert (first.deadline, second.deadline, third.deadline) == (3, 1, 3)


def test_reads_behind_a_write_that_waits_keep_their_place() -> None:
    queue, a, b = queue_of("a", "b")
    first = write(a)
    put(queue, first, write(b), read(b))
    assert taken(queue) == "a"
    queue.ended(first)
    assert taken(queue) == "b b"


def test_writes_go_first_but_four_in_a_row_while_a_read_waits() -> None:
    queue, a, b, c = queue_of("a", "b", "c", writes_first=True)
    for number in range(10):
        put(queue, write(c, number))
    put(queue, read(a), read(b))
    assert taken(queue) == "c c c c a c c c c b c c"


def test_writes_alone_do_not_count_against_writes() -> None:
    queue, a, c = queue_of("a", "c", writes_first=True)
    for number in range(10):
        put(queue, write(c, number))
    assert [queue.take() is not None for _ in range(6)] == [True] * 6
    put(queue, read(a))
    assert taken(queue) == "c c c c a"


def test_reads_that_failed_do_not_count_against_writes() -> None:
    """Whoever had asked them stands in line until it would be served."""
    queue, a, b, c = queue_of("a", "b", "c", writes_first=True)
    (first, _) = put(queue, read(a), read(b))
    queue.drop(first)
    b.held = True
    for number in range(10):
        put(queue, write(c, number))
    assert [queue.take() is not None for _ in range(6)] == [True] * 6
    b.held = False
    queue.offer(b)
    put(queue, read(a))
    assert taken(queue) == "c c c c a b"


def test_writes_wait_their_turn_where_they_do_not_go_first() -> None:
    queue, a, b = queue_of("a", "b", writes_first=False)
    put(queue, write(b, 1), write(b, 2), read(a), read(a))
    assert taken(queue) == "a b a b"


def test_reads_before_a_write_of_the_same_asker_stay_before_it() -> None:
    queue, a, b = queue_of("a", "b", writes_first=True)
    put(queue, read(b), read(a), write(b))
    assert taken(queue) == "a b b"


# ---- bounds ---------------------------------------------------------------------


def test_size_bounds_all_but_everybody_may_place_one() -> None:
    queue, a, b, c = queue_of("a", "b", "c", size=2)
    put(queue, read(a), read(a))
    assert not queue.has_room(a)
    assert queue.has_room(b)
    put(queue, read(b))
    assert not queue.has_room(b)
    assert queue.has_room(c)
    assert (queue.depth, queue.peak) == (3, 3)


def test_those_without_room_go_on_as_they_came_when_there_is_some() -> None:
    queue, a, b, c = queue_of("a", "b", "c", size=3)
    put(queue, read(a), read(a), read(b), read(c))
    for asker in (b, a, c):
        queue.block(asker)
    queue.admit()
    assert (a.went_on, b.went_on, c.went_on) == (0, 0, 0)
    assert queue.take().requester is a
    queue.relieve(a)
    assert queue.take().requester is b
    queue.relieve(b)
    assert (a.went_on, b.went_on) == (0, 1)  # b has nothing pending now
    assert not b.blocked
    queue.admit()
    assert (a.went_on, c.went_on) == (1, 1)
    assert not queue.blocked


def test_one_whose_last_was_refused_goes_on_though_the_queue_is_full() -> None:
    queue, a, b = queue_of("a", "b", size=1)
    (mine, *_) = put(queue, read(a), read(b), read(b))
    queue.block(a)
    queue.drop(mine)
    queue.relieve(a)
    assert a.went_on == 1
    queue.block(b)
    queue.relieve(b)
    assert b.went_on == 0


def test_reads_that_join_others_count_against_the_bound() -> None:
    queue, a, b, c = queue_of("a", "b", "c", size=2)
    put(queue, read(a))
    follower = read(b)
    queue.attach(follower, a.pending[0])
    assert not Asker("new").joined  # what they share while they have joined nothing
    assert (queue.depth, queue.joined, queue.peak) == (2, 1, 2)
    assert not queue.has_room(b)
    assert queue.has_room(c)
    queue.block(b)
    queue.relieve(b)
    assert b.went_on == 0
    queue.detach(follower)
    assert (queue.depth, queue.joined) == (1, 0)
    queue.relieve(b)
    assert b.went_on == 1


def test_a_write_that_ends_wakes_one_of_those_that_wait() -> None:
    """Counted in calls of functions: time would be that of the machine."""

    def calls(writers: int) -> int:
        queue, *askers = queue_of(*"w" * writers, size=9999, writes_first=True)
        put(queue, *(write(asker) for asker in askers))
        count = 0

        def note(frame: object, event: str, arg: object) -> None:
            nonlocal count
            count += event.endswith("call")

        served = queue.take()
        assert queue.take() is None  # all others have found that they must wait
        sys.setprofile(note)
        for asker in askers[:8]:
            assert served.requester is asker
            queue.ended(served)
            queue.put(write(asker))
            served = queue.take()
        sys.setprofile(None)
        return count

    assert calls(1000) <= 1.5 * calls(10)


def test_one_that_waited_to_write_goes_on_when_that_write_is_dropped() -> None:
    """Whatever it asks next, and whoever else waits."""
    for unit in (1, 2):
        queue, a, b, c = queue_of("a", "b", "c")
        first, second, _ = put(queue, write(a), write(b), write(c))
        assert taken(queue) == "a"
        put(queue, write(b, unit))
        queue.drop(second)
        assert taken(queue) == ("" if unit == 1 else "b")
        queue.ended(first)
        assert taken(queue) == "c"


def test_followers_have_deadlines_of_their_own() -> None:
    queue, a, b = queue_of("a", "b")
    (leader,) = put(queue, read(a))
    leader.deadline = 9
    follower = read(b)
    follower.deadline = 7
    queue.attach(follower, leader)
    assert queue.next_deadline() == 7
    assert queue.overdue(7) == []
    queue.shorten(3)
    assert queue.next_deadline() == 3
    assert queue.overdue(3.1) == [follower]
    queue.detach(follower)
    assert queue.overdue(3.1) == []


# ---- leaving --------------------------------------------------------------------


def test_one_who_leaves_drops_what_nobody_misses() -> None:
    queue, a, b = queue_of("a", "b")
    first, kept, last = put(queue, read(a), write(a), read(a))
    put(queue, read(b))
    queue.block(a)
    a.gone = True
    assert queue.leave(a, retry_safe) == [first, last]
    assert queue.depth == 2
    assert not a.blocked
    assert a in queue.requesters()
    assert queue.take() is kept
    assert a not in queue.requesters()
    queue.admit()
    assert a.went_on == 0


def test_what_followed_another_takes_its_place_by_its_arrival() -> None:
    """A read that was to be answered by another's response, which did not come."""
    queue, a = queue_of("a")
    first, follower, last = read(a), read(a), read(a)
    first.arrived, follower.arrived, last.arrived = 1.0, 2.0, 3.0
    put(queue, first, last, follower)
    assert list(a.pending) == [first, follower, last]


def test_write_of_one_who_left_still_goes_before_later_ones() -> None:
    queue, a, b = queue_of("a", "b")
    first, second = put(queue, write(b), write(a))
    b.gone = True
    assert queue.leave(b, retry_safe) == []
    assert queue.take() is first
    assert queue.take() is None
    queue.ended(first)
    assert queue.take() is second


@pytest.mark.parametrize("writes_first", [False, True])
def test_nothing_is_kept_of_one_who_left_while_no_turns_are_taken(
    writes_first: bool,
) -> None:
    """The device may be away for hours, and clients come and go."""
    queue, other = queue_of("other", writes_first=writes_first)
    put(queue, read(other), write(other))

    def come_and_go(exchange: Exchange, *, keep: bool) -> weakref.ref[Requester]:
        asker = exchange.requester
        queue.join(asker)
        queue.put(exchange)
        asker.gone = True
        queue.leave(asker, lambda _: not keep)
        if keep:
            queue.drop(exchange)
        return weakref.ref(asker)

    left = [
        come_and_go(exchange, keep=keep)
        for exchange in (read(Asker()), write(Asker(), 2))
        for keep in (False, True)
    ]
    gc.collect()
    assert [asker() for asker in left] == [None] * 4
    assert taken(queue) == "other other"


# ---- against a naive model ------------------------------------------------------


class Naive(RuleBasedStateMachine):
    """Everything that may happen to a queue, against a search through a list."""

    askers = Bundle("askers")
    going = Bundle("going")

    def __init__(self) -> None:
        super().__init__()
        self.size = 3
        self.queue = RequestQueue(self.size)
        self.clock = 0
        self.turns: dict[Asker, int] = {}
        self.again: dict[Exchange, int] = {}
        """What was put back, the last of which goes first."""
        self.pending: list[Exchange] = []
        """In the order of each asker; over all, as they came."""
        self.writes: list[Exchange] = []
        """Pending or in flight, as they came."""
        self.in_flight: set[Exchange] = set()
        self.blocked: list[Asker] = []
        self.barred: set[int] = set()

    def of(self, asker: Asker) -> list[Exchange]:
        return [e for e in self.pending if e.requester is asker]

    @rule(target=askers)
    def join(self) -> Asker:
        asker = Asker(str(self.clock))
        self.queue.join(asker)
        self.clock += 1
        self.turns[asker] = self.clock
        return asker

    @rule(asker=askers, scope=st.sampled_from([None, None, 1, 2]))
    def put(self, asker: Asker, scope: int | None) -> None:
        room = len(self.pending) < self.size or not self.of(asker)
        assert self.queue.has_room(asker) is room
        if asker.gone or asker.blocked:
            return
        if not room:
            self.queue.block(asker)
            self.blocked.append(asker)
            return
        exchange = read(asker) if scope is None else write(asker, scope)
        self.queue.put(exchange)
        self.pending.append(exchange)
        if scope is not None:
            self.writes.append(exchange)

    def may_go(self, exchange: Exchange, *, retry_safe: bool) -> bool:
        asker, request = exchange.requester, exchange.request
        older = next((w for w in self.writes if w.request.writes == request.writes), 0)
        return (
            not asker.held
            and (asker.upstream is None or asker.upstream.ready)
            and (request.writes is None or older is exchange)
            and (request.retry_safe or not retry_safe)
            and request.unit not in self.barred
        )

    @rule(target=going, only_safe=st.booleans())
    def take(self, only_safe: bool) -> Any:
        nexts = [self.of(asker)[0] for asker in self.turns if self.of(asker)]
        nexts.sort(
            key=lambda e: self.again.get(e) or self.turns[cast(Asker, e.requester)]
        )
        may = (e for e in nexts if self.may_go(e, retry_safe=only_safe))
        expected = next(may, None)
        screen = (lambda e: e.request.retry_safe) if only_safe else whatever
        assert self.queue.take(screen) is expected
        if expected is None:
            return multiple()
        self.pending.remove(expected)
        self.again.pop(expected, None)
        self.in_flight.add(expected)
        asker = cast(Asker, expected.requester)
        self.queue.relieve(asker)
        self.clock += 1
        self.turns[asker] = self.clock
        if asker.gone and not self.of(asker):
            del self.turns[asker]
        elif asker in self.blocked and not self.of(asker):
            self.blocked.remove(asker)
        return expected

    @rule(exchange=consumes(going))
    def end(self, exchange: Exchange) -> None:
        self.in_flight.remove(exchange)
        self.queue.ended(exchange)
        if exchange in self.writes:
            self.writes.remove(exchange)

    @rule(exchange=consumes(going))
    def requeue(self, exchange: Exchange) -> None:
        asker = cast(Asker, exchange.requester)
        self.in_flight.remove(exchange)
        if asker.gone or exchange.request.writes is not None:
            self.in_flight.add(exchange)
            self.end(exchange)
            return
        self.queue.requeue(exchange)
        self.pending.insert(0, exchange)
        self.clock += 1
        self.again[exchange] = -self.clock

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        exchange = data.draw(st.sampled_from(self.pending))
        asker = cast(Asker, exchange.requester)
        self.pending.remove(exchange)
        if exchange in self.writes:
            self.writes.remove(exchange)
        self.queue.drop(exchange)
        self.queue.relieve(asker)
        if not self.of(asker):
            if asker.gone:
                del self.turns[asker]
            elif asker in self.blocked:
                self.blocked.remove(asker)

    @rule(asker=askers)
    def leave(self, asker: Asker) -> None:
        if asker.gone:
            return
        asker.gone = True
        dropped = [e for e in self.of(asker) if e.request.retry_safe]
        assert self.queue.leave(asker, retry_safe) == dropped
        self.pending = [e for e in self.pending if e not in dropped]
        if asker in self.blocked:
            self.blocked.remove(asker)
        if not self.of(asker):
            del self.turns[asker]

    @rule(asker=askers)
    def hold(self, asker: Asker) -> None:
        asker.held = True

    @rule(asker=askers)
    def let_go(self, asker: Asker) -> None:
        asker.held = False
        self.queue.offer(asker)

    @rule(asker=askers)
    def fill(self, asker: Asker) -> None:
        if asker.upstream is None:
            asker.upstream = full_connection()

    @rule(asker=askers)
    def free(self, asker: Asker) -> None:
        upstream, asker.upstream = asker.upstream, None
        if upstream is not None:
            upstream.ready = True
            for waiting in upstream.waiting:
                self.queue.offer(waiting)

    @rule(unit=st.sampled_from([1, 2]))
    def bar(self, unit: int) -> None:
        self.queue.bar(unit)
        self.barred.add(unit)

    @rule(unit=st.sampled_from([1, 2]))
    def unbar(self, unit: int) -> None:
        self.queue.unbar(unit)
        self.barred.discard(unit)

    @rule()
    def admit(self) -> None:
        self.queue.admit()
        if len(self.pending) < self.size:
            self.blocked.clear()

    @invariant()
    def they_agree(self) -> None:
        queue = self.queue
        assert queue.depth == len(self.pending) <= queue.peak
        assert list(queue.blocked) == self.blocked
        assert set(queue.requesters()) == set(self.turns)
        for asker in self.turns:
            assert list(asker.pending) == self.of(asker)
            assert asker.blocked is (asker in self.blocked)
        for scope in (1, 2):
            wrote = any(w.request.writes == scope for w in self.writes)
            assert queue.writing(scope) is wrote


def test_queue_does_what_a_naive_model_does() -> None:
    run_state_machine_as_test(
        Naive, settings=settings(max_examples=200, stateful_step_count=60)
    )
