"""What the owner lets the multiplexer ask by itself: now and then, and first."""

from __future__ import annotations

from dataclasses import replace
import logging
from typing import Any

import pytest

from tests.rules import DENIED, rule
from tests.solarman import SERIAL

from .contract import contract, unquoted
from .stage import (
    SERVICE,
    Line,
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

HOUR = 3600.0
READ, WRITE = "unit=1 read=40608", "unit=1 write=49999 value=1"
ASKED, WRITTEN = bytes.fromhex("01039ea00001"), bytes.fromhex("0106c34f0001")
FIRST = bytes((1, 3, 0, 0, 0, 1))
"""What a probe asks of a device that has not answered anything."""


def periodic(words: str = READ, every: float = 10, **settings: Any) -> Any:
    """Have a multiplexer that asks something now and then, and begins in time zero."""
    defaults: dict[str, Any] = {
        "settled": 0,
        "health_check_interval": 0,
        "periodic_request": words,
        "periodic_interval": every,
    }
    return stage(**defaults | settings)


def bodies(scene: Stage) -> list[bytes]:
    """Give what the device was asked."""
    return [asked.body for asked in scene.puppet.asked]


def moments(scene: Stage) -> list[float]:
    """Give when the device was asked."""
    return [asked.at for asked in scene.puppet.asked]


def refuses(line: Line, tid: int, body: bytes) -> None:
    """Answer with an exception."""
    line.later(SERVICE, line.say, line.stage.pack(tid, excuse(body, 2)))


# ---- now and then ---------------------------------------------------------------


@contract(
    "asked as soon as there is a connection, and again each time that "
    "`periodic_interval` has passed",
    "and is counted and traced like one",
)
@pytest.mark.parametrize(("words", "body"), [(READ, ASKED), (WRITE, WRITTEN)])
def test_it_is_asked_now_and_then(words: str, body: bytes) -> None:
    with periodic(words) as scene:
        scene.run_to(25)
        assert scene.puppet.asked == [(at(t), 1, body) for t in (0, 10, 20)]
        snapshot = scene.mux.snapshot()
        assert (snapshot.requests, snapshot.responses) == (3, 3)
        assert {record.client for record in scene.mux.trace()} == {"periodic request"}


@contract("Off by default.", "asked as soon as there is a connection")
def test_it_is_asked_as_soon_as_there_is_a_connection() -> None:
    with periodic("", connect_delay=0.5) as scene:
        scene.run_to(15)
        assert not scene.puppet.asked
        scene.run(scene.mux.apply(replace(scene.mux.settings, periodic_request=READ)))
        scene.at(18, scene.puppet.hang_up, 1)
        scene.run_to(30)
        assert moments(scene) == [at(15), at(25)]


@contract("but not before the last one has ended")
def test_not_before_the_last_one_has_ended() -> None:
    with periodic(every=1, timeout=5) as scene:
        scene.puppet.script.append(answers(3.5))
        scene.run_to(5)
        assert moments(scene) == [at(0), at(3.5), at(4.5)]


@contract("It goes behind the requests that wait")
def test_it_goes_behind_the_requests_that_wait() -> None:
    with periodic(settled=1, every=10, request_delay=1, timeout=60) as scene:
        one, two = scene.hand(), scene.hand()
        scene.at(8.5, one.ask, asks(1), asks(2), asks(3))
        scene.at(8.9, two.ask, asks(4))
        scene.run_to(20)
        # It came at 9: in turn with the others, behind the two that were there.
        assert bodies(scene)[1:6] == [asks(1), asks(4), asks(2), ASKED, asks(3)]


@contract("is judged by the rules as a request of the host program")
@pytest.mark.parametrize(
    ("rules", "sent"),
    [
        ({"write_rules": DENIED}, False),
        ({"write_rules": (rule("allow", "127.0.0.1"), *DENIED)}, True),
        ({"write_rules": (rule("acknowledge"),)}, False),
        ({"allowed_units": (2,)}, False),
        ({"allowed_functions": (3,)}, False),
    ],
)
def test_the_rules_judge_it(rules: dict[str, Any], sent: bool) -> None:
    with periodic(WRITE, **rules) as scene:
        scene.run_to(15)
        assert (WRITTEN in bodies(scene)) is sent


@contract("It is asked for itself, whatever others ask or the cache holds.")
def test_it_is_asked_for_itself() -> None:
    with periodic(settled=1, cache_ttl=60, timeout=60) as scene:
        client = scene.hand()
        scene.at(8.95, client.ask, ASKED)  # cached
        scene.run_to(30)
        assert moments(scene)[1:] == [at(9), at(19), at(29)]
        assert len(client.heard) == 1
    with periodic(WRITE, repeated_write_ttl=60) as scene:
        scene.run_to(15)
        assert moments(scene) == [at(0), at(10)]


@contract("Any write through the multiplexer to the unit clears its cached responses")
def test_a_write_now_and_then_clears_the_cache() -> None:
    with periodic(WRITE, cache_ttl=60) as scene:
        client = scene.hand()
        for moment in (1, 2, 11):
            scene.at(moment, client.ask, asks(1))
        scene.run_to(15)
        assert [a for a in scene.puppet.asked if a.body == asks(1)] == [
            (at(1), 1, asks(1)),
            (at(11), 1, asks(1)),
        ]


@contract("It opens no connection")
@pytest.mark.parametrize("words", [READ, WRITE])
def test_it_opens_no_connection(words: str) -> None:
    with periodic(words, connect_on_demand=True) as scene:
        scene.run_to(HOUR)
        assert not scene.puppet.dials
        client = scene.hand()
        scene.at(HOUR + 1, client.ask, asks(1))
        scene.at(HOUR + 15, scene.puppet.hang_up, 1)
        scene.run_to(2 * HOUR)
        assert moments(scene) == [at(HOUR + 1), at(HOUR + 1 + SERVICE), at(HOUR + 11)]
        assert scene.puppet.dials == [at(HOUR + 1)]


@contract("if it waits when the last connection ends, it is dropped")
@pytest.mark.parametrize("words", [READ, WRITE])
def test_what_waits_when_the_last_connection_ends_is_dropped(words: str) -> None:
    with periodic(words, connect_on_demand=True, request_delay=5) as scene:
        client = scene.hand()
        scene.at(1, client.ask, asks(1))
        scene.at(3, scene.puppet.hang_up, 1)
        scene.run_to(2)
        assert scene.mux.snapshot().queue_depth == 1
        scene.run_to(HOUR)
        assert bodies(scene) == [asks(1)]
        assert scene.puppet.dials == [at(1)]
        assert scene.mux.snapshot().queue_depth == 0


@contract("It opens no connection")
@pytest.mark.parametrize("reaction", [resets(0.1), hangs_up(0.1)])
@pytest.mark.parametrize("words", [READ, WRITE])
def test_nor_when_it_is_lost(words: str, reaction: Any) -> None:
    with periodic(words, connect_on_demand=True) as scene:
        client = scene.hand()
        scene.puppet.script.extend((answers(), reaction))
        scene.at(1, client.ask, asks(1))
        scene.run_to(HOUR)
        assert len(scene.puppet.dials) == 1
        assert len(scene.puppet.asked) == 2


@contract("and does not count against `idle_timeout`.")
@pytest.mark.parametrize("settings", [{}, {"max_read_registers": 1}])
def test_it_does_not_count_against_idle_timeout(settings: dict[str, int]) -> None:
    words = f"{READ} count=2"
    with periodic(words, every=1, idle_timeout=4.5, **settings) as scene:
        client = scene.hand()
        scene.at(0.5, client.ask, asks(1))
        scene.run_to(20)
        assert len(scene.puppet.asked) > 3
        ((ended, _),) = scene.puppet.ended
        assert ended == at(5.1)


@contract("While there is no connection, in an outage, and while paused, it is not")
def test_it_is_not_asked_while_paused_nor_in_an_outage() -> None:
    with periodic(reconnect_backoff=1) as scene:
        scene.run_to(5)
        scene.run(scene.mux.pause())
        scene.at(25, scene.mux.resume)
        scene.run_to(26)
        assert moments(scene) == [at(0), at(25)]
        scene.puppet.go_away()
        scene.puppet.hang_up(2)
        scene.run_to(60)
        assert scene.mux.health == "unreachable"
        scene.puppet.come_back()
        scene.puppet.script.append(answers(0.5))
        scene.run_to(80)
        probe, again = scene.puppet.asked[2:4]
        # (What a probe asks is what was answered last: the same.)
        assert again.at == at(probe.at + 0.5)


@contract("again each time that `periodic_interval` has passed")
def test_it_is_asked_in_time_after_a_pause_that_was_called_off() -> None:
    with periodic(every=5, timeout=60) as scene:
        client = scene.hand()
        scene.puppet.script.extend((answers(), answers(3)))
        scene.at(4, client.ask, asks(1))
        scene.run_to(4.5)
        pausing = scene.loop.create_task(scene.mux.pause())
        scene.at(5.5, scene.mux.resume)
        scene.run_to(12)
        assert pausing.done()
        assert moments(scene) == [at(0), at(4), at(5.5), at(10.5)]
        assert len(scene.puppet.dials) == 1


@contract(
    "That it fails or is answered by an exception is logged once, and once that it "
    "succeeds again."
)
@pytest.mark.parametrize(
    ("reaction", "why"), [(says_nothing, "no response"), (refuses, "illegal data")]
)
def test_failures_are_logged_once(
    reaction: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with periodic(WRITE, timeout=2) as scene:
        scene.puppet.script.extend((answers(), reaction, reaction))
        scene.run_to(45)
    lines = [m for m in caplog.messages if "periodic" in m]
    assert len(lines) == 2, lines
    assert "does not carry out" in lines[0]
    assert why in lines[0]
    assert "again" in lines[1]


@contract("A request that may have reached the device is never sent twice")
def test_a_write_without_a_response_is_not_sent_again() -> None:
    with periodic(WRITE) as scene:
        scene.puppet.script.extend((answers(), resets(0.1)))
        scene.run_to(19)
        assert moments(scene) == [at(0), at(10)]
        scene.run_to(25)
        assert moments(scene) == [at(0), at(10), at(20)]


# ---- first ----------------------------------------------------------------------


def discarding(**settings: Any) -> Any:
    """Have a multiplexer that begins each connection with a read."""
    defaults: dict[str, Any] = {"settled": 0, "health_check_interval": 0}
    return stage(**defaults | settings, discard_first_read=True)


@contract(
    "each connection begins with a read of the multiplexer's own",
    "Everything else waits for it, writes too.",
)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"framing": "rtu"},
        {"framing": "solarman", "logger_serial": SERIAL},
        {"matching": "lenient"},
        {"max_in_flight": 4},
    ],
)
def test_each_connection_begins_with_a_read(settings: dict[str, Any]) -> None:
    with discarding(connect_on_demand=True, connect_delay=0.2, **settings) as scene:
        client, other = scene.hand(), scene.hand()
        scene.puppet.script.append(answers(0.4))
        scene.at(1, client.ask, sets(5))
        scene.at(1.1, other.ask, asks(7))
        scene.at(5, scene.puppet.reset, 1)
        scene.at(6, other.ask, asks(8))
        scene.run_to(10)
        assert [(a.line, a.body) for a in scene.puppet.asked] == [
            (1, FIRST),
            (1, sets(5)),
            (1, asks(7)),
            (2, asks(7)),
            (2, asks(8)),
        ]
        assert moments(scene)[:2] == [at(1.2), at(1.6)]
        assert [heard.body[1] for heard in client.heard + other.heard] == [6, 3, 3]
        assert scene.mux.snapshot().requests == 3


@contract("Its response is discarded: it is not cached, and no other read shares it.")
def test_its_response_is_discarded() -> None:
    with discarding(cache_ttl=60, connect_on_demand=True) as scene:
        client = scene.hand()
        scene.puppet.script.append(answers(0.4))
        scene.at(1, client.ask, FIRST)
        scene.at(1.2, client.ask, FIRST)
        scene.run_to(10)
        assert scene.puppet.asked == [(at(1), 1, FIRST), (at(1.4), 1, FIRST)]
        assert len(client.heard) == 2


@contract(
    "If there is none within 1.03 s, or half the timeout if that is less, the next "
    "request goes out, and neither the unit nor the health of the device"
)
@pytest.mark.parametrize(("timeout", "patience"), [(5.0, 1.03), (1.0, 0.5)])
def test_where_it_gets_no_response_the_next_request_goes_out(
    timeout: float, patience: float
) -> None:
    with discarding(timeout=timeout, connect_on_demand=True) as scene:
        client = scene.hand()
        for number in range(4):
            scene.puppet.script.extend((says_nothing, answers()))
            scene.at(10 * number + 1, client.ask, asks(number))
            scene.at(10 * number + 5, scene.puppet.reset, number + 1)
        scene.run_to(50)
        assert len(client.heard) == 4
        assert {heard.body[1] for heard in client.heard} == {3}
        assert moments(scene) == [
            at(10 * number + 1 + wait) for number in range(4) for wait in (0, patience)
        ]
        assert {health for _, health in scene.healths} <= {"healthy", "idle"}
        assert not scene.mux.snapshot().silent_units
        assert not scene.mux.snapshot().timeouts


@contract("nor an extra connection, is judged by that.")
def test_an_extra_connection_is_not_judged_by_it() -> None:
    with discarding(max_connections=2, timeout=10) as scene:
        one, two, three = hands = [scene.hand() for _ in range(3)]
        scene.run_to(0.5)
        scene.puppet.script.extend((answers(3), says_nothing))
        scene.at(1, one.ask, asks(1))
        scene.at(1, two.ask, asks(2))
        scene.at(1, three.ask, asks(3))
        scene.run_to(3)
        assert scene.puppet.asked == [
            (at(0), 1, FIRST),
            (at(1), 1, asks(1)),
            (at(1), 2, FIRST),
            (at(2.03), 2, asks(2)),
            (at(2.03), 1, asks(3)),  # beside what is overdue
        ]
        assert scene.mux.snapshot().connections == 2
        scene.run_to(5)
        assert [len(hand.heard) for hand in hands] == [1, 1, 1]


@contract("There is no such read where the rules permit none")
def test_there_is_none_where_the_rules_permit_none() -> None:
    with discarding(allowed_functions=(4, 6)) as scene:
        client = scene.hand()
        scene.at(1, client.ask, sets(1))
        scene.run_to(5)
        assert scene.puppet.asked == [(at(1), 1, sets(1))]


@contract("where the device is known to close each connection after its first response")
def test_there_is_none_where_a_connection_serves_one_request() -> None:
    def answers_and_closes(line: Line, tid: int, body: bytes) -> None:
        answers()(line, tid, body)
        line.later(SERVICE + 0.01, line.link.accepted.close)

    with discarding() as scene:
        client = scene.hand()
        scene.puppet.manners = answers_and_closes
        for moment in range(1, 20):
            scene.at(moment, client.ask, asks(moment))
        scene.run_to(30)
        assert len(client.heard) == 19
        assert [a.body for a in scene.puppet.asked if a.at > 9.5] == [
            asks(moment) for moment in range(10, 20)
        ]


@contract(
    "with RTU to its unit, until `quiet` after the latest moment at which its response "
    "is expected"
)
def test_a_line_stays_silent_behind_it() -> None:
    with discarding(framing="rtu", quiet=0.5, timeout=2) as scene:
        client = scene.hand()
        scene.puppet.script.append(answers(1.5))
        scene.at(1, client.ask, FIRST)
        scene.run_to(10)
        assert scene.puppet.asked == [(at(0), 1, FIRST), (at(2.5), 1, FIRST)]


@contract("nothing is sent, with RTU to its unit, until `quiet` after")
def test_it_waits_for_a_line_to_be_silent() -> None:
    with discarding(framing="rtu", quiet=1, timeout=2) as scene:
        client = scene.hand()
        scene.puppet.script.extend((answers(), says_nothing))
        scene.at(1, client.ask, asks(1))
        scene.at(3.2, scene.puppet.hang_up, 1)
        scene.at(3.3, client.ask, asks(2))
        scene.run_to(10)
        assert moments(scene) == [at(0), at(1), at(4), at(4.1)]


def test_every_test_quotes_the_contract() -> None:
    assert not unquoted(globals())
