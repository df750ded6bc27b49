"""Reads the file of the devices again while they are shared."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from .configuration import DEVICES, ConfigurationError, read_configuration
from .devices import explained
from .toml_text import toml_key

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .devices import Devices, StartError
    from .notify import Notifier

LOGGER = logging.getLogger(__name__)


class Reloads:
    """Reads the configuration again when it is asked to, one time after the other."""

    def __init__(self, devices: Devices, file: Path, notifier: Notifier) -> None:
        self._devices = devices
        self._file = file
        self._notifier = notifier
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._begun = False

    def begin(self) -> None:
        """Reload from now on, and at once if that was asked for before."""
        self._begun = True
        if self._again:
            self.ask()

    def ask(self) -> None:
        """Reload; once more after the reload that is under way, if there is one."""
        self._again = True
        if self._task is None and self._begun:
            self._task = asyncio.get_running_loop().create_task(self._reload())

    async def end(self) -> None:
        """Wait for the reload that is under way."""
        self._again = False
        if self._task is not None:
            await self._task

    def explained(self, errors: Iterable[StartError]) -> list[str]:
        """Return why devices could not be started, with where the file says so."""
        return [
            f"{self._file}: [{DEVICES}.{toml_key(error.device)}] "
            + explained(error, str)
            for error in errors
        ]

    async def _reload(self) -> None:
        while self._again:
            self._again = False
            self._notifier.reloading()
            try:
                wanted = await asyncio.to_thread(read_configuration, self._file)
            except ConfigurationError as err:
                for line in str(err).split("\n"):
                    LOGGER.error("%s; nothing is changed", line)  # noqa: TRY400 - no fault
            else:
                errors = await self._devices.change(wanted)
                for line in self.explained(errors):
                    LOGGER.error("%s", line)
                if not errors:
                    LOGGER.info("%s is in force", self._file)
            self._notifier.ready()
        self._task = None
