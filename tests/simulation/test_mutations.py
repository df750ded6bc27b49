"""The table of mutations fits the engine as it is; trying them takes a while."""

from __future__ import annotations

import pytest

from .draws import KINDS
from .mutations import ENGINE, MUTATIONS, ROOT, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_mutation_can_be_made(mutation: Mutation) -> None:
    engine = (ROOT / ENGINE / mutation.file).read_text()
    assert engine.count(mutation.old) == 1
    assert mutation.new != mutation.old
    assert set(mutation.kinds) <= set(KINDS)
