"""One timer for many moments."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from custom_components.tcp_multiplexer.multiplexer.dispatch.timer import Timer

from .clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Have a clock instead of an event loop."""
    clock = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    return clock


def test_rings_once_at_the_earliest_moment(clock: Clock) -> None:
    rung: list[float] = []
    timer = Timer(rung.append)
    for at in (1005, 1002, 1003):
        timer.set(at)
        assert len(clock.waiting) == 1
    assert timer.at == 1002
    clock.advance(10)
    assert rung == [1002]
    assert timer.at == inf


def test_never_rings_before_its_moment(clock: Clock) -> None:
    """The loop may ring a little early; who asks the time must find things due."""
    rung: list[float] = []

    def ring(now: float) -> None:
        assert clock.time() < 1002
        rung.append(now)

    Timer(ring).set(1002)
    clock.advance(2)
    assert rung == [1002]


def test_may_be_set_anew_while_it_rings(clock: Clock) -> None:
    rung: list[float] = []

    def ring(now: float) -> None:
        rung.append(now)
        timer.set(now + 1)

    timer = Timer(ring)
    timer.set(1001)
    clock.advance(3.5)
    assert rung == [1001, 1002, 1003]


def test_cancelled_it_rings_no_more_until_it_is_set(clock: Clock) -> None:
    rung: list[float] = []
    timer = Timer(rung.append)
    timer.cancel()
    timer.set(1001)
    timer.cancel()
    assert clock.waiting == []
    clock.advance(2)
    assert rung == []
    timer.set(1003)
    clock.advance(2)
    assert rung == [1003]
