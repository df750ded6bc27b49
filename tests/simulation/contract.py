"""The behaviour contract in docs/design.md, as tests quote it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

CONTRACT = " ".join(
    (Path(__file__).parents[2] / "docs" / "design.md").read_text().split()
)
"""The whole page, with single spaces between its words."""

_QUOTED: dict[Callable[..., None], tuple[str, ...]] = {}
"""By test, what it quotes."""


def contract[Test: Callable[..., None]](*words: str) -> Callable[[Test], Test]:
    """Note that a test holds the contract to its words, quoted as they stand there."""

    def note(test: Test) -> Test:
        _QUOTED[test] = words
        return test

    return note


def unquoted(tests: dict[str, object]) -> set[str]:
    """Return those of a module's tests that quote nothing, or what is not there."""
    return {
        name
        for name, test in tests.items()
        if name.startswith("test_")
        and callable(test)
        and not all(words in CONTRACT for words in _QUOTED.get(test, ("?!",)))
    } - {"test_every_test_quotes_the_contract"}
