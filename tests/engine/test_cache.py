"""Cached responses: how long they are kept, how many, and that they expire unasked."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from custom_components.tcp_multiplexer.multiplexer.dispatch import cache as module
from custom_components.tcp_multiplexer.multiplexer.dispatch.cache import Cache
from custom_components.tcp_multiplexer.multiplexer.dispatch.timer import Timer

from .clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Have a clock instead of an event loop."""
    clock = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    return clock


def cache_of(clock: Clock, ttl: float) -> Cache:
    """Make a cache that is swept by a timer, as the engine does it."""
    timer = Timer()
    cache = Cache(timer, ttl)

    def ring(now: float) -> None:
        cache.sweep(now)
        timer.set(cache.sweep_at)

    timer.callback = ring
    return cache


def test_a_response_is_fresh_for_its_time(clock: Clock) -> None:
    cache = cache_of(clock, 5)
    now = clock.time()
    cache.put(b"\1a", "a", now - 2, now)
    assert cache.get(b"\1a", now + 2.9) == "a"
    assert cache.get(b"\1a", now + 3) is None
    assert cache.last(b"\1a") == "a"
    assert cache.get(b"\1b", now) is None
    assert cache.last(b"\1b") is None


@pytest.mark.parametrize("ttl", [0.2, 5])
def test_what_has_expired_goes_though_nobody_asks(clock: Clock, ttl: float) -> None:
    cache = cache_of(clock, ttl)
    assert not clock.waiting
    for number in range(100):
        now = clock.time()
        cache.put(bytes((number % 3, number)), "value", now, now)
        clock.advance(ttl / 50)
        assert len(clock.waiting) == 1  # one timer for all of them
    clock.advance(ttl + 2 * max(ttl, 1))
    assert not len(cache)
    assert cache.sweep_at == inf
    assert not clock.waiting


def test_the_oldest_of_all_units_goes_first(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST", 4)
    cache = cache_of(clock, 60)
    now = clock.time()
    for unit in range(1, 5):
        cache.put(bytes((unit, 0)), unit, now, now)
    cache.put(b"\1\0", "again", now, now)
    cache.put(b"\5\0", 5, now, now)
    assert len(cache) == 4
    kept = [cache.get(bytes((unit, 0)), now) for unit in range(1, 6)]
    assert kept == ["again", None, 3, 4, 5]


def test_a_scope_is_cleared_alone(clock: Clock) -> None:
    cache = cache_of(clock, 60)
    now = clock.time()
    for key in (b"\1a", b"\1b", b"\2a"):
        cache.put(key, key, now, now)
    cache.clear_scope(1)
    cache.clear_scope(7)
    assert [cache.get(key, now) for key in (b"\1a", b"\1b", b"\2a")] == [
        None,
        None,
        b"\2a",
    ]
    cache.clear()
    assert not len(cache)
