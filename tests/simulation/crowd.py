"""The clients of a life, drawn."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from .clients import (
    Babbler,
    Dribbler,
    Flooder,
    HalfCloser,
    Intruder,
    Leaver,
    SimulatedClient,
    SlowReader,
    Staller,
    Temper,
    Vanisher,
)

DEEPEST = 64
"""Requests that a client has open at most, if it does not flood."""
_ON_LINES = (SimulatedClient, Leaver, HalfCloser, Vanisher, SlowReader)
"""Clients of which some speak RTU."""


class Comer(NamedTuple):
    """A client that comes."""

    kind: type[SimulatedClient]
    temper: Temper
    source: str
    """Its address."""


def draw_crowd(rng: Random, *, rtu: bool, addresses: int) -> list[Comer]:
    """Draw clients from so many addresses; with `rtu`, some speak that."""
    kinds: list[tuple[type[SimulatedClient], int]] = [
        (SimulatedClient, rng.randint(2, 5)),
        (Leaver, rng.randint(1, 3)),
        (Dribbler, rng.randint(0, 1)),
        (HalfCloser, rng.randint(0, 2)),
        (SlowReader, rng.randint(0, 1)),
        (Babbler, rng.randint(0, 1)),
        (Staller, rng.randint(0, 1)),
        (Vanisher, rng.randint(0, 1)),
        (Intruder, rng.randint(0, 1)),
        (Flooder, int(rng.random() < 0.12)),
    ]
    crowd: list[Comer] = []
    for kind, count in kinds:
        for _ in range(count):
            number = len(crowd) % addresses + 1
            net = "8.8.8" if kind is Intruder else "192.168.1"
            speaks_rtu = rtu and kind in _ON_LINES and rng.random() < 0.5
            temper = _draw_temper(rng, kind, rtu=speaks_rtu)
            crowd.append(Comer(kind, temper, f"{net}.{number}"))
    return crowd


def _draw_temper(rng: Random, kind: type[SimulatedClient], *, rtu: bool) -> Temper:
    depth = rng.choice((1, 1, 1, 2, 8, 32))
    if kind in (Babbler, Dribbler, Staller):
        depth = 1
    elif kind is SlowReader:
        depth = rng.choice((8, DEEPEST))
    elif kind is not SimulatedClient:
        depth = min(depth, 8)
    return Temper(
        depth=1 if rtu else depth,
        think=rng.choice(((0.0, 0.0), (0.0, 0.02), (0.05, 0.3))),
        constant=kind is SimulatedClient and depth == 1 and rng.random() < 0.2,
        rtu=rtu,
        repeats=rng.choice((0.0, 0.0, 0.2)),
    )
