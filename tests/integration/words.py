"""The words that people read, in each language that there is."""

from collections.abc import Collection
import functools
import json
from pathlib import Path
import string
from typing import Any, Final

from custom_components import tcp_multiplexer

TRANSLATIONS: Final = Path(tcp_multiplexer.__file__).parent / "translations"
LANGUAGES: Final = sorted(path.stem for path in TRANSLATIONS.glob("*.json"))


@functools.cache
def words_in(language: str) -> Any:
    """Return the words of a language."""
    return json.loads((TRANSLATIONS / f"{language}.json").read_text())


def assert_words(path: Collection[str], given: Collection[str] = ()) -> None:
    """Check that there are words at `path` in each language.

    Whatever stands in braces there must be among the placeholders that are given.
    """
    for language in LANGUAGES:
        words = words_in(language)
        for key in path:
            assert key in words, f"{language}: no words for {'.'.join(path)}"
            words = words[key]
        asked = {name for _, name, *_ in string.Formatter().parse(words) if name}
        assert asked <= set(given), f"{language}: {'.'.join(path)}"
