"""Chooses lives that are as unlike each other as a few can be.

Every life meets each fault of its protocol `FAULTS` times; all else was drawn from its
seed. Of many lives those are chosen that bring the most pairs of draws together which
no chosen one did: pairwise testing, by a greedy covering array.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import combinations
from typing import NamedTuple

from .life import Life

_DERIVED = frozenset({"late", "reconnect_backoff_max"})
"""They follow from other draws."""

type Draw = tuple[str, object]
"""What was drawn, and what it came to."""


class Candidate(NamedTuple):
    """A life that may be lived."""

    seed: int
    kind: str


def draws(candidate: Candidate) -> frozenset[Draw]:
    """Return what a life has drawn before it begins."""
    life = Life(*candidate)
    life.loop.close()
    return frozenset(_draws(life))


def _draws(life: Life) -> Iterator[Draw]:
    for part in (life.settings, life.device.manners, life.network.conditions):
        for field in fields(part):
            if field.name not in _DERIVED:
                yield field.name, getattr(part, field.name)
    yield "stall", life.loop.stall
    yield "paused", life.starts_paused
    for kind, temper, _ in life.crowd:
        yield f"{kind.__name__} of depth", temper.depth
        yield f"{kind.__name__} speaks RTU", temper.rtu
        yield "repeats", temper.repeats


def choose(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Return the `count` candidates that together bring the most pairs of draws."""
    drawn = [draws(candidate) for candidate in candidates]
    common = frozenset.intersection(*drawn)
    bits: dict[tuple[Draw, Draw], int] = {}
    brings = {}
    for candidate, of_it in zip(candidates, drawn, strict=True):
        mask = 0
        for pair in combinations(sorted(of_it - common, key=repr), 2):
            mask |= 1 << bits.setdefault(pair, len(bits))
        brings[candidate] = mask
    covered = 0
    chosen = []
    for _ in range(count):
        best = max(brings, key=lambda it: (brings[it] & ~covered).bit_count())
        covered |= brings.pop(best)
        chosen.append(best)
    return sorted(chosen)
