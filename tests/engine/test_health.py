"""What the traffic tells of the device, and when to try it again."""

from __future__ import annotations

from itertools import pairwise
import random
from typing import override

from hypothesis import given, strategies as st
import pytest

from custom_components.tcp_multiplexer.multiplexer.upstream.health_tracker import (
    HealthTracker,
)

BACKOFF, BACKOFF_MAX = 1.0, 30.0


class Least(random.Random):
    """A jitter of nothing."""

    @override
    def random(self) -> float:
        return 0.0


@given(outcomes=st.lists(st.booleans(), max_size=80))
def test_degraded_is_two_unanswered_of_the_last_twenty(outcomes: list[bool]) -> None:
    health = HealthTracker(random.Random(0))
    for number, answered in enumerate(outcomes, start=1):
        if answered:
            health.answered()
        else:
            health.failed("no response")
        assert health.degraded is (outcomes[:number][-20:].count(False) >= 2)


def test_reason_is_the_last_one() -> None:
    health = HealthTracker(random.Random(0))
    reasons = [health.reason]
    health.failed("no response")
    reasons.append(health.reason)
    health.attempt_failed(0, "refused", BACKOFF, BACKOFF_MAX)
    assert [*reasons, health.reason] == [None, "no response", "refused"]


def test_outage_is_news_once_and_ends_with_a_response() -> None:
    health = HealthTracker(random.Random(0))
    assert health.recovered(1) is None
    assert health.attempt_failed(10, "refused", BACKOFF, BACKOFF_MAX)
    assert not health.attempt_failed(12, "refused", BACKOFF, BACKOFF_MAX)
    assert health.outage_since == 10
    assert health.recovered(110) == 100
    assert health.recovered(111) is None
    assert health.next_attempt == 0
    assert health.attempt_failed(200, "refused", BACKOFF, BACKOFF_MAX)


@pytest.mark.parametrize(
    ("away", "delay"), [(0, 1), (4, 1), (10, 2), (60, 12), (150, 30), (86400, 30)]
)
def test_next_attempt_comes_after_a_fifth_of_the_outage(
    away: float, delay: float
) -> None:
    health = HealthTracker(Least())
    health.attempt_failed(1000, "refused", BACKOFF, BACKOFF_MAX)
    health.attempt_failed(1000 + away, "refused", BACKOFF, BACKOFF_MAX)
    assert health.next_attempt == pytest.approx(1000 + away + delay)


@pytest.mark.parametrize(("opened", "due"), [(98, 118), (85, 105), (50, 101)])
def test_the_wait_runs_from_when_the_connection_was_opened(
    opened: float, due: float
) -> None:
    health = HealthTracker(Least())
    health.attempt_failed(0, "refused", BACKOFF, BACKOFF_MAX)
    health.attempt_failed(100, "no response", BACKOFF, BACKOFF_MAX, opened)
    assert health.next_attempt == pytest.approx(due)


def test_what_failed_in_an_outage_does_not_count_after_it() -> None:
    health = HealthTracker(random.Random(0))
    health.attempt_failed(0, "refused", BACKOFF, BACKOFF_MAX)
    health.failed("no response")
    health.failed("no response")
    assert health.degraded
    health.answered()
    health.recovered(10)
    assert not health.degraded


def test_probes_count_until_something_is_answered() -> None:
    health = HealthTracker(random.Random(0))
    health.failed("no response", probe=True)
    assert (health.failed_lately, health.degraded) == (True, False)
    health.failed("no response")
    assert (health.failed_lately, health.degraded) == (True, True)
    health.answered()
    assert (health.failed_lately, health.degraded) == (True, False)


def test_jitter_only_shortens_and_by_a_fifth_at_most() -> None:
    health = HealthTracker(random.Random(1))
    health.attempt_failed(0, "refused", BACKOFF, BACKOFF_MAX)
    delays = []
    for _ in range(1000):
        health.attempt_failed(100, "refused", BACKOFF, BACKOFF_MAX)
        delays.append(health.next_attempt - 100)
    assert 16 <= min(delays) < 16.1
    assert 19.9 < max(delays) <= 20


def test_attempts_become_rarer_but_never_rarer_than_the_most() -> None:
    health = HealthTracker(random.Random(2))
    now, attempts = 0.0, [0.0]
    while now < 3600:
        health.attempt_failed(now, "refused", BACKOFF, BACKOFF_MAX)
        now = health.next_attempt
        attempts.append(now)
    gaps = [after - before for before, after in pairwise(attempts)]
    assert all(0.8 * BACKOFF <= gap <= BACKOFF_MAX for gap in gaps)
    assert sum(at < 10 for at in attempts) <= 12
    assert all(gap >= 0.8 * BACKOFF_MAX for gap in gaps[-50:])


def test_fresh_connection_asked_for_may_be_tried_at_once() -> None:
    health = HealthTracker(random.Random(0))
    health.failed("no response")
    health.failed("no response")
    health.attempt_failed(10, "refused", BACKOFF, BACKOFF_MAX)
    health.forget()
    assert health.next_attempt == 0
    assert not health.degraded
    assert health.outage_since == 10  # only a response ends it
