"""What one client does wrong costs the others no more than the contract says.

Each test lives two lives of one seed, one with the faulty client and one without.
"""

from __future__ import annotations

from typing import Any

import pytest

from .dialects import Verdict
from .isolation import FAULTY, PATIENCE, SILENT, Waits, excess, waits
from .manners import Gateway

SEEDS = range(2)
WAYS: dict[str, dict[str, Any]] = {
    "modbus": {},
    "in flight": {"max_in_flight": 4},
    "pool": {"max_connections": 2},
    "lenient": {"matching": "lenient"},
    "rtu": {"framing": "rtu"},
}
WRITES_FIRST = 4
"""Writes that may go before a read."""
AFTER_SECONDS = 30.0
"""By then the silent unit is known."""


def both(seed: int, faulty: str, **kwargs: Any) -> tuple[Waits, Waits]:
    """Live with the faulty client, and without."""
    drawn: dict[str, Any] = {"seconds": 60.0, "manners": {}, "settings": {}} | kwargs
    return waits(seed, faulty, **drawn), waits(seed, None, **drawn)


def wrong(lived: Waits) -> int:
    """Count the questions that the device did not answer."""
    return sum(
        verdict is not Verdict.RIGHT
        for verdicts in lived.verdicts
        for verdict in verdicts
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("faulty", [name for name in FAULTY if "silent" not in name])
def test_a_client_that_asks_too_much_or_leaves_costs_a_few_responses(
    faulty: str, way: str, seed: int
) -> None:
    with_it, without = both(seed, faulty, seconds=20.0, settings=WAYS[way])
    assert wrong(with_it) == wrong(without) == 0
    # (Four of its writes, one of its reads, and whoever was delayed so far as to meet.)
    turns = WRITES_FIRST + 1 + len(with_it.seconds)
    # Whatever else the device has at that moment, it serves one thing at a time.
    connections = WAYS[way].get("max_connections", 1)
    at_once = connections * WAYS[way].get("max_in_flight", 1)
    assert excess(with_it, without) <= turns * at_once * with_it.response
    if at_once == 1:  # else a cut is suspected where there is none, now and then
        assert with_it.connections == 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("gateway", "holds", "may_be_lost"),
    [
        (Gateway.DROPS, 0.0, 0),
        (Gateway.QUEUES, 1.0, 0),
        (Gateway.QUEUES, 3.0, 0),
        (Gateway.EXCUSES, 1.0, 0),
        (Gateway.EXCUSES, 3.0, 0),
        (Gateway.OVERRUN, 1.0, 1),
        (Gateway.OVERRUN, 3.0, 2),
    ],
)
def test_a_silent_unit_costs_one_patience_and_a_response(
    gateway: Gateway, holds: float, may_be_lost: int, seed: int
) -> None:
    """Or what its gateway waits for it, if that is longer."""
    manners = {"silent": frozenset((SILENT,)), "gateway": gateway, "holds": holds}
    with_it, without = both(seed, "asks a silent unit", manners=manners)
    assert wrong(without) == 0
    assert wrong(with_it) <= may_be_lost
    if not may_be_lost:
        most = max(PATIENCE, holds) + 2 * with_it.response
        assert excess(with_it, without) <= most
    if gateway is Gateway.DROPS:
        assert with_it.connections == without.connections


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("way", ["rtu", "lenient"])
def test_where_nothing_tells_answers_apart_the_breaker_limits_what_silence_costs(
    way: str, seed: int
) -> None:
    manners = {"silent": frozenset((SILENT,)), "gateway": Gateway.DROPS}
    with_it, _ = both(seed, "asks a silent unit", manners=manners, settings=WAYS[way])
    late = [
        verdict
        for began, verdicts in zip(with_it.began, with_it.verdicts, strict=True)
        for at, verdict in zip(began, verdicts, strict=True)
        if at > AFTER_SECONDS
    ]
    assert late.count(Verdict.RIGHT) >= 0.9 * len(late)
