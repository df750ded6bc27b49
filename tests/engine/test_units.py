"""What is known of each unit of the device."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from custom_components.tcp_multiplexer.multiplexer.dispatch.known_reads import (
    KnownReads,
)
from custom_components.tcp_multiplexer.multiplexer.dispatch.queue import RequestQueue
from custom_components.tcp_multiplexer.multiplexer.dispatch.timer import Timer
from custom_components.tcp_multiplexer.multiplexer.dispatch.units import Units
from custom_components.tcp_multiplexer.multiplexer.observe.events import Events
from custom_components.tcp_multiplexer.multiplexer.protocols.base import Failure

from .clock import Clock
from .connections import Unused
from .test_queue import Asker, put, queue_of, taken, write


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Have a clock instead of an event loop."""
    clock = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    return clock


def units_of(queue: RequestQueue, timeout: float = 5.0) -> Units:
    """Return units of a device whose requests time out after so long."""
    timer = Timer(lambda _: None)
    return Units(queue, timer, timeout, KnownReads(), lambda *_: "", Events(), "device")


def answered(units: Units, unit: int, took: float) -> None:
    """Have a unit answer after so long, at 100."""
    exchange = write(Asker(), unit)
    exchange.sent = 100 - took
    units.answered(Unused(), exchange, 100)


def left(seconds: float) -> Any:
    """Return a request to unit 1 that has so long until its deadline, at 100."""
    exchange = write(Asker(), 1)
    exchange.deadline = 100 + seconds
    return exchange


@pytest.mark.usefixtures("clock")
def test_only_units_that_were_slow_are_watched_until_they_are_no_more() -> None:
    units = units_of(RequestQueue(8))
    answered(units, 1, 0.249)
    assert not units.times.watched
    answered(units, 2, 0.251)
    assert units.times.watched.keys() == {2}
    units.times.watched.clear()
    answered(units, 1, 3.0)
    assert units.times.watched.keys() == {1}
    for _ in range(15):
        answered(units, 1, 0.1)
    assert units.times.watched
    answered(units, 1, 0.1)
    assert not units.times.watched


@pytest.mark.usefixtures("clock")
def test_units_that_are_watched_are_bounded() -> None:
    units = units_of(RequestQueue(8))
    for unit in range(1000):
        answered(units, unit, 1.0)
    assert len(units.times.watched) == 256


@pytest.mark.usefixtures("clock")
def test_too_late_is_less_than_the_median() -> None:
    units = units_of(RequestQueue(8))
    assert units.verdict(left(0.0), 100) is None  # nothing is known
    for took in (0.5, 2.0, 0.7):
        answered(units, 1, took)
    assert units.verdict(left(0.69), 100) is Failure.BUSY
    assert units.verdict(left(0.71), 100) is None


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("slowest", "needed"), [(0.0, 2.5), (2.0, 2.5), (4.0, 4.0), (4.9, 4.5)]
)
def test_a_fair_time_is_half_of_all_or_as_long_as_the_slowest(
    slowest: float, needed: float
) -> None:
    units = units_of(RequestQueue(8))
    if slowest:
        answered(units, 1, slowest)
    exchange = left(1.0)
    exchange.arrived = 96.0
    upstream = Unused()
    for sent, fair in ((101 - needed, True), (101 - needed + 0.01, False)):
        exchange.sent = sent
        assert units.fair(upstream, exchange, 101) is fair


@pytest.mark.usefixtures("clock")
def test_more_than_half_the_timeout_is_never_too_late() -> None:
    """Else a unit that once was slower would never be asked again."""
    units = units_of(RequestQueue(8), timeout=5.0)
    answered(units, 1, 4.0)
    assert units.verdict(left(2.4), 100) is Failure.BUSY
    assert units.verdict(left(2.6), 100) is None


def test_held_units_are_let_go_when_it_is_time(clock: Clock) -> None:
    queue, a, b = queue_of("a", "b")
    units = units_of(queue)
    units.hold(1, clock.time() + 2)
    units.hold(1, clock.time() + 1)  # the longer one counts
    units.hold(2, clock.time() + 3)
    put(queue, write(a, 1), write(b, 2))
    units.release(clock.time() + 1)
    assert not taken(queue)
    assert units.next_moment() == clock.time() + 2
    units.release(clock.time() + 2)
    assert taken(queue) == "a"
    assert units.held.keys() == {2}


@pytest.mark.usefixtures("clock")
def test_too_late_is_what_may_not_be_sent_before_its_deadline() -> None:
    units = units_of(RequestQueue(8))
    units.hold(1, 105.0)
    assert units.verdict(left(4.9), 100) is Failure.BUSY
    assert units.verdict(left(5.1), 100) is None


def test_active_while_a_unit_is_watched_or_held(clock: Clock) -> None:
    units = units_of(RequestQueue(8))
    seen = [units.active]
    units.hold(1, clock.time() + 1)
    seen.append(units.active)
    answered(units, 2, 1.0)
    units.release(clock.time() + 1)
    seen.append(units.active)
    for _ in range(16):
        answered(units, 2, 0.1)
    assert [*seen, units.active] == [False, True, True, False]
