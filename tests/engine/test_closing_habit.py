"""What is taken for the habit of closing after each response."""

from __future__ import annotations

import pytest

from custom_components.tcp_multiplexer.multiplexer.dispatch.closing_habit import (
    ClosingHabit,
)

from .connections import Unused


def connection(responses: int, sent: int = 2) -> Unused:
    """Return a connection that the device has closed."""
    return Unused(responses=responses, sent=sent)


def learned() -> ClosingHabit:
    """Return a habit that is known."""
    habit = ClosingHabit()
    for _ in range(3):
        habit.closed_by_device(connection(1), 0.05)
    assert habit.known
    return habit


@pytest.mark.parametrize(
    ("responses", "after"),
    [(2, 0.05), (1, 0.3), (0, 0.05)],
    ids=["after two responses", "later", "at a request"],
)
def test_it_must_show_in_a_row(responses: int, after: float) -> None:
    habit = ClosingHabit()
    for number in range(10):
        other = number % 3 == 2
        habit.closed_by_device(
            connection(responses if other else 1), after if other else 0.05
        )
        assert not habit.known


def test_a_device_that_hangs_up_at_a_request_still_has_it() -> None:
    habit = learned()
    habit.closed_by_device(connection(0, sent=1), 0.05)
    habit.closed_by_device(connection(0, sent=0), 60)
    assert habit.known


@pytest.mark.parametrize(("responses", "after"), [(2, 0.05), (1, 0.3)])
def test_it_is_lost_where_it_does_not_show(responses: int, after: float) -> None:
    habit = learned()
    habit.closed_by_device(connection(responses), after)
    assert not habit.known


def test_every_64th_exchange_shows_whether_it_still_has_it() -> None:
    habit = learned()
    checks = [habit.is_to_be_checked() for _ in range(192)]
    assert [n for n, check in enumerate(checks, 1) if check] == [64, 128, 192]
