"""Which tests run in an event loop of their own."""

from inspect import iscoroutinefunction

import pytest

PROGRAM = "tests.engine.program"
"""From where tests have what runs the command line as a process of its own."""


def runs_on_loop(item: pytest.Item) -> bool:
    """Return whether a test does all that it does in its loop.

    Those that run programs do not: these choose their loops themselves.
    """
    return (
        isinstance(item, pytest.Function)
        and iscoroutinefunction(item.function)
        and not any(
            getattr(named, "__module__", None) == PROGRAM
            for named in vars(item.module).values()
        )
    )
