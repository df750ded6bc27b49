"""The behaviour contract in docs/design.md, as tests quote it."""

from collections.abc import Callable
from pathlib import Path

CONTRACT = " ".join(
    (Path(__file__).parents[2] / "docs" / "design.md").read_text().split()
)
"""The whole page, with single spaces between its words."""

QUOTED: dict[tuple[str, str], tuple[str, ...]] = {}
"""By the module and the name of a test, what it quotes."""


def contract[Test: Callable[..., None]](*words: str) -> Callable[[Test], Test]:
    """Note that a test holds the contract to its words, quoted as they stand there."""

    def note(test: Test) -> Test:
        QUOTED[test.__module__, test.__name__] = words
        return test

    return note
