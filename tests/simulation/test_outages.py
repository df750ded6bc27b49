"""Outages of every shape, drawn at random, which end though nobody asks anything.

A device does not just refuse connections and then accept them again: it reboots behind
a switch that stays up, accepts before it can answer, resets, or is back for a while.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
import enum
from random import Random
from typing import Any, override

import pytest

from custom_components.tcp_multiplexer.multiplexer import EventType

from .contract import contract, unquoted
from .device import HOST, PORT
from .network import Link, Refusal
from .stage import (
    Line,
    Reaction,
    Stage,
    answers,
    asks,
    hangs_up,
    resets,
    says_nothing,
    stage,
)

SEEDS = 30
BACKOFF, BACKOFF_MAX = 1.0, 30.0
SPEAKS: dict[str, dict[str, Any]] = {
    "tcp": {},
    "rtu": {"framing": "rtu"},
    "http": {"protocol": "http"},
}


def test_every_test_quotes_the_contract() -> None:
    assert not unquoted(globals())


class Shape(enum.Enum):
    """How a device may be away, or not."""

    UP = enum.auto()
    REFUSES = enum.auto()
    BLACK_HOLE = enum.auto()
    """It answers no attempt, and has forgotten the connections that it had."""
    CLOSES = enum.auto()
    """It accepts, and closes."""
    SILENT = enum.auto()
    """It accepts, and says nothing."""
    RESETS = enum.auto()
    """It accepts, and resets the connection at the first request."""


AWAY = tuple(shape for shape in Shape if shape is not Shape.UP)
REFUSALS = {Shape.REFUSES: Refusal.REFUSED, Shape.BLACK_HOLE: Refusal.IGNORED}
MANNERS = {Shape.SILENT: says_nothing, Shape.RESETS: resets(0.0)}


class Fickle:
    """A device that is away in turns."""

    def __init__(self, scene: Stage) -> None:
        """Take the place of the scene's own device."""
        self.scene = scene
        self.shape = Shape.UP
        self.lines: list[FickleLine] = []
        scene.network.hosts[HOST, PORT] = self._accept
        scene.network.syn_again = (1.0, 3.0)  # RFC 6298, with Linux's first second

    def become(self, shape: Shape) -> None:
        """Be in such a shape from now on."""
        self.shape = shape
        self.scene.puppet.manners = MANNERS.get(shape) or answers()
        for line in self.lines:
            if shape is Shape.BLACK_HOLE:
                line.forgotten = True
            elif shape is Shape.CLOSES:
                line.link.accepted.close()
            elif shape in {Shape.REFUSES, Shape.RESETS}:
                line.link.reset()

    def _accept(self, link: Link) -> asyncio.Protocol | Refusal:
        if self.shape in REFUSALS:
            return REFUSALS[self.shape]
        line = FickleLine(self, link)
        self.lines.append(line)
        return line


class FickleLine(Line):
    """A connection that it accepted."""

    def __init__(self, device: Fickle, link: Link) -> None:
        """Begin with nothing received."""
        super().__init__(device.scene, link, len(device.lines) + 1)
        self._device = device
        self.forgotten = False
        """The device was off since then: it resets what it hears from again."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._device.shape is Shape.CLOSES:
            self.link.accepted.close()

    @override
    def data_received(self, data: bytes) -> None:
        if not self.forgotten:
            super().data_received(data)
        elif self._device.shape is not Shape.BLACK_HOLE:
            self.link.reset()


def answers_only(known: bytes) -> Reaction:
    """Return the manners of a device that answers nothing but this."""

    def react(line: Line, tid: int, body: bytes) -> None:
        (answers() if body == known else says_nothing)(line, tid, body)

    return react


def by_number(first: int, these: Reaction, others: Reaction) -> Reaction:
    """Return manners that differ for the registers from the `first` of some on."""

    def react(line: Line, tid: int, body: bytes) -> None:
        (these if int.from_bytes(body[2:4]) >= first else others)(line, tid, body)

    return react


def life(speaks: str, **settings: Any) -> AbstractContextManager[Stage]:
    """Have a multiplexer that a health check tells of its device."""
    return stage(
        **SPEAKS[speaks],
        settled=0,
        reconnect_backoff=BACKOFF,
        reconnect_backoff_max=BACKOFF_MAX,
        health_check_interval=30,
        **settings,
    )


def happens(scene: Stage, begins: float, turns: list[tuple[Shape, float]]) -> float:
    """Let a device be away in turns; give when that has to be over for everybody."""
    device = Fickle(scene)
    back = begins
    for shape, seconds in turns:
        scene.at(back, device.become, shape)
        back += seconds
    scene.at(back, device.become, Shape.UP)
    return back + 2 + min(max((back - begins) / 5, BACKOFF), BACKOFF_MAX)


def outage(dice: Random) -> list[tuple[Shape, float]]:
    """Draw how a device is away in turns, and for how long each time (s)."""
    turns: list[tuple[Shape, float]] = []
    for _ in range(dice.choice((1, 1, 2, 3, 5))):
        turns.append((dice.choice(AWAY), 1800 ** dice.random()))
        if dice.random() < 0.5:
            turns.append((Shape.UP, 60 ** dice.random()))
    return turns


@contract(
    "Of whatever shape an outage is, at most 2 s and one backoff after the device is "
    "back for good it is over, though nobody asks anything.",
    "Within an outage, the time for which its connection was open counts towards that",
    "What got no response in an outage does not count after it, and a probe that got "
    "none counts until anything is answered.",
    "One that is opened after a probe without a response is probed at once too",
    "After a probe without a response, the reads that were answered once are repeated "
    "in turn until anything is answered, whether a circuit breaker is open or not.",
)
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("speaks", SPEAKS)
def test_an_outage_ends_in_time_though_nobody_asks(speaks: str, seed: int) -> None:
    dice = Random(f"{speaks} {seed}")
    with life(speaks) as scene:
        begins = dice.uniform(0, 60)
        over = happens(scene, begins, outage(dice))
        scene.run_to(over)
        assert scene.mux.health == "healthy"
        scene.run_to(over + 60)
        assert scene.mux.health != "unreachable"
        lost, back = EventType.UPSTREAM_LOST, EventType.UPSTREAM_BACK
        assert len(scene.told(lost)) == len(scene.told(back))


@contract(
    "the reads that were answered once are repeated in turn until anything is answered",
)
@pytest.mark.parametrize("unit", [3, 4])
def test_any_unit_that_was_known_shows_that_the_device_is_back(unit: int) -> None:
    with life("tcp") as scene:
        client = scene.hand()
        happens(scene, 5, [(Shape.REFUSES, 60), (Shape.SILENT, 300)])
        client.ask(asks(100, unit=3), asks(100, unit=4))
        scene.run_to(364)
        assert scene.mux.health == "unreachable"
        known = asks(100, unit)
        scene.at(365, setattr, scene.puppet, "manners", answers_only(known))
        scene.run_to(365 + 2 + BACKOFF_MAX)
        assert scene.mux.health == "healthy"
        assert scene.puppet.asked[-1].body == known


@contract(
    "With *connect on demand*, attempts are made only while a request waits; health is "
    "*idle* once the backoff has passed and none does.",
)
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("speaks", SPEAKS)
def test_an_outage_on_demand_leaves_nothing_behind(speaks: str, seed: int) -> None:
    dice = Random(f"{speaks} {seed} on demand")
    ask = b"GET /ask/%d\n" if speaks == "http" else None
    with life(speaks, connect_on_demand=True) as scene:
        client = scene.hand()
        client.ask(ask % 1 if ask else asks(1))
        begins = dice.uniform(1, 60)
        over = happens(scene, begins, outage(dice))
        scene.at(dice.uniform(begins, over), client.ask, ask % 2 if ask else asks(2))
        scene.run_to(over + 10)
        assert scene.mux.health in {"healthy", "idle"}
        client.ask(question := ask % 3 if ask else asks(3))
        scene.run_to(over + 20)
        assert client.heard[-1].body == scene.dialect.execute(question, 0.0)
        assert scene.mux.health == "healthy"


@contract("nor an end where the device hangs up at a request")
@pytest.mark.parametrize(
    ("settings", "most"), [(SPEAKS["tcp"], 0.1), (SPEAKS["rtu"], 2.0)]
)
def test_one_request_in_a_hundred_that_hangs_up_the_device_harms_no_other(
    settings: dict[str, Any], most: float
) -> None:
    """On a line, `quiet` follows the loss of what was in flight."""
    with stage(**settings) as scene:
        scene.puppet.manners = by_number(9000, hangs_up(0.02), answers(0.02))
        clients = [scene.hand() for _ in range(5)]
        asked: list[list[float]] = [[] for _ in clients]
        for number in range(1000):
            moment, who = number / 10, number % 4
            if number % 100 == 50:
                scene.at(moment, clients[4].ask, asks(9000 + number))
            else:
                scene.at(moment, clients[who].ask, asks(number))
                asked[who].append(moment)
        scene.run_to(110)
        for who, moments in enumerate(asked[:4]):
            bodies = [asks(round(moment * 10)) for moment in moments]
            right = [scene.dialect.execute(body, 0.0) for body in bodies]
            assert [heard.body for heard in clients[who].heard] == right
            waits = (h.at - m for h, m in zip(clients[who].heard, moments, strict=True))
            assert max(waits) < most
        assert not scene.told(EventType.UPSTREAM_LOST)
        assert "unreachable" not in {health for _, health in scene.healths}
