"""Runs what `tests.on_uvloop` leaves out, on asyncio: a plugin, `-p tests.off_loop`."""

import pytest

from .asynchronous import runs_on_loop


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out what runs in the loop of a test."""
    config.hook.pytest_deselected(items=[i for i in items if runs_on_loop(i)])
    items[:] = [item for item in items if not runs_on_loop(item)]
