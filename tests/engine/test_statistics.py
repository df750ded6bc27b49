"""Counting, and the percentiles of what was counted."""

from __future__ import annotations

import pytest

from custom_components.tcp_multiplexer.multiplexer import Failure
from custom_components.tcp_multiplexer.multiplexer.observe.statistics import (
    PAIRS_COUNTED,
    WINDOW_EXCHANGES,
    WINDOW_SECONDS,
    Statistics,
    percentile,
)


@pytest.mark.parametrize(
    ("values", "median", "p95"),
    [
        ([], None, None),
        ([7.0], 7, 7),
        ([1.0, 2.0], 1, 2),
        ([1.0, 2.0, 3.0], 2, 3),
        ([float(n) for n in range(1, 101)], 50, 95),
        ([float(n) for n in range(1, 22)], 11, 20),
    ],
)
def test_percentile_is_a_value_that_occurred(
    values: list[float], median: float | None, p95: float | None
) -> None:
    assert percentile(values, 0.5) == median
    assert percentile(values, 0.95) == p95


def test_reset_begins_again_but_keeps_the_trace() -> None:
    statistics = Statistics(trace_size=2, now=5)
    assert statistics.since == 5
    assert statistics.failures == dict.fromkeys(Failure, 0)
    statistics.gone.requests = 9
    statistics.failures[Failure.BUSY] = 3
    statistics.times.exchanges.append((5, 6, 7))
    statistics.units.answered[b"\4\3"] += 1
    for name in "abc":
        statistics.trace.append((name, b"", None, Failure.BUSY, (0, None, 0)))
    statistics.reset(8)
    assert (statistics.since, statistics.gone.requests) == (8, 0)
    assert statistics.failures[Failure.BUSY] == 0
    assert statistics.times.recent(8) == ([], [])
    assert statistics.times.count == 0
    assert not statistics.units.snapshot()
    assert [entry[0] for entry in statistics.trace] == ["b", "c"]


def test_times_are_sorted_waits_and_response_times() -> None:
    times = Statistics(trace_size=0, now=0).times
    times.exchanges.append((1, 5, 6))
    times.exchanges.append((6, 8, 11))
    times.exchanges.append((11, 14, 16))
    assert times.recent(16) == ([2, 3, 4], [1, 2, 3])


def test_times_are_those_of_the_last_minutes() -> None:
    times = Statistics(trace_size=0, now=0).times
    times.exchanges.append((0, 1, 2))
    times.exchanges.append((0, 1, 5))
    assert times.recent(2 + WINDOW_SECONDS) == ([1, 1], [1, 4])
    assert times.recent(3 + WINDOW_SECONDS) == ([1], [4])
    assert times.recent(6 + WINDOW_SECONDS) == ([], [])


def test_times_are_those_of_the_last_exchanges() -> None:
    times = Statistics(trace_size=0, now=0).times
    for number in range(WINDOW_EXCHANGES + 3):
        times.exchanges.append((0, 0, number / 1024))
    _, took = times.recent(2)
    assert took == [number / 1024 for number in range(3, WINDOW_EXCHANGES + 3)]


def test_unit_is_counted_by_what_came_of_its_requests() -> None:
    statistics = Statistics(trace_size=0, now=0)
    statistics.units.answered[b"\7\3"] += 2
    statistics.units.failed[b"\7\6"] += 1
    statistics.units.refused[b"\7\6"] += 3
    statistics.units.acknowledged[b"\7\6"] += 4
    snapshot = statistics.units.snapshot()
    assert list(snapshot) == [7]
    told = snapshot[7]
    assert (told.requests, told.responses) == (10, 2)
    assert (told.failures, told.refused) == (1, 3)
    statistics.units.answered[b"\7\3"] += 1
    assert told.functions == {3: 2, 6: 8}  # a picture of that moment


def test_whoever_asks_all_functions_of_all_units_fills_no_memory() -> None:
    units = Statistics(trace_size=0, now=0).units
    units.answered[b"\1\3"] = 10_000
    tables = (units.answered, units.acknowledged, units.failed, units.refused)
    for table in tables:
        for pair in range(1 << 16):
            table[pair.to_bytes(2)] += 1
        assert len(table) <= PAIRS_COUNTED
    told = units.snapshot()
    assert len(told) == 256
    assert sum(len(unit.functions) for unit in told.values()) <= 4 * PAIRS_COUNTED
    assert told[1].functions[3] >= 10_001  # what is asked most is told apart
    assert (told[1].responses, told[1].requests) == (10_256, 10_000 + 4 * 256)
    assert (told[9].failures, told[9].refused) == (256, 256)
