"""Reads that the device does not take whole: asked in parts, and answered whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, override

import pytest

from custom_components.tcp_multiplexer.multiplexer.profiles import PROFILES
from tests.solarman import SERIAL

from .clients import Temper
from .contract import contract
from .dialects import (
    CELLS_EACH,
    Ask,
    ModbusDialect,
    exception_of,
    read,
    read_cell,
    write_cell,
)
from .manners import Manners, Order
from .stage import (
    SERVICE,
    Line,
    Stage,
    answers,
    asks,
    at,
    excuse,
    resets,
    says_nothing,
    sets,
    stage,
)
from .test_sharing import Scripted
from .world import World

LONG = read(1, 3, 100, 50).body
FIRST, SECOND = read(1, 3, 100, 25).body, read(1, 3, 125, 25).body


def told(scene: Stage, body: bytes) -> bytes:
    """Give what the device tells of a read."""
    return scene.dialect.execute(body, 0.0)


def bodies(scene: Stage) -> list[bytes]:
    """Give what the device was asked."""
    return [asked.body for asked in scene.puppet.asked]


def refuses(line: Line, tid: int, body: bytes) -> None:
    """Answer with an exception."""
    line.later(SERVICE, line.say, line.stage.pack(tid, exception_of(body)))


def is_short(line: Line, tid: int, body: bytes) -> None:
    """Answer with a register less than were asked for."""
    answer = told(line.stage, body)
    short = answer[:2] + bytes((answer[2] - 2,)) + answer[3:-2]
    line.later(SERVICE, line.say, line.stage.pack(tid, short))


def is_wide(line: Line, tid: int, body: bytes) -> None:
    """Answer with registers of four bytes."""
    answer = told(line.stage, body)
    wide = answer[:2] + bytes((2 * answer[2],)) + 2 * answer[3:]
    line.later(SERVICE, line.say, line.stage.pack(tid, wide))


@contract(
    "A read of more than `max_read_registers`, or of 16 times as many coils or inputs, "
    "is asked in parts of so many, in order and on one connection, and answered whole",
)
@pytest.mark.parametrize(
    ("long", "parts"),
    [
        (LONG, [FIRST, SECOND]),
        (read(1, 4, 0, 25).body, [read(1, 4, 0, 25).body]),
        (read(1, 4, 7, 26).body, [read(1, 4, 7, 25).body, read(1, 4, 32, 1).body]),
        (read(1, 3, 0, 125).body, [read(1, 3, n, 25).body for n in range(0, 125, 25)]),
        (read(1, 1, 3, 400).body, [read(1, 1, 3, 400).body]),
        (read(1, 2, 3, 405).body, [read(1, 2, 3, 400).body, read(1, 2, 403, 5).body]),
        (
            read(1, 1, 0, 2000).body,
            [read(1, 1, n, 400).body for n in range(0, 2000, 400)],
        ),
    ],
)
def test_a_long_read_is_asked_in_parts(long: bytes, parts: list[bytes]) -> None:
    with stage(max_read_registers=25) as scene:
        client = scene.hand()
        scene.at(0, client.ask, long)
        scene.run_to(2)
        assert bodies(scene) == parts
        assert client.heard == [(at(len(parts) * SERVICE), 1, told(scene, long))]
        snapshot = scene.mux.snapshot()
        assert (snapshot.requests, snapshot.responses) == (1, 1)


@pytest.mark.parametrize("count", [50, 125])
def test_with_the_profile_for_growatt_long_reads_are_answered(count: int) -> None:
    with stage(**PROFILES["growatt"].settings) as scene:
        client = scene.hand()
        whole = read(1, 3, 0, count).body
        scene.at(0, client.ask, whole)
        scene.run_to(10)
        assert [body[4:] for body in bodies(scene)] == [b"\0\x19"] * (count // 25)
        parts = b"".join(told(scene, body)[3:] for body in bodies(scene))
        (heard,) = client.heard
        assert heard.body == bytes((1, 3, 2 * count)) + parts == told(scene, whole)
        asked = [asked.at for asked in scene.puppet.asked]
        assert asked == [at(0.6 * number) for number in range(count // 25)]


@contract(
    "It remains one exchange: between its parts nothing is sent on that connection but "
    "writes, so one request is in flight at a time.",
)
@pytest.mark.parametrize("request_delay", [0, 0.05])
def test_only_a_write_goes_between_the_parts(request_delay: float) -> None:
    with stage(
        max_read_registers=25, max_in_flight=4, request_delay=request_delay
    ) as scene:
        reader, other, third, writer = (scene.hand() for _ in range(4))
        scene.at(0, reader.ask, LONG, asks(1))
        scene.at(0.02, other.ask, asks(2), asks(3))
        scene.at(0.04, third.ask, asks(4))
        scene.at(0.06, writer.ask, sets(9))
        scene.run_to(2)
        rest = [asks(2), asks(4), asks(1), asks(3)]
        assert bodies(scene) == [FIRST, sets(9), SECOND, *rest]
        assert reader.heard[0].body == told(scene, LONG)


def test_the_parts_stay_on_one_connection() -> None:
    with stage(max_read_registers=25, max_connections=2, request_delay=0.05) as scene:
        reader, other = scene.hand(), scene.hand()
        scene.at(0, reader.ask, asks(1))
        scene.at(0.02, other.ask, asks(2))  # opens another
        scene.at(1, reader.ask, read(1, 3, 0, 100).body)  # while both are free
        scene.run_to(3)
        parts = [asked for asked in scene.puppet.asked if asked.body[5] == 25]
        assert len(parts) == 4
        assert len({asked.line for asked in parts}) == 1
        assert len({asked.line for asked in scene.puppet.asked}) == 2


def test_who_asks_in_parts_has_one_turn() -> None:
    with stage(max_read_registers=25) as scene:
        reader, other = scene.hand(), scene.hand()
        again = read(1, 3, 300, 50).body
        scene.at(0, reader.ask, LONG, again)
        scene.at(0.02, other.ask, asks(2), asks(3))
        scene.run_to(2)
        whose = [2 if body[5] == 1 else 1 for body in bodies(scene)]
        assert whose == [1, 1, 2, 1, 1, 2]


@contract("The first exception ends it and is passed on")
@pytest.mark.parametrize("number", [1, 2])
def test_the_first_exception_ends_it(number: int) -> None:
    with stage(max_read_registers=25, cache_ttl=60) as scene:
        client = scene.hand()
        scene.puppet.script += [answers()] * (number - 1) + [refuses]
        scene.at(0, client.ask, LONG)
        scene.run_to(2)
        parts = [FIRST, SECOND][:number]
        assert bodies(scene) == parts
        told_at = at(number * SERVICE)
        assert client.heard == [(told_at, 1, exception_of(parts[-1])[:3])]
        assert scene.mux.snapshot().exceptions == 1


@contract(
    "a part that does not bring just as many values as were asked for ends it with "
    "exception 0x0B.",
)
@pytest.mark.parametrize(
    ("matching", "reaction"), [("strict", is_short), ("lenient", is_wide)]
)
def test_what_does_not_fit_together_is_no_answer(matching: str, reaction: Any) -> None:
    with stage(max_read_registers=25, matching=matching) as scene:
        client, other = scene.hand(), scene.hand()
        scene.puppet.script += [answers(), reaction]
        scene.at(0, client.ask, LONG)
        scene.at(0.05, other.ask, asks(1))
        scene.run_to(10)
        assert [heard.body for heard in client.heard] == [excuse(LONG, 0x0B)]
        assert [heard.body for heard in other.heard] == [told(scene, asks(1))]
        assert scene.mux.snapshot().in_flight == 0


@contract("answered whole, within its deadline.")
@pytest.mark.parametrize("framing", ["tcp", "rtu"])
def test_the_deadline_is_that_of_the_whole(framing: str) -> None:
    with stage(max_read_registers=25, timeout=2, framing=framing) as scene:
        client = scene.hand()
        scene.puppet.script += [answers(0.9), says_nothing]
        scene.at(0, client.ask, read(1, 3, 0, 75).body)
        scene.run_to(10)
        assert client.heard == [(at(2), 1, excuse(LONG, 0x0B))]
        assert len(bodies(scene)) == 2


def test_a_part_that_waits_at_the_deadline_is_given_up() -> None:
    with stage(max_read_registers=25, timeout=1, request_delay=0.8) as scene:
        client = scene.hand()
        scene.at(0, client.ask, read(1, 3, 0, 75).body)
        scene.at(1.5, client.ask, asks(1))
        scene.run_to(10)
        assert client.heard[0][:2] == (at(1), 1)
        assert client.heard[1].body == told(scene, asks(1))


@contract("If its client leaves, the rest is not asked.")
@pytest.mark.parametrize("moment", [0.05, 0.12])
def test_the_rest_is_not_asked_for_who_has_left(moment: float) -> None:
    with stage(max_read_registers=25, request_delay=0.05) as scene:
        client, other = scene.hand(), scene.hand()
        scene.at(0, client.ask, LONG)
        scene.at(moment, client.leave)
        scene.at(0.5, other.ask, asks(1))
        scene.run_to(2)
        assert bodies(scene) == [FIRST, asks(1)]
        assert other.heard == [(at(0.6), 1, told(scene, asks(1)))]
        assert scene.mux.snapshot().queue_depth == 0


def test_who_joined_it_has_the_rest_asked_for_itself() -> None:
    with stage(max_read_registers=25) as scene:
        client, other = scene.hand(), scene.hand()
        scene.at(0, client.ask, LONG)
        scene.at(0.02, other.ask, LONG)
        scene.at(0.05, client.leave)
        scene.run_to(2)
        assert bodies(scene) == [FIRST, FIRST, SECOND]
        assert other.heard == [(at(0.3), 1, told(scene, LONG))]


def test_a_part_is_sent_once_more_when_its_connection_is_lost() -> None:
    with stage(max_read_registers=25) as scene:
        client = scene.hand()
        scene.puppet.script += [answers(), resets(0.05)]
        scene.at(0, client.ask, LONG)
        scene.run_to(2)
        assert [(asked.line, asked.body) for asked in scene.puppet.asked] == [
            (1, FIRST),
            (1, SECOND),
            (2, SECOND),
        ]
        assert client.heard == [(at(0.25), 1, told(scene, LONG))]


def test_but_only_one_is() -> None:
    with stage(max_read_registers=25) as scene:
        client = scene.hand()
        scene.puppet.script += [answers(), resets(0.05), resets(0.05)]
        scene.at(0, client.ask, LONG)
        scene.run_to(2)
        assert bodies(scene) == [FIRST, SECOND, SECOND]
        assert client.heard == [(at(0.2), 1, excuse(LONG, 0x0B))]


def test_a_connection_that_ends_between_two_parts_is_replaced() -> None:
    with stage(max_read_registers=25, request_delay=0.3) as scene:
        client, other = scene.hand(), scene.hand()
        scene.at(0, client.ask, LONG)
        scene.at(0.05, other.ask, asks(1))
        scene.at(0.2, scene.puppet.hang_up, 1)
        scene.run_to(3)
        assert bodies(scene) == [FIRST, SECOND, asks(1)]
        assert client.heard[0].body == told(scene, LONG)
        assert [asked.line for asked in scene.puppet.asked] == [1, 2, 2]


def test_one_that_is_overdue_keeps_nobody_waiting() -> None:
    with stage(max_read_registers=25, timeout=5) as scene:
        client, other = scene.hand(), scene.hand()
        scene.puppet.script += [answers(), answers(2.0)]
        scene.at(0, client.ask, LONG)
        scene.at(0.05, other.ask, asks(1))
        scene.run_to(10)
        assert bodies(scene) == [FIRST, SECOND, asks(1)]
        assert other.heard == [(at(1.23), 1, told(scene, asks(1)))]
        assert client.heard == [(at(2.1), 1, told(scene, LONG))]


def test_a_silent_part_is_soon_asked_only_now_and_then() -> None:
    """Its unit answers, and so do the other parts."""
    with stage(max_read_registers=25, timeout=1, health_check_interval=0) as scene:
        client = scene.hand()
        scene.puppet.manners = lambda line, tid, body: (
            None if body == SECOND else answers()(line, tid, body)
        )
        for moment in range(0, 40, 2):
            scene.at(moment, client.ask, LONG)
            scene.at(moment + 1.5, client.ask, FIRST)
        scene.run_to(42)
        heard = [heard.body for heard in client.heard]
        assert heard.count(told(scene, FIRST)) == 20
        assert heard.count(excuse(LONG, 0x0B)) == 20
        assert scene.mux.snapshot().silent_units == ()
        assert bodies(scene).count(FIRST) == 40
        assert bodies(scene).count(SECOND) < 8


@contract(
    "It is not one instant",
    "The parts are cached as the reads that they are, and the whole from when the "
    "first part was asked.",
)
def test_parts_and_whole_are_remembered() -> None:
    with stage(max_read_registers=25, cache_ttl=1) as scene:
        client = scene.hand()
        scene.at(0, client.ask, LONG)
        within, across = read(1, 3, 127, 3).body, read(1, 3, 124, 2).body
        for moment in (0.5, 0.95):
            scene.at(moment, client.ask, LONG)
        scene.at(0.6, client.ask, within)
        scene.at(0.7, client.ask, across)
        scene.at(1.05, client.ask, within)
        scene.run_to(1.3)
        assert bodies(scene) == [FIRST, SECOND, across]
        scene.at(2, client.ask, LONG)
        scene.run_to(3)
        assert all(
            heard.body == told(scene, asked)
            for heard, asked in zip(
                client.heard,
                (LONG, LONG, within, across, LONG, within, LONG),
                strict=True,
            )
        )


def test_no_read_joins_what_is_asked_in_parts_but_an_identical_one() -> None:
    """Across two parts, values may be torn that a read of its own would not tear."""
    with stage(max_read_registers=25) as scene:
        first, second, third = (scene.hand() for _ in range(3))
        across = read(1, 3, 124, 2).body
        scene.at(0, first.ask, LONG)
        scene.at(0.02, second.ask, LONG)
        scene.at(0.03, third.ask, across)
        scene.run_to(1)
        assert bodies(scene) == [FIRST, SECOND, across]
        assert second.heard == [(at(0.2), 1, told(scene, LONG))]
        assert third.heard == [(at(0.3), 1, told(scene, across))]


def test_a_write_between_the_parts_forbids_to_share_them() -> None:
    with stage(max_read_registers=25, cache_ttl=60) as scene:
        first, writer, third = (scene.hand() for _ in range(3))
        scene.at(0, first.ask, LONG)
        scene.at(0.05, writer.ask, sets(9))
        scene.at(0.22, third.ask, LONG)
        scene.at(1, third.ask, LONG)
        scene.run_to(2)
        twice = [FIRST, SECOND]
        assert bodies(scene) == [FIRST, sets(9), SECOND, *twice]


@contract(
    "Reads with function 23 cannot be asked in parts, because they write: those that "
    "are too long are refused.",
)
def test_what_writes_too_is_refused() -> None:
    both = b"\1\x17\0\7\0\x33\x50\0\0\2\4abcd"
    with stage(max_read_registers=50) as scene:
        client = scene.hand()
        scene.at(0, client.ask, both)
        scene.run_to(1)
        assert client.heard == [(at(0), 1, excuse(both, 0x03))]
        assert not scene.puppet.asked


def test_a_limit_counts_for_what_is_asked_from_then_on() -> None:
    with stage() as scene:
        client = scene.hand()
        scene.at(0, client.ask, LONG)
        scene.run_to(0.05)
        limited = replace(scene.mux.settings, max_read_registers=25)
        assert scene.run(scene.mux.apply(limited))
        scene.at(0.5, client.ask, LONG)
        scene.run_to(1)
        assert bodies(scene) == [LONG, FIRST, SECOND]
        assert [heard.body for heard in client.heard] == 2 * [told(scene, LONG)]


def test_a_part_is_known_to_be_answered() -> None:
    with stage(max_read_registers=25, health_check_interval=10) as scene:
        client = scene.hand()
        scene.at(0, client.ask, LONG)
        scene.run_to(15)
        assert bodies(scene) == [FIRST, SECOND, SECOND]


def test_a_longer_read_is_no_probe_any_more() -> None:
    with stage(health_check_interval=10) as scene:
        client = scene.hand()
        scene.at(0, client.ask, LONG)
        scene.run_to(1)
        scene.run(scene.mux.apply(replace(scene.mux.settings, max_read_registers=25)))
        scene.run_to(15)
        assert bodies(scene) == [LONG, asks(0)]


@pytest.mark.parametrize(
    "settings",
    [
        {"framing": "rtu"},
        {"framing": "solarman", "logger_serial": SERIAL},
        {"matching": "lenient"},
    ],
)
def test_it_does_not_matter_how_the_device_frames(settings: dict[str, Any]) -> None:
    with stage(**settings, max_read_registers=25) as scene:
        client = scene.hand()
        scene.at(0, client.ask, LONG)
        scene.run_to(1)
        assert bodies(scene) == [FIRST, SECOND]
        assert [heard.body for heard in client.heard] == [told(scene, LONG)]


def test_the_host_program_is_answered_whole_too() -> None:
    with stage(max_read_registers=25) as scene:
        assert scene.run(scene.mux.request(LONG)) == told(scene, LONG)
        assert bodies(scene) == [FIRST, SECOND]


class Editor(Scripted):
    """Writes cells, and reads several in a row, more than the device takes at once."""

    written = 0

    @override
    def think_of(self) -> Ask:
        unit, cell = self.rng.randrange(1, 3), self.rng.randrange(8)
        if self.rng.random() < 0.2:
            Editor.written += 1
            return write_cell(unit, cell, Editor.written.to_bytes(4))
        return read_cell(unit, cell, self.rng.randrange(1, CELLS_EACH - cell + 1))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "settings",
    [{}, {"cache_ttl": 0.2}, {"max_connections": 3}, {"framing": "rtu"}],
    ids=str,
)
def test_no_read_gives_what_a_write_has_replaced(
    settings: dict[str, Any], seed: int
) -> None:
    """Each value was there at some time between question and answer."""
    manners = Manners(service=(0.001, 0.02), order=Order.GLOBAL)
    with World(
        f"split {seed}", manners=manners, max_read_registers=10, **settings
    ) as world:
        assert isinstance(world.dialect, ModbusDialect)
        world.dialect.atomic = False
        world.start()
        for number in range(1, 7):
            world.client(Editor, number, Temper(depth=1 + number % 3))
        world.run_for(8.0)
        snapshot = world.mux.snapshot()
        world.stop()
        assert snapshot.responses > 200
        assert snapshot.reads_shared
