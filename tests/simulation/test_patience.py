"""The contract's sentences on patience, renewal and circuit breakers.

As in `test_contract.py`, each test quotes what it holds the engine to, and its scene is
the least in which that can be seen. Unit 1 answers after `SERVICE` seconds, and unit 2
is silent, unless a scene says otherwise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from custom_components.tcp_multiplexer.multiplexer import EventType

from .contract import contract, unquoted
from .dialects import read
from .stage import (
    SERVICE,
    Hand,
    Line,
    Reaction,
    Stage,
    answers,
    asks,
    at,
    excuse,
    hangs_up,
    resets,
    says_nothing,
    sets,
    stage,
)
from .test_contract import BUSY, NO_ANSWER, answer

PATIENCE = 1.03
TCP: dict[str, Any] = {}
RTU: dict[str, Any] = {"framing": "rtu"}
LENIENT: dict[str, Any] = {"matching": "lenient"}


def test_every_test_quotes_the_contract() -> None:
    assert not unquoted(globals())


def by_unit(units: dict[int, Reaction], others: Reaction | None = None) -> Reaction:
    """Return the manners of a device whose units differ."""
    others = others or answers()

    def react(line: Line, tid: int, body: bytes) -> None:
        units.get(body[0], others)(line, tid, body)

    return react


UNIT_2_SILENT = by_unit({2: says_nothing})


def silent_at(what: bytes) -> Reaction:
    """Return the manners of a device that answers all but this."""

    def react(line: Line, tid: int, body: bytes) -> None:
        (says_nothing if body == what else answers())(line, tid, body)

    return react


class Gateway:
    """Serves one request after the other, and waits `seconds` for a silent unit 2.

    What comes meanwhile it keeps, or loses.
    """

    def __init__(self, seconds: float, *, keeps: bool) -> None:
        self._seconds = seconds
        self._keeps = keeps
        self._busy = False
        self._kept: deque[tuple[Line, int, bytes]] = deque()

    def __call__(self, line: Line, tid: int, body: bytes) -> None:
        if not self._busy:
            self._serve(line, tid, body)
        elif self._keeps:
            self._kept.append((line, tid, body))

    def _serve(self, line: Line, tid: int, body: bytes) -> None:
        self._busy = True
        if body[0] != 2:
            answers()(line, tid, body)
        line.later(self._seconds if body[0] == 2 else SERVICE, self._go_on)

    def _go_on(self) -> None:
        self._busy = False
        if self._kept:
            self._serve(*self._kept.popleft())


def asked_of(scene: Stage, unit: int) -> list[float]:
    """Return when a unit was asked."""
    return [asked.at for asked in scene.puppet.asked if asked.body[0] == unit]


def moments(start: float, step: float, count: int) -> Iterator[float]:
    """Give `count` moments."""
    return (start + step * number for number in range(count))


def learn(scene: Stage, *units: int) -> Hand:
    """Let units answer a read, so that they are known; the scene begins anew."""
    client = scene.hand()
    for unit in units:
        client.ask(asks(500, unit=unit))
        scene.run_for(1)
    scene.puppet.asked.clear()
    scene.puppet.manners = UNIT_2_SILENT
    scene.beginning = scene.loop.time()
    return client


def failed(client: Hand) -> list[float]:
    """Return when a client was told that there is no response."""
    return [heard.at for heard in client.heard if heard.body[2] == NO_ANSWER]


# ---- patience -------------------------------------------------------------------


@contract(
    "It is at least 1.03 s",
    "the next request goes out beside it",
    "Its own response still counts until its deadline.",
)
def test_what_is_overdue_holds_up_nobody_and_may_still_be_answered() -> None:
    with stage(timeout=5) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script.append(answers(4))
        scene.at(0, first.ask, asks(1, unit=2))
        scene.at(0.5, second.ask, asks(1))
        scene.run_to(10)
        assert scene.puppet.asked[1] == (at(PATIENCE), 1, asks(1))
        assert second.heard == [(at(PATIENCE + SERVICE), 1, answer(scene, asks(1)))]
        assert first.heard == [(at(4), 1, answer(scene, asks(1, unit=2)))]
        assert not scene.puppet.ended


@contract("at most half the timeout")
def test_patience_is_at_most_half_the_timeout() -> None:
    with stage(timeout=1) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script.append(says_nothing)
        scene.at(0, first.ask, asks(1, unit=2))
        scene.at(0.1, second.ask, asks(1))
        scene.run_to(3)
        assert asked_of(scene, 1) == [at(0.5)]


@contract(
    "four times the slowest of its unit's last 16 response times, if one of them was "
    "slow (more than 0.25 s)",
)
@pytest.mark.parametrize(("took", "patience"), [(0.2, 1.03), (0.4, 1.6), (1.5, 4)])
def test_patience_is_four_times_the_slowest_response(
    took: float, patience: float
) -> None:
    with stage(timeout=8) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script += [answers(), answers(took), answers(), says_nothing]
        scene.at(0, first.ask, asks(1), asks(2), asks(3))
        scene.at(5, first.ask, asks(4))
        scene.at(5.1, second.ask, asks(1, unit=3))
        scene.run_to(15)
        assert asked_of(scene, 3) == [at(5 + patience)]


@contract("slowest of its unit's last 16 response times")
def test_a_slow_response_counts_for_sixteen_more() -> None:
    for fast in (15, 16):
        with stage(timeout=8) as scene:
            first, second = scene.hand(), scene.hand()
            scene.puppet.script += [answers(0.5), *[answers()] * fast, says_nothing]
            scene.at(0, first.ask, *map(asks, range(fast + 1)))
            scene.at(5, first.ask, asks(100))
            scene.at(5.1, second.ask, asks(1, unit=3))
            scene.run_to(15)
            assert asked_of(scene, 3) == [at(7 if fast == 15 else 5 + PATIENCE)]


@contract("or of all units' while the unit has not answered yet")
def test_the_patience_with_a_new_unit_is_that_with_the_others() -> None:
    with stage(timeout=8) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script += [answers(0.5), says_nothing]
        scene.at(0, first.ask, asks(1))
        scene.at(5, first.ask, asks(1, unit=2))
        scene.at(5.1, second.ask, asks(2))
        scene.run_to(15)
        assert asked_of(scene, 1) == [at(0), at(7)]


@contract("reads that joined it are asked for themselves")
def test_reads_that_joined_an_overdue_one_are_asked_for_themselves() -> None:
    with stage(timeout=5) as scene:
        first, second, third = (scene.hand() for _ in range(3))
        scene.puppet.script.append(says_nothing)
        scene.at(0, first.ask, asks(1))
        for client in (second, third):
            scene.at(0.5, client.ask, asks(1))
        scene.run_to(10)
        assert [asked.at for asked in scene.puppet.asked] == [at(0), at(PATIENCE)]
        for client in (second, third):
            assert [heard.at for heard in client.heard] == [at(PATIENCE + SERVICE)]
        assert failed(first) == [at(5)]


@contract("`request_delay` later")
def test_request_delay_begins_when_a_request_is_overdue() -> None:
    with stage(timeout=5, request_delay=0.3) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script.append(says_nothing)
        scene.at(0, first.ask, asks(1, unit=2))
        scene.at(0.5, second.ask, asks(1))
        scene.at(4.9, second.ask, asks(2))  # and when it has ended
        scene.run_to(10)
        assert asked_of(scene, 1) == [at(PATIENCE + 0.3), at(4.9)]


@contract("Writes to one unit still go one at a time.")
def test_a_write_waits_for_an_overdue_one_to_its_unit() -> None:
    with stage(timeout=5) as scene:
        learn(scene, 1, 2)
        first, second, third = (scene.hand() for _ in range(3))
        scene.puppet.script.append(answers(3))
        scene.at(0, first.ask, sets(1, unit=2))
        scene.at(0.5, second.ask, sets(2, unit=2))
        scene.at(0.6, third.ask, asks(3))
        scene.run_to(10)
        assert asked_of(scene, 2) == [at(0), at(3)]
        assert asked_of(scene, 1) == [at(PATIENCE)]


@contract("it does not count as in flight any more")
def test_a_client_that_leaves_while_its_request_is_overdue_harms_nobody() -> None:
    with stage(timeout=5) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.manners = UNIT_2_SILENT
        scene.at(0, first.ask, asks(1, unit=2))
        scene.at(2, first.leave)
        for moment in moments(0.5, 1, 10):
            scene.at(moment, second.ask, asks(round(moment * 10)))
        scene.run_to(12)
        assert [heard.at for heard in second.heard] == [
            at(PATIENCE + SERVICE),
            *(at(moment + SERVICE) for moment in moments(1.5, 1, 9)),
        ]
        assert scene.mux.snapshot().in_flight == 0
        assert not scene.puppet.ended


@contract("at most two are with a unit of which one is overdue")
def test_at_most_two_are_with_a_unit_of_which_one_is_overdue() -> None:
    with stage(timeout=5) as scene:
        learn(scene, 1)
        scene.puppet.script.append(says_nothing)
        clients = [scene.hand() for _ in range(4)]
        scene.puppet.manners = by_unit({3: answers(3)})
        for number, client in enumerate(clients):
            scene.at(0.1 * number, client.ask, asks(number, unit=3))
        scene.run_to(3)
        assert asked_of(scene, 3) == [at(0), at(PATIENCE)]


@contract("At most 16 requests on a connection are overdue without counting")
def test_at_most_sixteen_requests_are_overdue_without_counting() -> None:
    with stage(timeout=60) as scene:
        living = learn(scene, 1)
        scene.puppet.manners = by_unit(dict.fromkeys(range(10, 60), says_nothing))
        for unit in range(10, 40):
            scene.at(0, scene.hand().ask, asks(1, unit=unit))
        scene.at(0.5, living.ask, asks(2))  # so it is known that the device takes more
        scene.run_to(59)
        assert sum(asked.body[0] >= 10 for asked in scene.puppet.asked) == 17
        assert living.heard[-1].at == at(PATIENCE + SERVICE)


# ---- what a device does with requests beside others ------------------------------


@contract(
    "Until one sent beside has been answered, only two may be, and only reads of units "
    "that have not been silent.",
)
def test_a_read_goes_first_beside_what_is_overdue() -> None:
    with stage(timeout=5) as scene:
        learn(scene, 1, 3)
        silent, writer, reader = (scene.hand() for _ in range(3))
        scene.at(0, silent.ask, asks(1, unit=2))
        scene.at(0.1, writer.ask, sets(1, unit=3))
        scene.at(0.2, reader.ask, asks(1))
        scene.run_to(10)
        assert asked_of(scene, 1) == [at(PATIENCE)]
        assert asked_of(scene, 3) == [at(PATIENCE + SERVICE)]


@contract("only two may be")
def test_only_two_go_beside_until_one_of_them_is_answered() -> None:
    with stage(timeout=5) as scene:
        learn(scene, 1)
        scene.puppet.manners = says_nothing
        for unit in range(10, 20):
            scene.at(0, scene.hand().ask, asks(1, unit=unit))
        scene.run_to(4.9)
        assert [asked.at for asked in scene.puppet.asked] == [
            at(0),
            at(PATIENCE),
            at(2 * PATIENCE),
        ]


@contract(
    "asked once more while there is time for it: 1.03 s before its deadline, or a "
    "quarter of the timeout if that is less.",
    "a request is overdue only when so little of the timeout is left",
)
@pytest.mark.parametrize(("timeout", "reserve"), [(5, 1.03), (4, 1)])
def test_what_a_gateway_loses_is_asked_again_and_others_wait_longer_then(
    timeout: float, reserve: float
) -> None:
    with stage(timeout=timeout) as scene:
        learn(scene, 1)
        scene.puppet.manners = Gateway(2.8, keeps=False)
        silent, living, writer = (scene.hand() for _ in range(3))
        scene.at(0, silent.ask, asks(1, unit=2))
        scene.at(0.5, living.ask, asks(1))
        scene.at(7, living.ask, asks(2))
        scene.at(10, silent.ask, asks(2, unit=2))
        scene.at(10.5, living.ask, asks(3))
        scene.at(10.4, writer.ask, sets(4))
        scene.run_to(20)
        assert [asked.at for asked in scene.puppet.asked if asked.body[1] == 3] == [
            at(0),
            at(PATIENCE),
            at(0.5 + timeout - reserve),
            at(7),
            at(10),
            at(10 + timeout - reserve),
        ]
        assert [heard.body for heard in living.heard] == [
            answer(scene, asks(number)) for number in (1, 2, 3)
        ]
        assert writer.heard[0].at == at(10 + timeout + SERVICE)
        assert not scene.puppet.ended


@contract("or behind it before it was overdue")
def test_what_was_pipelined_behind_what_became_overdue_is_asked_again() -> None:
    with stage(timeout=5, max_in_flight=4) as scene:
        learn(scene, 1, 3)
        scene.puppet.manners = Gateway(2.8, keeps=False)
        silent, one, other = (scene.hand() for _ in range(3))
        scene.at(0, silent.ask, asks(1, unit=2))
        scene.at(0.1, one.ask, asks(1))
        scene.at(0.2, other.ask, asks(1, unit=3))
        scene.run_to(20)
        assert asked_of(scene, 2) == [at(0)]
        assert asked_of(scene, 1) == [at(0.1), at(0.1 + 5 - PATIENCE)]
        assert asked_of(scene, 3) == [at(0.2), at(0.2 + 5 - PATIENCE)]
        for hand, unit in ((one, 1), (other, 3)):
            assert [h.body for h in hand.heard] == [answer(scene, asks(1, unit=unit))]
        assert not failed(one) + failed(other)


@contract("something sent later has been answered")
def test_what_the_device_has_gone_past_is_asked_again_at_once() -> None:
    with stage(timeout=60) as scene:
        learn(scene, 1, 3)
        silent, first, second = (scene.hand() for _ in range(3))
        lost = asks(1, unit=3)
        scene.puppet.manners = by_unit({2: says_nothing, 3: says_nothing})
        scene.at(0, silent.ask, asks(1, unit=2))
        scene.at(0.5, first.ask, lost)
        scene.at(0.6, second.ask, asks(1))
        scene.run_to(2 * PATIENCE)
        scene.puppet.manners = UNIT_2_SILENT
        scene.run_to(10)
        assert asked_of(scene, 1) == [at(2 * PATIENCE)]
        assert asked_of(scene, 3) == [at(PATIENCE), at(2 * PATIENCE + SERVICE)]
        assert first.heard == [(at(2 * PATIENCE + 2 * SERVICE), 1, answer(scene, lost))]


@contract("because it is overdue itself once nothing sent before it is left.")
def test_what_is_overdue_alone_is_asked_again() -> None:
    with stage(timeout=60) as scene:
        learn(scene, 1)
        scene.puppet.manners = by_unit({2: answers(3), 1: says_nothing})
        slow, living = scene.hand(), scene.hand()
        scene.at(0, slow.ask, asks(1, unit=2))
        scene.at(0.5, living.ask, asks(1))
        scene.run_to(3.5)
        scene.puppet.manners = UNIT_2_SILENT
        scene.run_to(10)
        assert asked_of(scene, 1) == [at(PATIENCE), at(3 + PATIENCE)]


@contract("or after 11 s, which is longer than gateways wait; and only reads go out")
def test_a_device_that_takes_one_at_a_time_is_given_eleven_seconds() -> None:
    with stage(timeout=60) as scene:
        learn(scene, 1)
        scene.puppet.manners = Gateway(9, keeps=False)
        silent, living, writer = (scene.hand() for _ in range(3))
        scene.at(0, silent.ask, asks(1, unit=2))
        scene.at(0.5, living.ask, asks(1))
        scene.at(70, silent.ask, asks(2, unit=2))
        scene.at(71, living.ask, asks(2))
        scene.at(71, writer.ask, sets(3))
        scene.run_to(140)
        moments_asked = [PATIENCE, PATIENCE + 11, 70 + 11, 130]
        assert asked_of(scene, 1) == list(map(at, moments_asked))


@contract(
    "That ends when a response shows, be it too late, that the request was not lost"
)
def test_a_late_response_shows_that_a_request_was_not_lost() -> None:
    with stage(timeout=5) as scene:
        learn(scene, 1, 2)
        scene.puppet.manners = Gateway(6, keeps=True)
        silent, living = scene.hand(), scene.hand()
        scene.at(0, silent.ask, asks(1, unit=2))
        scene.at(0.5, living.ask, asks(1))
        scene.at(10, silent.ask, asks(2, unit=2))
        scene.at(10.5, living.ask, asks(2))
        scene.run_to(12)
        asked = [asked.at for asked in scene.puppet.asked if asked.body == asks(1)]
        assert asked == [at(PATIENCE), at(5.5 - PATIENCE)]
        assert scene.puppet.asked[-1] == (at(10 + PATIENCE), 1, asks(2))
        assert failed(living) == [at(5.5)]


@contract(
    "until the device answers something sent later, be it too late: then it has gone "
    "past it.",
    "is not asked again until something is, for at most 30 s.",
    "be it too late for its client",
)
@pytest.mark.parametrize("settings", [{}, {"max_in_flight": 4}], ids=str)
def test_a_gateway_that_waits_longer_than_we_do_makes_nobody_starve(
    settings: dict[str, Any],
) -> None:
    with stage(timeout=5, **settings) as scene:
        learn(scene, 1)
        scene.puppet.manners = Gateway(10, keeps=True)
        silent, living = scene.hand(), scene.hand()
        for number, moment in enumerate(moments(0, 2.5, 48)):
            scene.at(moment, silent.ask, asks(number, unit=2))
            scene.at(moment, living.ask, asks(number))
        scene.run_to(120)
        told = [e.detail for _, e in scene.events if e.type is EventType.UNIT_SILENT]
        assert told == ["2"]
        assert len(asked_of(scene, 2)) <= 10
        right = [h for h in living.heard if h.body[1] == 3 and h.at > 60]
        # It is tried at intervals, and each trial holds up all for 10 s.
        assert len(right) >= 14


@contract("A gateway that serves in order keeps what was sent beside waiting")
@pytest.mark.parametrize("seconds", [1, 3])
def test_a_gateway_that_serves_in_order_makes_no_living_unit_silent(
    seconds: float,
) -> None:
    with stage(timeout=5) as scene:
        learn(scene, 1)
        scene.puppet.manners = Gateway(seconds, keeps=True)
        silent, living = scene.hand(), scene.hand()
        asked = list(moments(0.5, 2.5, 12))
        for number, moment in enumerate(asked):
            scene.at(moment - 0.5, silent.ask, asks(number, unit=2))
            scene.at(moment, living.ask, asks(number))
        scene.run_to(40)
        assert [heard.body for heard in living.heard] == [
            answer(scene, asks(number)) for number in range(12)
        ]
        waits = [h.at - since for h, since in zip(living.heard, asked, strict=True)]
        assert max(waits) <= seconds + PATIENCE + SERVICE
        assert scene.mux.snapshot().silent_units == (2,)
        assert not scene.puppet.ended


# ---- renewal --------------------------------------------------------------------


@contract("Two such timeouts in a row", "A byte received meanwhile keeps it.")
def test_several_silent_units_at_once_renew_nothing_while_another_answers() -> None:
    with stage(timeout=5, max_in_flight=4) as scene:
        learn(scene, 1)
        scene.puppet.manners = by_unit(dict.fromkeys((2, 3, 4), says_nothing))
        for unit in (2, 3, 4):
            scene.at(0, scene.hand().ask, asks(1, unit=unit))
        scene.run_to(20)
        assert not scene.puppet.ended
        assert asked_of(scene, 1) == [at(5)]


@contract(
    "or if none is known, the connection is renewed", "which is no failed attempt"
)
def test_where_nothing_is_known_two_timeouts_renew() -> None:
    with stage(timeout=2) as scene:
        client = scene.hand()
        scene.puppet.manners = says_nothing
        for moment in (0, 1):
            scene.at(moment, client.ask, asks(moment))
        scene.run_to(3.5)
        assert scene.puppet.ended == [(at(3), 1)]
        assert scene.puppet.dials == [at(3)]
        assert [health for _, health in scene.healths] == ["degraded"]
        assert not scene.told(EventType.UPSTREAM_LOST)


@contract(
    "a connection that has not answered at all is renewed after twice as many timeouts "
    "as the one before it, at most 64.",
)
def test_a_connection_that_never_answered_is_given_longer_each_time() -> None:
    with stage(timeout=1) as scene:
        client = scene.hand()
        scene.puppet.manners = says_nothing
        for number in range(220):
            scene.at(number, client.ask, asks(number, unit=1 + number))
        scene.run_to(200)
        ends = [moment for moment, _ in scene.puppet.ended]
        # 2, 4, 8, 16, 32 and 64 timeouts, and never more
        assert ends == [at(moment) for moment in (2, 6, 14, 30, 62, 126, 190)]
        scene.puppet.manners = answers()
        scene.run_to(220)
        assert len(scene.puppet.ended) == 7


@contract("A timeout counts if the response had a fair chance: half the timeout")
def test_a_timeout_of_what_was_sent_late_does_not_count() -> None:
    with stage(framing="rtu", timeout=2) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.manners = says_nothing
        scene.at(0, first.ask, asks(1, unit=2))
        scene.at(0.5, second.ask, asks(1, unit=3))  # sent at 2, given up at 2.5
        scene.run_to(10)
        assert failed(second) == [at(2.5)]
        assert not scene.puppet.ended


@contract("ahead of all that wait")
def test_a_half_open_connection_is_renewed_however_much_waits() -> None:
    with stage(timeout=2) as scene:
        learn(scene, 1, 3)
        scene.puppet.manners = says_nothing
        clients = [scene.hand() for _ in range(4)]
        for number in range(40):
            for client, unit in zip(clients, (1, 1, 3, 3), strict=True):
                scene.at(number / 2, client.ask, asks(number, unit=unit))
        scene.run_to(6)
        assert len(scene.puppet.ended) == 1
        assert not scene.told(EventType.UPSTREAM_LOST)


# ---- circuit breakers -----------------------------------------------------------


@contract(
    "its requests get 0x0B immediately",
    "Proof is any response that came after the first of these requests was sent",
    "A unit that is silent does not count while others answer",
    "Which units are silent is reported as events and in the statistics.",
)
@pytest.mark.parametrize("manner", [TCP, RTU, LENIENT], ids=str)
def test_a_unit_that_is_silent_twice_is_refused_at_once(manner: dict[str, Any]) -> None:
    with stage(timeout=5, **manner) as scene:
        living = learn(scene, 1)
        silent = scene.hand()
        for number, moment in enumerate((0, 7, 14)):
            scene.at(moment, silent.ask, asks(number, unit=2))
        for moment in (1, 8, 14):
            scene.at(moment, living.ask, asks(moment))
        scene.run_to(16)
        assert failed(silent) == [at(5), at(12), at(14)]
        assert asked_of(scene, 2) == [at(0), at(7)]
        if manner is TCP:
            assert [heard.at for heard in living.heard[1:]] == [
                at(PATIENCE + SERVICE),
                at(8.03 + SERVICE),
                at(14 + SERVICE),
            ]
        assert not scene.puppet.ended
        assert not scene.healths
        assert [
            e.detail for _, e in scene.events if e.type is EventType.UNIT_SILENT
        ] == ["2"]
        assert scene.mux.snapshot().silent_units == (2,)


@contract("those that wait too")
def test_what_waits_for_a_unit_fails_as_its_breaker_opens() -> None:
    with stage(timeout=5) as scene:
        living = learn(scene, 1)
        clients = [scene.hand() for _ in range(4)]
        scene.at(0, clients[0].ask, asks(1, unit=2))
        for number, client in enumerate(clients):
            scene.at(5.5, client.ask, asks(number, unit=2))
        scene.at(6, living.ask, asks(1))
        scene.run_to(20)
        assert [client.heard[-1].at for client in clients] == [at(10.5)] * 4
        assert len(asked_of(scene, 2)) == 2


@contract("by requests of which the second was sent after the first had timed out")
def test_what_was_under_way_at_the_same_time_counts_once() -> None:
    with stage(timeout=5) as scene:
        living = learn(scene, 1)
        first, second = scene.hand(), scene.hand()
        scene.at(0, first.ask, asks(1, unit=2))
        scene.at(0.5, second.ask, asks(2, unit=2))
        scene.at(6, living.ask, asks(1))
        scene.at(7, first.ask, asks(3, unit=2))
        scene.run_to(20)
        assert asked_of(scene, 2) == [at(0), at(PATIENCE), at(7)]


@contract("or that the connection has been renewed in vain")
@pytest.mark.parametrize("manner", [TCP, RTU], ids=str)
def test_the_only_unit_is_refused_once_a_renewal_was_in_vain(
    manner: dict[str, Any],
) -> None:
    with stage(timeout=2, quiet=0.5, **manner) as scene:
        client = scene.hand()
        scene.puppet.manners = says_nothing
        for number in range(4):
            scene.at(3 * number, client.ask, asks(number))
        scene.run_to(10)
        assert failed(client) == [at(2), at(5), at(8), at(9)]
        assert scene.puppet.dials == [at(5)]
        assert scene.told(EventType.UNIT_SILENT) == [at(8)]
        assert [health for _, health in scene.healths] == ["degraded"]


@contract(
    "5 s after it opened, twice as long after each trial that fails, at most 60 s.",
    "one request an interval is sent as a trial",
)
def test_a_silent_unit_is_tried_less_and_less_often() -> None:
    with stage(timeout=5) as scene:
        living = learn(scene, 1)
        silent, other = scene.hand(), scene.hand()
        scene.at(0, silent.ask, asks(0, unit=2))
        scene.at(6, silent.ask, asks(6, unit=2))
        scene.at(7, living.ask, asks(1))
        for second in range(12, 300):
            scene.at(second, silent.ask, asks(second, unit=2))
            scene.at(second, other.ask, asks(1000 + second, unit=2))
        scene.run_to(300)
        assert asked_of(scene, 2) == [
            at(moment) for moment in (0, 6, 16, 31, 56, 101, 166, 231, 296)
        ]


def opened(scene: Stage) -> tuple[Hand, Hand]:
    """Have the breaker of unit 2 open at 11; return a client of each unit."""
    living = learn(scene, 1)
    silent = scene.hand()
    scene.at(0, silent.ask, asks(0, unit=2))
    scene.at(6, silent.ask, asks(6, unit=2))
    scene.at(5.5, living.ask, asks(1))
    scene.run_to(11.5)
    assert scene.told(EventType.UNIT_SILENT) == [at(11)]
    return silent, living


@contract("The first response closes the breaker")
def test_the_first_response_closes_the_breaker() -> None:
    with stage(timeout=5) as scene:
        silent, _ = opened(scene)
        scene.puppet.manners = answers()
        for number in range(12, 20):
            scene.at(number, silent.ask, asks(number, unit=2))
        scene.run_to(25)
        assert asked_of(scene, 2)[2:] == [at(number) for number in range(16, 20)]
        assert scene.told(EventType.UNIT_BACK) == [at(16 + SERVICE)]
        assert not scene.mux.snapshot().silent_units


@contract("a late response that names its unit shows that the unit lives")
@pytest.mark.parametrize("manner", [TCP, RTU], ids=str)
def test_a_late_response_closes_the_breaker(manner: dict[str, Any]) -> None:
    with stage(timeout=5, **manner) as scene:
        silent, living = opened(scene)
        scene.puppet.manners = by_unit({2: answers(5.5)})
        scene.at(16, living.ask, asks(2))
        scene.at(17, silent.ask, asks(17, unit=2))
        scene.run_to(25)
        assert scene.told(EventType.UNIT_BACK) == [at(22.5)]


@contract(
    "After a connection was lost, or none could be opened, a trial may go at once, but "
    "not for a renewal.",
)
def test_after_a_new_connection_a_trial_may_go_at_once() -> None:
    with stage(timeout=5) as scene:
        silent, _ = opened(scene)
        scene.run(scene.mux.reconnect())
        scene.at(12, silent.ask, asks(1, unit=2))
        scene.at(12.5, silent.ask, asks(2, unit=2))
        scene.run_to(13)
        assert asked_of(scene, 2)[2:] == [at(12)]
        assert failed(silent)[2:] == [at(12.5)]


@contract("Where a read of the unit is known to be answered and was not among them")
def test_a_unit_is_not_silent_that_answers_what_it_is_known_to() -> None:
    only = asks(1, unit=2)
    with stage(timeout=5) as scene:
        living = learn(scene, 1, 2)
        scene.puppet.manners = silent_at(only)
        client = scene.hand()
        for number in range(6):
            scene.at(6 * number, client.ask, only)
            scene.at(6 * number + 3, living.ask, asks(number))
        scene.run_to(40)
        asked = [asked for asked in scene.puppet.asked if asked.body[0] == 2]
        assert asked[2] == (at(11), 1, asks(500, unit=2))
        assert not scene.told(EventType.UNIT_SILENT)
        assert failed(client)[:5] == [at(moment) for moment in (5, 11, 17, 23, 24)]


@contract("and only reads of units that have not been silent.")
def test_a_unit_is_not_silent_that_answered_what_was_sent_later() -> None:
    """A gateway lost one of several requests: that says nothing of its unit."""
    lost, silent = sets(7, unit=2), asks(7)
    with stage(timeout=1, max_in_flight=4) as scene:
        learn(scene, 1, 2)

        def react(line: Line, tid: int, body: bytes) -> None:
            (says_nothing if body in {lost, silent} else answers())(line, tid, body)

        scene.puppet.manners = react
        writer, reader, other = (scene.hand() for _ in range(3))
        scene.at(0, writer.ask, lost)
        scene.at(0.01, reader.ask, asks(1, unit=2))
        scene.at(1.05, other.ask, silent)
        scene.at(1.6, reader.ask, asks(2, unit=2))  # beside what is overdue
        scene.run_to(3)
        assert failed(writer) == [at(1)]
        assert [heard.at for heard in reader.heard] == [at(0.11), at(1.7)]


@contract("those reads get a breaker of their own, by unit, function and address")
def test_a_register_at_which_its_unit_is_silent_is_refused_alone() -> None:
    only = asks(1, unit=2)
    with stage(timeout=5) as scene:
        learn(scene, 1, 2)
        scene.puppet.manners = silent_at(only)
        client, other = scene.hand(), scene.hand()
        for number in range(6):
            scene.at(6 * number, client.ask, only)
            scene.at(6 * number + 3, other.ask, asks(100 + number, unit=2))
        scene.run_to(40)
        assert [heard.at for heard in other.heard] == [
            at(6 * number + 3 + SERVICE) for number in range(6)
        ]
        # It is tried at 16 s or later, and then not before 33 s.
        assert failed(client) == [at(moment) for moment in (5, 11, 12, 23, 24, 30)]
        assert not scene.told(EventType.UNIT_SILENT)


@contract(
    "So does a read at which the device closes the connection in place of a response, "
    "twice in a row with others answered between",
    "one that has done so once is asked again behind what waits.",
)
@pytest.mark.parametrize("ends", [hangs_up, resets])
def test_a_read_at_which_the_device_hangs_up_is_refused(
    ends: Callable[[float], Reaction],
) -> None:
    bad = asks(66)

    def manners(line: Line, tid: int, body: bytes) -> None:
        (ends(0.01) if body == bad else answers())(line, tid, body)

    with stage(timeout=5) as scene:
        living = learn(scene, 1)
        scene.puppet.manners = manners
        client = scene.hand()
        scene.at(0, living.ask, asks(1))
        scene.at(0.05, client.ask, bad)
        scene.at(0.105, living.ask, asks(2))
        scene.at(1, client.ask, bad, asks(3))
        scene.run_to(3)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [asks(1), bad, asks(2), bad, asks(3)]
        assert failed(client) == [at(0.22), at(1)]
        assert not scene.told(EventType.UPSTREAM_LOST)
        assert not scene.mux.snapshot().silent_units


@contract("A write never gets a breaker of its own.")
def test_a_write_at_which_the_device_hangs_up_is_sent_each_time() -> None:
    def manners(line: Line, tid: int, body: bytes) -> None:
        (hangs_up(0.01) if body[1] == 6 else answers())(line, tid, body)

    with stage(timeout=5) as scene:
        living = learn(scene, 1)
        scene.puppet.manners = manners
        client = scene.hand()
        for number in range(6):
            scene.at(number, client.ask, sets(1))
            scene.at(number + 0.5, living.ask, asks(number))
        scene.run_to(8)
        assert sum(asked.body == sets(1) for asked in scene.puppet.asked) == 6


@contract("What is silent costs its own clients a timeout, and nobody else")
@pytest.mark.parametrize("manner", [TCP, RTU, LENIENT], ids=str)
def test_a_scan_finds_the_unit_behind_silent_ones(manner: dict[str, Any]) -> None:
    with stage(timeout=2, quiet=0.5, **manner) as scene:
        client = scene.hand()
        scene.puppet.manners = by_unit({15: answers()}, says_nothing)
        for number in range(20):
            scene.at(3 * number, client.ask, read(1 + number, 3, 0, 1).body)
        scene.run_to(70)
        assert [h.body[0] for h in client.heard if h.body[1] == 3] == [15]
        assert [asked.body[0] for asked in scene.puppet.asked if asked.body[1] == 3]
        assert not scene.told(EventType.UPSTREAM_LOST)


@contract(
    "A client that asks again within 100 ms of being refused at once, and is refused "
    "again, is told so 100 ms later",
)
def test_clients_of_a_silent_unit_do_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    with stage(timeout=5) as scene:
        silent, _ = opened(scene)
        told: list[float] = []

        def note(data: bytes) -> None:
            told.append(scene.now)
            again = asks(len(told), unit=2)
            scene.loop.post(scene.loop.time() + 0.001, silent.ask, again)

        monkeypatch.setattr(silent, "data_received", note)
        scene.at(12, silent.ask, asks(0, unit=2))
        scene.run_to(13)
        assert 8 <= len(told) <= 11


@contract("What a device does with requests beside an overdue one is learned for each")
def test_a_new_connection_knows_nothing_of_what_was_overdue() -> None:
    with stage(timeout=5) as scene:
        living = learn(scene, 1)
        first, second = scene.hand(), scene.hand()
        scene.at(0, first.ask, asks(1, unit=2))
        scene.at(0.1, second.ask, asks(2, unit=2))
        scene.at(2, scene.puppet.reset, 1)
        scene.at(2.5, living.ask, asks(1))
        scene.run_to(10)
        # Both are sent once more, the second beside the first.
        assert asked_of(scene, 2) == [at(0), at(PATIENCE), at(2), at(2 + PATIENCE)]
        assert living.heard[-1].at == at(2 + 2 * PATIENCE + SERVICE)


@pytest.mark.parametrize("every", [2.5, 4.3, 6.3, 27, 60])
@pytest.mark.parametrize("timeout", [1, 5])
@contract("nobody waits for a response that does not come", "and nobody else (Modbus)")
def test_a_silent_unit_asked_without_pause_costs_one_patience(
    timeout: float, every: float
) -> None:
    with stage(timeout=timeout) as scene:
        living = learn(scene, 1)
        silent = scene.hand()
        for moment in moments(0, timeout + 0.001, int(300 / timeout)):
            scene.at(moment, silent.ask, asks(int(moment), unit=2))
        asked = list(moments(0.4, every, int(280 / every)))
        for number, moment in enumerate(asked):
            scene.at(moment, living.ask, asks(number))
        scene.run_to(300)
        heard = living.heard[1:]
        assert [h.body for h in heard] == [
            answer(scene, asks(number)) for number in range(len(asked))
        ]
        waits = [h.at - since for h, since in zip(heard, asked, strict=True)]
        assert max(waits) <= min(PATIENCE, timeout / 2) + SERVICE + 1e-6
        assert not scene.healths
        assert not scene.puppet.ended


@contract("After a connection was lost, or none could be opened", "not for a renewal")
def test_a_renewal_is_no_reason_to_try_a_silent_unit() -> None:
    with stage(timeout=1) as scene:
        living, silent = learn(scene, 1), scene.hand()
        for moment in (0.0, 2.0):
            scene.at(moment, silent.ask, asks(int(moment), unit=2))
        scene.at(1.5, living.ask, asks(1))
        scene.run_to(3.05)
        assert scene.told(EventType.UNIT_SILENT) == [at(3)]
        scene.puppet.manners = says_nothing
        for moment in (3.1, 4.2):
            scene.at(moment, living.ask, asks(int(10 * moment)))
        for number, moment in enumerate((6.3, 7.9, 8.1)):
            scene.at(moment, silent.ask, asks(100 + number, unit=2))
        scene.run_to(6.5)
        scene.puppet.manners = UNIT_2_SILENT
        scene.at(7, living.ask, asks(70))
        scene.run_to(8.5)
        assert scene.puppet.ended == [(at(5.1), 1)]
        assert asked_of(scene, 2) == [at(0), at(2), at(8.1)]


@contract("That says nothing of the unit.")
def test_a_lost_trial_says_nothing_of_the_unit() -> None:
    with stage(timeout=5, max_connections=2) as scene:
        learn(scene, 1)
        scene.puppet.manners = Gateway(3, keeps=True)
        silent, living = scene.hand(), scene.hand()
        scene.at(0, silent.ask, asks(1, unit=2))
        scene.at(0.1, living.ask, asks(1))
        scene.run_to(4)
        assert scene.puppet.ended == [(at(2.6), 2)]
        assert living.heard == [(at(3.2), 1, answer(scene, asks(1)))]
        silent_units = scene.mux._dispatcher._units.breakers.units  # noqa: SLF001
        assert 1 not in silent_units


# ---- with little time left ------------------------------------------------------


def on_a_line(**settings: Any) -> Any:
    """Have a device on a line, of which nothing but what a scene asks is asked."""
    defaults: dict[str, Any] = {"framing": "rtu", "health_check_interval": 0}
    return stage(**defaults | settings)


@contract(
    "never counted above half the timeout",
    "with less than 0.25 s left either, or half the timeout if that is less",
)
def test_a_short_timeout_leaves_time_enough() -> None:
    with on_a_line(timeout=0.3) as scene:
        one, two = scene.hand(), scene.hand()
        scene.at(1, one.ask, asks(1))
        scene.at(1, two.ask, asks(2))
        scene.run_to(2)
        assert [asked.at for asked in scene.puppet.asked] == [at(1), at(1 + SERVICE)]
        assert two.heard == [(at(1 + 2 * SERVICE), 1, answer(scene, asks(2)))]


@contract("never counted above half the timeout")
def test_a_unit_that_was_very_slow_is_asked_with_half_the_timeout_left() -> None:
    with on_a_line(timeout=2) as scene:
        one, two = scene.hand(), scene.hand()
        scene.puppet.script.append(answers(1.5))
        scene.at(1, one.ask, asks(1))
        scene.at(1.8, two.ask, asks(2))
        scene.run_to(5)
        assert [asked.at for asked in scene.puppet.asked] == [at(1), at(2.5)]
        assert two.heard == [(at(2.5 + SERVICE), 1, answer(scene, asks(2)))]


@contract("nothing is sent, with RTU to its unit, until `quiet` after")
def test_what_waits_behind_what_is_turned_down_goes_at_once() -> None:
    with on_a_line(timeout=2, quiet=1, queue_size=1) as scene:
        one, two = scene.hand(), scene.hand()
        scene.puppet.script.append(says_nothing)
        silent = asks(1, unit=2)
        scene.at(1, one.ask, silent)
        # There is room for the first of these, whose time ends while its unit is held.
        scene.at(1.5, two.ask, silent, asks(2))
        scene.run_to(6)
        assert [asked.at for asked in scene.puppet.asked] == [at(1), at(3)]
        assert two.heard == [
            (at(3), 1, excuse(silent, BUSY)),
            (at(3 + SERVICE), 2, answer(scene, asks(2))),
        ]


@contract("is not asked again until something is, for at most 30 s.")
def test_a_unit_that_holds_up_others_is_not_asked_for_thirty_seconds() -> None:
    """Its breaker would let a trial go after 5 s, and each holds up all."""
    with stage(timeout=1) as scene:
        learn(scene, 1)
        scene.puppet.manners = says_nothing
        silent, living = scene.hand(), scene.hand()
        for moment in moments(0, 1.5, 40):
            scene.at(moment, silent.ask, asks(1, unit=2))
            scene.at(moment + 0.1, living.ask, asks(1))
        scene.run_to(50)
        assert asked_of(scene, 2) == [at(0), at(30)]
