"""What a device may still be busy with, as far as can be told."""

from __future__ import annotations

from typing import Any, cast

import pytest

from custom_components.tcp_multiplexer.multiplexer.dispatch.exchange import (
    Exchange,
    Upstream,
)
from custom_components.tcp_multiplexer.multiplexer.dispatch.line import GivenUp, Line

from .test_queue import Asker, write


def sent_at(moment: float, unit: int = 1) -> Exchange:
    """Return a request that was sent then."""
    exchange = write(Asker(), unit)
    exchange.sent = moment
    return exchange


def given_up(exchange: Exchange) -> GivenUp:
    """Return it as one that was given up."""
    anywhere = cast(Upstream, object())
    return GivenUp(exchange, anywhere, exchange.sent, beside=False, judged=False)


def line_of(*exchanges: Exchange) -> Line:
    """Return a line of requests that were given up."""
    line = Line()
    for exchange in exchanges:
        line.join(given_up(exchange))
    return line


def test_what_was_sent_before_an_answered_one_is_gone_past() -> None:
    first, second, third = map(sent_at, (1.0, 2.0, 3.0))
    line = line_of(first, second, third)
    assert [entry.exchange for entry in line.answered(2.0)] == [first]
    assert [entry.exchange for entry in line.answered(2.5)] == [second]
    assert line
    assert [entry.exchange for entry in line.answered(9.0)] == [third]
    assert not line


def test_what_was_answered_late_is_in_nobodys_way() -> None:
    first = sent_at(1.0)
    line = line_of(first)
    entry = line.leave(first.asked)
    assert entry is not None
    assert entry.exchange is first
    assert not line
    assert line.leave(first.asked) is None


@pytest.mark.parametrize(
    ("other", "moment", "behind"),
    [(2, 1.0, True), (2, 2.0, True), (2, 2.1, False), (1, 1.0, False)],
)
def test_another_units_request_that_was_given_up_may_be_in_the_way(
    other: int, moment: float, *, behind: bool
) -> None:
    line = line_of(sent_at(moment, other))
    assert line.is_behind(sent_at(2.0), ()) is behind


@pytest.mark.parametrize(
    ("other", "moment", "behind"),
    [(2, 1.0, True), (2, 2.0, False), (2, 2.1, False), (1, 1.0, False)],
)
def test_another_units_request_in_flight_may_be_in_the_way(
    other: int, moment: float, *, behind: bool
) -> None:
    """Of two sent at one moment, the one that is given up first was first."""
    in_flight = [sent_at(moment, other)]
    assert Line().is_behind(sent_at(2.0), in_flight) is behind


def test_a_unit_holds_up_others_that_are_not_silent() -> None:
    silent: Any = {2: ..., 3: ...}
    line = line_of(sent_at(0.0, 2))
    assert not line.is_held_up_by(2, silent, 5.0)
    line.join(given_up(sent_at(1.0, 3)))
    assert not line.is_held_up_by(2, silent, 5.0)
    line.join(given_up(sent_at(2.0, 1)))
    assert line.is_held_up_by(2, silent, 5.0)
    assert not line.is_held_up_by(4, silent, 5.0)
    assert line.is_held_up_by(2, silent, 29.9)
    assert not line.is_held_up_by(2, silent, 30.1)  # it cannot take that long


def test_what_is_remembered_is_bounded() -> None:
    exchanges = [sent_at(float(number)) for number in range(100)]
    line = line_of(*exchanges)
    assert [entry.exchange for entry in line.answered(1e9)] == exchanges[-64:]
