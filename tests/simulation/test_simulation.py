"""The real engine in many simulated worlds, each drawn from one seed.

Each life sees at least `EXCHANGES` right answers and `FAULTS` faults of each kind, with
every promise of the contract looked at in every step. `script/simulate` lives more of
them; the failure of one tells the command that replays it.
"""

import os
import subprocess
import sys

import pytest

from .world import EXCHANGES, FAULTS, PROTOCOLS, Life, Report, live

SEEDS = 200
PLAIN_SEEDS = 24


def check(report: Report) -> None:
    """Fail with all that is needed to find out why."""
    if report.error:
        lines = "\n".join(report.log)
        pytest.fail(f"{lines}\n{report.error}\nreplay: {report.replay}", pytrace=False)
    assert report.exchanges >= EXCHANGES
    assert min(report.faults.values()) >= FAULTS


@pytest.mark.parametrize("seed", range(SEEDS))
def test_modbus(seed: int) -> None:
    check(live(seed))


@pytest.mark.parametrize("seed", range(PLAIN_SEEDS))
def test_protocols_without_identifiers(seed: int) -> None:
    """A late response never reaches the next client, by order alone."""
    plain = PROTOCOLS[1:]
    check(live(seed, plain[seed % len(plain)]))


def test_every_kind_of_fault_is_demanded() -> None:
    """A kind that never happened is lacking, not overlooked."""
    life = Life(0)
    manners = life.device.manners
    assert len(life.lacking) == len({*manners.faults, *manners.connect_faults}) >= 18
    life.loop.close()


def test_same_seed_same_life() -> None:
    assert live(1).digest == live(1).digest
    assert live(1).digest != live(2).digest


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_same_life_in_another_process(hash_seed: str) -> None:
    """Nothing depends on addresses of objects or on how strings are hashed."""
    finished = subprocess.run(
        (sys.executable, "-m", "tests.simulation", "1", "3"),
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"seed 3: {live(3).digest}" in finished.stdout


def test_failure_tells_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.simulation.world._LIMIT", 1.0)
    report = live(7, "echo")
    assert "Violation: only" in report.error
    assert report.replay == "script/simulate 1 7 --protocol echo"
    assert report.log
    assert live(7, "echo").log == report.log
