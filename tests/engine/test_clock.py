"""The clock of the loop is asked without the method around it, where that is right."""

from __future__ import annotations

import asyncio
import time
from typing import override

from custom_components.tcp_multiplexer.multiplexer.clock import clock_of


def test_loops_of_asyncio_tell_the_system_clock() -> None:
    loop = asyncio.new_event_loop()
    assert clock_of(loop) is time.monotonic
    loop.close()


def test_a_loop_with_a_clock_of_its_own_is_asked() -> None:
    class Stopped(asyncio.SelectorEventLoop):
        @override
        def time(self) -> float:
            return 7.0

    loop = Stopped()
    assert clock_of(loop)() == 7.0
    loop.close()


def test_a_loop_that_was_given_another_clock_is_asked() -> None:
    loop = asyncio.new_event_loop()
    loop.time = lambda: 7.0  # type: ignore[method-assign]
    assert clock_of(loop)() == 7.0
    loop.close()
