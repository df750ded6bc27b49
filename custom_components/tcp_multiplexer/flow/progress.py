"""A trial that may take a while, and what a dialog shows meanwhile."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from homeassistant.core import HomeAssistant, callback

from .probe import Report, Stage

SECONDS: Final = 2.0
"""What is done within that time shows no progress."""


class Trial:
    """A task with the stage that it has reached."""

    def __init__(
        self, hass: HomeAssistant, run: Callable[[Report], Coroutine[Any, Any, None]]
    ) -> None:
        """Start `run`, which reports its stages."""
        self._hass = hass
        self._news = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self.stage = Stage.CONNECTING
        self.task = hass.async_create_task(run(self._report))

    @callback
    def _report(self, stage: Stage) -> None:
        if stage is not self.stage:
            self.stage = stage
            self._news.set()

    async def async_wait(self) -> None:
        """Wait for its end, but not as long as people would wonder."""
        await asyncio.wait((self.task,), timeout=SECONDS)

    @callback
    def async_watch(self) -> asyncio.Task[None]:
        """Return a task that ends with this stage."""
        if self._watch is None or self._watch.done():
            self._news.clear()
            self._watch = self._hass.async_create_task(self._async_next())
        return self._watch

    async def _async_next(self) -> None:
        news = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait((news, self.task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
