"""A protocol that the engine does not know lives the same lives."""

from __future__ import annotations

import pytest

from tests.fixtures import sixth_protocol
from tests.fixtures.sixth_protocol.dialect import StxDialect

from . import registry
from .life import EXCHANGES, live


@pytest.mark.parametrize("seed", range(3))
def test_sixth_protocol(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    sixth_protocol.register(monkeypatch)
    monkeypatch.setitem(registry.DIALECTS, StxDialect.name, StxDialect)
    report = live(seed, StxDialect.name)
    assert not report.error, report.error
    assert report.exchanges >= EXCHANGES
