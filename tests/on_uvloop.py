"""Runs the asynchronous tests, and only these, on the command line's loop with uvloop.

It is a plugin of pytest: `-p tests.on_uvloop`.
"""

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping
from typing import Any, override

import pytest

from custom_components.tcp_multiplexer.multiplexer.command_line.event_loop import (
    loop_factory,
)

from .asynchronous import runs_on_loop

factory: Any = loop_factory()
assert factory is not None, "uvloop is not installed"


class Loop(factory):  # type: ignore[misc]
    """The loop, with what tests need of it."""

    _scheduled = ()
    """Home Assistant's plugin looks there for timers that a test has left."""

    @override
    def close(self) -> None:
        """Close, once what is closing has closed: uvloop does not wait for it."""
        for _ in range(0 if self.is_closed() else 3):
            self.call_soon(self.stop)
            self.run_forever()
        super().close()


def _unless_closed(name: str) -> None:
    """Let what clients and devices of tests do after a close have no effect.

    It has none with the transports of asyncio; those of uvloop raise an error.
    """
    method = getattr(asyncio.StreamWriter, name)

    def call(self: asyncio.StreamWriter, *arguments: Any) -> None:
        if not self.transport.is_closing():
            method(self, *arguments)

    setattr(asyncio.StreamWriter, name, call)


_unless_closed("write")
_unless_closed("write_eof")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """Return what makes the loop of a test."""
    return {"uvloop": Loop}


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out what needs no loop, and programs, which run on uvloop anyway."""
    config.hook.pytest_deselected(items=[i for i in items if not runs_on_loop(i)])
    items[:] = [item for item in items if runs_on_loop(item)]
