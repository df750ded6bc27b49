"""Counting, and the percentiles of what was counted."""

import pytest

from custom_components.tcp_multiplexer.multiplexer import Failure
from custom_components.tcp_multiplexer.multiplexer.observe.statistics import (
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
    statistics.times.add(5, 6, 7)
    statistics.units.answered[b"\4\3"] += 1
    for name in "abc":
        statistics.trace.append((0, name, b"", None, "busy", 0, None))
    statistics.reset(8)
    assert (statistics.since, statistics.gone.requests) == (8, 0)
    assert statistics.failures[Failure.BUSY] == 0
    assert statistics.times.recent(8) == ([], [])
    assert statistics.times.count == 0
    assert not statistics.units.snapshot()
    assert [entry[1] for entry in statistics.trace] == ["b", "c"]


def test_times_are_sorted_waits_and_response_times() -> None:
    times = Statistics(trace_size=0, now=0).times
    times.add(arrived=1, sent=5, answered=6)
    times.add(arrived=6, sent=8, answered=11)
    times.add(arrived=11, sent=14, answered=16)
    assert times.recent(16) == ([2, 3, 4], [1, 2, 3])


def test_times_are_those_of_the_last_minutes() -> None:
    times = Statistics(trace_size=0, now=0).times
    times.add(arrived=0, sent=1, answered=2)
    times.add(arrived=0, sent=1, answered=5)
    assert times.recent(2 + WINDOW_SECONDS) == ([1, 1], [1, 4])
    assert times.recent(3 + WINDOW_SECONDS) == ([1], [4])
    assert times.recent(6 + WINDOW_SECONDS) == ([], [])
    assert times.count == 2  # ever


def test_times_are_those_of_the_last_exchanges() -> None:
    times = Statistics(trace_size=0, now=0).times
    for number in range(WINDOW_EXCHANGES + 3):
        times.add(arrived=0, sent=0, answered=number / 1024)
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
