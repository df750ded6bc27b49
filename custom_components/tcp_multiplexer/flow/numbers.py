"""Lists and ranges of numbers, as they are typed and shown."""

from collections.abc import Iterable


def numbers_from(text: str) -> list[int]:
    """Parse "3, 4, 0x10".

    Raises:
        ValueError: one is no number.

    """
    return [int(part, 0) for part in text.replace(",", " ").split()]


def numbers_to_text(numbers: Iterable[int]) -> str:
    """Return numbers as `numbers_from` parses them."""
    return ", ".join(map(str, numbers))


def range_from(text: str) -> list[int]:
    """Parse "100-200", or "100": the first and the last number.

    Raises:
        ValueError: one is no number.

    """
    first, _, last = text.partition("-")
    return [int(first, 0), int(last or first, 0)]
