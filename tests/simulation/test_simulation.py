"""The real engine in many simulated worlds, each drawn from one seed.

Each life sees at least `EXCHANGES` right answers and `FAULTS` faults of each kind, with
every promise of the contract looked at in every step. `script/simulate` lives more of
them, of new seeds; the failure of one tells the command that replays it.
"""

from __future__ import annotations

from itertools import combinations
import os
import subprocess
import sys

import pytest

from .choice import Candidate, choose, draws
from .draws import KINDS
from .faults import LENIENT_FAULTS, MODBUS_FAULTS, PLAIN_FAULTS, RTU_FAULTS, Fault
from .life import EXCHANGES, FAULTS, Life, Report, live

OTHERS = KINDS[1:]
"""Those without identifiers."""
MODBUS_CANDIDATES = [Candidate(seed, "modbus") for seed in range(200)]
OTHER_CANDIDATES = [Candidate(seed, OTHERS[seed % len(OTHERS)]) for seed in range(200)]
MODBUS_LIVES = choose(MODBUS_CANDIDATES, 39)
OTHER_LIVES = choose(OTHER_CANDIDATES, 33)
FAILED_ONCE = [Candidate(222, "modbus")]
"""Lives of which no scene is the like."""


def check(report: Report) -> None:
    """Fail with all that is needed to find out why."""
    if report.error:
        lines = "\n".join(report.log)
        pytest.fail(f"{lines}\n{report.error}\nreplay: {report.replay}", pytrace=False)
    assert report.exchanges >= EXCHANGES
    assert min(report.faults.values()) >= FAULTS


@pytest.mark.parametrize(("seed", "kind"), [*MODBUS_LIVES, *FAILED_ONCE])
def test_modbus(seed: int, kind: str) -> None:
    check(live(seed, kind))


@pytest.mark.parametrize(("seed", "kind"), OTHER_LIVES)
def test_where_answers_name_no_question(seed: int, kind: str) -> None:
    """A late response never reaches the next client, by order alone."""
    check(live(seed, kind))


@pytest.mark.parametrize(
    ("chosen", "candidates", "share"),
    [
        pytest.param(MODBUS_LIVES, MODBUS_CANDIDATES, 0.96, id="modbus"),
        pytest.param(OTHER_LIVES, OTHER_CANDIDATES, 0.8, id="without_identifiers"),
    ],
)
def test_lives_are_chosen_to_draw_all_that_can_be_drawn(
    chosen: list[Candidate], candidates: list[Candidate], share: float
) -> None:
    """Each setting, each manner of device and network, each kind of client.

    And of the pairs of these, which no few lives can draw all, a share.
    """
    few, many = ([draws(life) for life in lives] for lives in (chosen, candidates))
    assert frozenset.union(*few) == frozenset.union(*many)
    common = frozenset.intersection(*many)
    drawn, possible = (
        {frozenset(pair) for life in lives for pair in combinations(life - common, 2)}
        for lives in (few, many)
    )
    assert len(drawn) >= share * len(possible)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fault_is_demanded(kind: str) -> None:
    """A kind that never happened is lacking, not overlooked."""
    life = Life(0, kind)
    life.loop.close()
    expected = {"modbus": MODBUS_FAULTS, "rtu": RTU_FAULTS, "lenient": LENIENT_FAULTS}
    faults = {*expected.get(kind, PLAIN_FAULTS), Fault.REFUSED, Fault.IGNORED}
    assert set(life.lacking) == faults
    assert kind != "modbus" or faults == set(Fault)


def test_same_seed_same_life() -> None:
    assert live(1).digest == live(1).digest
    assert live(1).digest != live(2).digest


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_same_life_in_another_process(hash_seed: str) -> None:
    """Nothing depends on addresses of objects or on how strings are hashed."""
    finished = subprocess.run(
        (sys.executable, "-m", "tests.simulation", "1", "3", "--kind", "modbus"),
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"seed 3: {live(3).digest}" in finished.stdout


def test_no_life_waits_for_home_assistant() -> None:
    """To import it takes longer than a life does."""
    code = "import sys, tests.simulation.__main__; sys.exit('homeassistant' in sys.modules)"
    subprocess.run((sys.executable, "-c", code), check=True)  # noqa: S603 - our own


def test_failure_tells_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.simulation.life._LIMIT", 1.0)
    report = live(7, "echo")
    assert "Violation: only" in report.error
    assert report.replay == "script/simulate 1 7 --kind echo"
    assert report.log
    assert live(7, "echo").log == report.log
