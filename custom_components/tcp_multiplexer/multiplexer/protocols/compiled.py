"""What a compiled engine has to be told (see `setup.py`); without effect otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:  # the compiler alone needs that package

    def mypyc_attr(**_: bool) -> Callable[[type], type]:
        """Return a decorator that leaves a class as it is."""
        return lambda cls: cls


__all__ = ["mypyc_attr"]
