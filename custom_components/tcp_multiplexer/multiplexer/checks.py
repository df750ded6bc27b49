"""Checks that settings of all kinds go through."""

from __future__ import annotations

from collections.abc import Iterator
import enum
from typing import Any

from .protocols.options import SettingsError


def chosen[ChoiceT: enum.StrEnum](
    name: str, choices: type[ChoiceT], value: str
) -> ChoiceT:
    """Return the choice that `value` names.

    Raises:
        SettingsError: it names none.

    """
    try:
        return choices(value)
    except ValueError:
        message = f"must be {' or '.join(choices)}, is {value!r}"
        raise SettingsError(name, message) from None


def check_bounds(name: str, bounds: tuple[float, float] | None, value: Any) -> None:
    """Check a number, or all numbers in a tuple.

    Raises:
        SettingsError: one is out of its bounds.

    """
    if bounds is None:
        return
    low, high = bounds
    for number in _numbers_in(value):
        if not low <= number <= high:
            message = f"must be between {low:g} and {high:g}, is {number:g}"
            raise SettingsError(name, message)


def _numbers_in(value: Any) -> Iterator[float]:
    """Yield a number, or all numbers in a tuple."""
    if isinstance(value, tuple):
        for part in value:
            yield from _numbers_in(part)
    else:
        yield value
