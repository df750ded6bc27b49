"""Waiting for what must come: a condition, a number that has stopped growing."""

import asyncio
from collections.abc import Callable

PATIENCE = 20.0
"""Seconds after which a test gives up what should have happened at once."""


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what it waits for is a state
            await asyncio.sleep(0.002)


async def settled(number: Callable[[], int]) -> int:
    """Wait until a number that grows has stopped growing; return it."""
    before = -1
    while before < (before := number()):  # noqa: ASYNC110 - it waits for nothing
        await asyncio.sleep(0.05)
    return before
