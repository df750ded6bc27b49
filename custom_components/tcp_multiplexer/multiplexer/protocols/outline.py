"""What diagnostics that others may read say of an exchange."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Outline(NamedTuple):
    """An exchange without the values in it."""

    asked: Mapping[str, int]
    answered: Mapping[str, int]
