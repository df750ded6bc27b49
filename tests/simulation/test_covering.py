"""Reads that cover others: what that gains, and that it shows nobody an older value."""

from __future__ import annotations

from typing import Any, override

import pytest

from custom_components.tcp_multiplexer.multiplexer import Framing, ListenerSettings
from tests.engine.serial_line import with_crc
from tests.solarman import SERIAL

from .clients import Temper
from .contract import contract
from .dialects import CELLS_EACH, Ask, exception_of, read, read_cell, write_cell
from .manners import Manners, Order
from .stage import SERVICE, Line, answers, asks, at, excuse, says_nothing, sets, stage
from .test_sharing import Scripted
from .world import World

WHOLE = read(1, 3, 100, 110).body
PIECE = read(1, 3, 150, 2).body
BITS = read(1, 1, 100, 300).body
ODD_BITS = read(1, 1, 103, 13).body


def told(scene: Any, body: bytes) -> bytes:
    """Give what the device tells of a read."""
    answer: bytes = scene.dialect.execute(body, 0.0)
    return answer


def refuses(line: Line, tid: int, body: bytes) -> None:
    """Answer with an exception."""
    line.later(SERVICE, line.say, line.stage.pack(tid, exception_of(body)))


def is_short(line: Line, tid: int, body: bytes) -> None:
    """Answer with two registers less than were asked for."""
    answer = told(line.stage, body)
    short = answer[:2] + bytes((answer[2] - 4,)) + answer[3:-4]
    line.later(SERVICE, line.say, line.stage.pack(tid, short))


@contract(
    "So does a read of functions 1 to 4 join one that covers it, of the same unit and "
    "function: registers are cut from its response, coils and inputs packed anew.",
)
@pytest.mark.parametrize(
    ("whole", "piece"),
    [
        (WHOLE, PIECE),
        (WHOLE, read(1, 3, 100, 1).body),
        (WHOLE, read(1, 3, 209, 1).body),
        (WHOLE, read(1, 3, 100, 109).body),
        (read(1, 4, 0, 10).body, read(1, 4, 5, 5).body),
        (BITS, ODD_BITS),
        (BITS, read(1, 1, 100, 1).body),
        (BITS, read(1, 1, 399, 1).body),
        (read(1, 2, 7, 16).body, read(1, 2, 8, 15).body),
    ],
)
def test_a_read_joins_one_that_covers_it(whole: bytes, piece: bytes) -> None:
    with stage() as scene:
        first, second, third = (scene.hand() for _ in range(3))
        scene.at(0, first.ask, asks(1), whole)
        scene.at(0.05, second.ask, piece)  # it is pending
        scene.at(0.15, third.ask, piece)  # it is in flight
        scene.run_to(1)
        assert [asked.body for asked in scene.puppet.asked] == [asks(1), whole]
        assert second.heard == [(at(0.2), 1, told(scene, piece))]
        assert third.heard == [(at(0.2), 1, told(scene, piece))]
        assert scene.mux.snapshot().reads_shared == 2


@pytest.mark.parametrize(
    "other",
    [
        read(1, 3, 99, 2),
        read(1, 3, 209, 2),
        read(1, 3, 99, 112),
        read(1, 4, 150, 2),
        read(2, 3, 150, 2),
    ],
)
def test_a_read_joins_none_that_does_not_cover_it(other: Ask) -> None:
    with stage(cache_ttl=60) as scene:
        first, second = scene.hand(), scene.hand()
        scene.at(0, first.ask, WHOLE)
        scene.at(0.05, second.ask, other.body)
        scene.at(0.5, second.ask, read(1, 3, 90, 10).body)
        scene.run_to(1)
        assert len(scene.puppet.asked) == 3
        assert second.heard[0].body == told(scene, other.body)


@contract(
    "It is asked for itself if that response is an exception, or does not bring just "
    "as many values as were asked for.",
)
@pytest.mark.parametrize("reaction", [refuses, is_short])
def test_a_read_gets_nothing_of_a_response_that_is_not_whole(reaction: Any) -> None:
    with stage(cache_ttl=60) as scene:
        first, second, third = (scene.hand() for _ in range(3))
        scene.puppet.script.append(reaction)
        scene.at(0, first.ask, WHOLE)
        scene.at(0.02, second.ask, PIECE)
        scene.at(0.03, third.ask, read(1, 3, 149, 4).body)
        scene.run_to(1)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [WHOLE, read(1, 3, 149, 4).body]
        assert second.heard == [(at(0.2), 1, told(scene, PIECE))]
        assert third.heard == [(at(0.2), 1, told(scene, read(1, 3, 149, 4).body))]


@contract("A response is never put together from two")
def test_a_read_gets_nothing_of_two_responses() -> None:
    with stage(cache_ttl=60) as scene:
        client = scene.hand()
        scene.at(0, client.ask, read(1, 3, 0, 10).body, read(1, 3, 10, 11).body)
        scene.at(0.5, client.ask, read(1, 3, 9, 2).body)
        scene.run_to(1)
        assert len(scene.puppet.asked) == 3


@contract("unless a write to that unit is pending or in flight")
def test_a_read_joins_no_wider_one_across_a_write() -> None:
    with stage(writes_first=False, cache_ttl=60) as scene:
        first, second, third = (scene.hand() for _ in range(3))
        scene.at(0, first.ask, WHOLE)
        scene.at(0.02, second.ask, sets(9))
        scene.at(0.04, third.ask, PIECE)
        scene.at(0.5, first.ask, WHOLE)
        scene.run_to(1)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [WHOLE, sets(9), PIECE, WHOLE]


@contract("So is one whose own client writes something while it waits")
def test_a_read_that_follows_a_wider_one_is_not_overtaken_by_its_clients_write() -> (
    None
):
    with stage() as scene:
        first, second = scene.hand(), scene.hand()
        scene.at(0, first.ask, WHOLE)
        scene.at(0.02, second.ask, PIECE)
        scene.at(0.04, second.ask, sets(9))
        scene.run_to(1)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [WHOLE, PIECE, sets(9)]


@contract("A read that joined another has a deadline of its own.")
def test_a_read_that_follows_a_wider_one_asks_itself_when_that_is_overdue() -> None:
    with stage(timeout=4) as scene:
        first, second, third = (scene.hand() for _ in range(3))
        scene.puppet.script.append(says_nothing)
        scene.at(0, first.ask, WHOLE)
        scene.at(0.5, second.ask, PIECE)
        scene.at(0.6, third.ask, read(1, 3, 151, 1).body)
        scene.run_to(5)
        assert first.heard == [(at(4), 1, excuse(WHOLE, 0x0B))]
        assert [asked.body for asked in scene.puppet.asked] == [WHOLE, PIECE]
        assert second.heard == [(at(1.13), 1, told(scene, PIECE))]
        assert third.heard[0].at == at(1.13)


def test_those_that_one_led_ask_for_themselves_as_few_as_can() -> None:
    """The wider ones lead the others, whoever came first."""
    pieces = [read(1, 3, *where).body for where in ((151, 1), (150, 9), (120, 4))]
    with stage() as scene:
        other, first, *others = (scene.hand() for _ in range(5))
        scene.at(0, other.ask, asks(1))
        scene.at(0.01, first.ask, WHOLE)
        for client, piece in zip(others, pieces, strict=True):
            scene.at(0.02, client.ask, piece)
        scene.at(0.05, first.leave)
        scene.run_to(1)
        bodies = [asked.body for asked in scene.puppet.asked]
        assert bodies == [asks(1), pieces[1], pieces[2]]
        for client, piece in zip(others, pieces, strict=True):
            assert [heard.body for heard in client.heard] == [told(scene, piece)]


@contract(
    "With `cache_ttl`, a response answers identical reads, and those that it covers, for "
    "that time after it was asked for.",
)
def test_a_response_answers_for_its_time_what_it_covers() -> None:
    with stage(cache_ttl=2) as scene:
        client = scene.hand()
        scene.at(0, client.ask, WHOLE, BITS)
        for moment in (1.95, 1.99, 2.01):
            scene.at(moment, client.ask, PIECE)
        scene.at(1, client.ask, ODD_BITS)
        scene.run_to(5)
        told_at = [heard.at for heard in client.heard if heard.tid > 2]
        assert told_at == [at(1), at(1.95), at(1.99), at(2.11)]
        assert len(scene.puppet.asked) == 3
        assert client.heard[2].body == told(scene, ODD_BITS)
        assert scene.mux.snapshot().reads_cached == 3


def test_a_read_of_the_cache_is_not_known_to_be_answered() -> None:
    """Some devices have values that they do not give in pieces: none is a probe."""
    with stage(cache_ttl=2, health_check_interval=10) as scene:
        client = scene.hand()
        scene.at(0, client.ask, WHOLE)
        scene.at(0.5, client.ask, PIECE)
        scene.run_to(15)
        assert [asked.body for asked in scene.puppet.asked] == [WHOLE, WHOLE]


@pytest.mark.parametrize(
    "settings",
    [{}, {"framing": "rtu"}, {"framing": "solarman", "logger_serial": SERIAL}],
)
def test_it_does_not_matter_how_the_device_frames(settings: dict[str, Any]) -> None:
    with stage(**settings, cache_ttl=1) as scene:
        first, second = scene.hand(), scene.hand()
        scene.at(0, first.ask, WHOLE)
        scene.at(0.02, second.ask, PIECE)
        scene.at(0.5, second.ask, read(1, 3, 209, 1).body)
        scene.run_to(1)
        assert len(scene.puppet.asked) == 1
        assert second.heard[0] == (at(0.1), 1, told(scene, PIECE))
        assert second.heard[1].body == told(scene, read(1, 3, 209, 1).body)


def test_it_does_not_matter_how_clients_frame() -> None:
    rtu = ListenerSettings(host="127.0.0.1", port=5021, framing=Framing.RTU)
    with stage(more_listeners=(rtu,)) as scene:
        first, second = scene.hand(), scene.hand(1)
        heard = bytearray()
        second.data_received = heard.extend  # type: ignore[method-assign, assignment]
        scene.at(0, first.ask, WHOLE)
        scene.at(0.02, second.send, with_crc(PIECE))
        scene.run_to(1)
        assert len(scene.puppet.asked) == 1
        assert bytes(heard) == with_crc(told(scene, PIECE))


def test_wider_registers_than_were_asked_for_are_not_cut() -> None:
    """Some devices have registers of four bytes: which is which, nobody knows."""

    def is_wide(line: Line, tid: int, body: bytes) -> None:
        answer = told(line.stage, body)
        wide = answer[:2] + bytes((2 * answer[2],)) + 2 * answer[3:]
        line.later(SERVICE, line.say, line.stage.pack(tid, wide))

    whole = read(1, 3, 100, 20).body
    with stage(matching="lenient", cache_ttl=60) as scene:
        first, second = scene.hand(), scene.hand()
        scene.puppet.script += [answers(), is_wide]
        scene.at(0, first.ask, asks(1), whole)
        scene.at(0.12, second.ask, read(1, 3, 105, 2).body)
        scene.run_to(1)
        assert len(first.heard[1].body) == 3 + 80
        assert [asked.body for asked in scene.puppet.asked][1:] == [
            whole,
            read(1, 3, 105, 2).body,
        ]


# ---- what it gains --------------------------------------------------------------


class Wide(Scripted):
    """Reads 110 registers."""

    @override
    def think_of(self) -> Ask:
        return read(1, 3, 100, 110)


class Narrow(Scripted):
    """Reads pieces of them."""

    @override
    def think_of(self) -> Ask:
        first = self.rng.randrange(100, 200)
        return read(1, 3, first, self.rng.randrange(1, 211 - first))


@pytest.mark.parametrize("seed", range(3))
def test_who_reads_pieces_costs_the_device_nothing(seed: int) -> None:
    """Eight clients make it no more than 1.1 requests a second."""
    manners = Manners(service=(0.02, 0.03))
    seconds = 60.0
    with World(f"pieces {seed}", manners=manners, cache_ttl=1.0) as world:
        world.start()
        world.client(Wide, 1, Temper(think=(1.0, 1.0)))
        world.run_for(0.5)
        narrow = [
            world.client(Narrow, number, Temper(think=(0.1, 1.9)))
            for number in range(2, 9)
        ]
        world.run_for(seconds)
        world.stop()
        assert sum(client.answers for client in narrow) > 5 * seconds
        assert len(world.device.received) <= 1.1 * seconds


@contract(
    "A read that is not answered so, though one that covers it was answered lately, joins "
    "that: it is asked in its place.",
    "So who reads pieces of what another polls costs the device nothing, whenever the two "
    "ask.",
)
@pytest.mark.parametrize("pause", [0.999, 1.0, 1.001, 1.1])
def test_pieces_are_read_whole_between_two_polls(pause: float) -> None:
    with stage(cache_ttl=1) as scene:
        wide, rng = scene.hand(), scene.rng("pieces")
        narrow = [scene.hand() for _ in range(7)]
        for poll in range(30):
            scene.at(pause * poll, wide.ask, WHOLE)
        for client in narrow:
            for moment in range(1, 30):
                scene.at(moment + rng.random(), client.ask, PIECE)
        scene.run_to(33)
        assert {asked.body for asked in scene.puppet.asked} == {WHOLE}
        assert len(scene.puppet.asked) <= 1.05 * 30
        assert len(wide.heard) == 30
        for client in narrow:
            assert [heard.body for heard in client.heard] == [told(scene, PIECE)] * 29


@contract("A client must have asked it within the last two such times")
def test_nothing_is_read_whole_for_a_client_that_left() -> None:
    with stage(cache_ttl=1) as scene:
        wide, narrow = scene.hand(), scene.hand()
        scene.at(0, wide.ask, WHOLE)
        for moment in (0.5, 1.9, 2.95, 4):
            scene.at(moment, narrow.ask, PIECE)
        scene.run_to(5)
        bodies = [(asked.at, asked.body) for asked in scene.puppet.asked]
        assert bodies == [
            (at(0), WHOLE),
            (at(1.9), WHOLE),
            (at(2.95), PIECE),
            (at(4), PIECE),
        ]


@contract(
    "One such read waits or is in flight at a time; if it brings no whole response"
)
def test_a_piece_is_asked_for_itself_if_the_whole_fails_meanwhile() -> None:
    with stage(cache_ttl=1) as scene:
        wide, narrow, other, another = (scene.hand() for _ in range(4))
        scene.at(0, wide.ask, WHOLE, BITS)
        scene.run_to(1.4)
        scene.puppet.asked.clear()
        scene.puppet.manners = refuses
        scene.at(1.5, narrow.ask, PIECE)
        scene.at(1.52, other.ask, ODD_BITS)  # the other whole is not asked beside it
        scene.at(1.55, another.ask, PIECE)
        scene.run_to(1.58)
        scene.puppet.manners = answers()
        scene.run_to(3)
        asked = [asked.body for asked in scene.puppet.asked]
        assert asked == [WHOLE, ODD_BITS, PIECE]
        for client in (narrow, another):
            assert [heard.body for heard in client.heard] == [told(scene, PIECE)]
        snapshot = scene.mux.snapshot()
        assert (snapshot.requests, snapshot.reads_shared) == (6, 1)


# ---- and that it shows nobody an older value ------------------------------------


class Editor(Scripted):
    """Writes cells, and reads what was written, of each unit several in a row."""

    written = 0

    @override
    def think_of(self) -> Ask:
        unit, cell = self.rng.randrange(1, 3), self.rng.randrange(8)
        if self.rng.random() < 0.2:
            Editor.written += 1
            return write_cell(unit, cell, Editor.written.to_bytes(4))
        return read_cell(unit, cell, self.rng.randrange(1, CELLS_EACH - cell + 1))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"share_reads": False, "cache_ttl": 0.5},
        {"cache_ttl": 0.5},
        {"max_in_flight": 8},
        {"max_connections": 3},
        {"writes_first": False, "cache_ttl": 0.2, "max_connections": 2},
        {"framing": "rtu", "cache_ttl": 0.2},
    ],
    ids=str,
)
def test_no_read_gives_what_a_write_has_replaced(
    settings: dict[str, Any], seed: int
) -> None:
    """Each read is one instant between its question and its answer."""
    manners = Manners(service=(0.001, 0.01), dawdle=(0.0, 0.03), order=Order.PARALLEL)
    if settings.get("framing") == "rtu":
        manners.order = Order.GLOBAL
    with World(f"cover {seed}", manners=manners, **settings) as world:
        world.start()
        for number in range(1, 7):
            world.client(Editor, number, Temper(depth=1 + number % 3))
        world.run_for(8.0)
        snapshot = world.mux.snapshot()
        world.stop()
        assert snapshot.responses > 300
        if settings.get("share_reads", True):
            assert snapshot.reads_shared
        if settings.get("cache_ttl"):
            assert snapshot.reads_cached
