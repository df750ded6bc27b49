"""What is compiled goes the same way as its source (`script/test --compiled`)."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

from custom_components.tcp_multiplexer.multiplexer.dispatch import dispatcher
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus import tcp

from .simulation.draws import KINDS, kind_of
from .simulation.life import live

pytestmark = pytest.mark.skipif(
    "TESTED_ENGINE" not in os.environ, reason="no compiled engine is tested"
)

SEEDS = range(10)
"""Of lives of each kind at least one."""


def test_a_compiled_engine_is_tested() -> None:
    for module in (dispatcher, tcp):
        assert Path(module.__file__ or "").suffix != ".py"
        assert Path(module.__file__ or "").is_relative_to(os.environ["TESTED_ENGINE"])


def test_it_says_that_it_is_compiled() -> None:
    said = subprocess.run(
        (sys.executable, "-m", "tcp_multiplexer", "version"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.endswith(" (compiled, uvloop)\n")


@pytest.mark.timeout(600)  # twice ten lives, one set of them not optimized
def test_lives_go_as_they_do_in_pure_python() -> None:
    pure = subprocess.run(
        (sys.executable, "-m", "tests.simulation", "10", "--digest"),
        env={k: v for k, v in os.environ.items() if k != "TESTED_ENGINE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert {kind_of(seed) for seed in SEEDS} == set(KINDS)
    lives = [live(seed, kind_of(seed)) for seed in SEEDS]
    assert [f"{kind_of(life.seed)} {life.seed} {life.digest} " for life in lives] == (
        pure.stdout.split("\n")[:-1]
    )
