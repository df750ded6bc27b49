"""The running program: signals, reloads, and whom it tells how it is.

SIGINT and SIGTERM stop it, SIGUSR1 prints a report, and SIGHUP reads the configuration
again, if there is a file.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from pathlib import Path
import signal
import threading
from typing import TYPE_CHECKING

from .configuration import DEVICES, ConfigurationError, read_configuration
from .devices import Devices
from .event_loop import loop_factory
from .flags import flag_of
from .monitor import Monitor
from .notify import Notifier
from .report import report
from .toml_text import toml_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import FrameType

    from ..settings import Settings
    from .devices import StartError

LOGGER = logging.getLogger(__name__)

STOP_SECONDS = 1.5
"""A stop that takes longer is cut short by exiting."""
_GC_THRESHOLD = 5_000
"""Objects until the collector looks for cycles: some 200 connections make as many."""


type _Address = tuple[str | None, int]


def serve(
    wanted: Mapping[str, Settings],
    level: int,
    *,
    file: Path | None = None,
    metrics: _Address | None = None,
) -> None:
    """Share devices until SIGINT or SIGTERM.

    `file` is where they were read. `metrics` is where others may ask how they are.

    Raises:
        ValueError: it cannot start; the text says why and what to do, a line each.

    """
    # Serving requests makes no reference cycles, so the collector would only scan what
    # was imported, over and over. Closed connections are cycles, of asyncio's.
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    asyncio.run(_serve(wanted, level, file, metrics), loop_factory=loop_factory())


async def _serve(
    wanted: Mapping[str, Settings],
    level: int,
    file: Path | None,
    metrics: _Address | None,
) -> None:
    stop = _stop_signal()
    notifier = Notifier()
    devices = Devices(level, detailed=metrics is not None)
    monitor = Monitor(devices)
    # Before it can be seen to run: these signals would end it otherwise.
    _on_signal("SIGUSR1", lambda: print(report(devices), flush=True))  # noqa: T201
    reloads = _Reloads(devices, file, notifier) if file is not None else None
    if reloads is not None:
        _on_signal("SIGHUP", reloads.ask)
    if errors := await devices.start(wanted):
        await devices.stop()
        raise ValueError("\n".join(_explained(errors, file)))
    if metrics is not None:
        try:
            await monitor.start(*metrics)
        except ValueError:
            await devices.stop()
            raise
    notifier.ready()
    if reloads is not None:
        reloads.begin()
    name = await stop
    notifier.stopping()
    if reloads is not None:
        await reloads.end()
    monitor.stop()
    await devices.stop()
    if level < logging.WARNING:
        LOGGER.info("Stopped by %s", name)


def _explained(errors: Iterable[StartError], file: Path | None) -> list[str]:
    """Return why devices could not be started, with what to do."""
    lines = []
    for error in errors:
        setting = flag_of if file is None else str
        table = f"[{DEVICES}.{toml_key(error.device)}]"
        place = f"{file}: {table} " if file is not None else ""
        field = f"{setting(error.field)}: " if error.field else ""
        hint = f"; choose another port with {setting('listen_port')}"
        lines.append(f"{place}{field}{error}{hint if error.is_port else ''}")
    return lines


def _on_signal(name: str, action: Callable[[], object]) -> None:
    """Do something in the event loop at a signal, on systems that have it."""
    number = getattr(signal, name, None)
    if number is not None:
        asyncio.get_running_loop().add_signal_handler(number, action)


class _Reloads:
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
                for line in _explained(errors, self._file):
                    LOGGER.error("%s", line)
                if not errors:
                    LOGGER.info("%s is in force", self._file)
            self._notifier.ready()
        self._task = None


def _stop_signal() -> asyncio.Future[str]:
    """Return a future of the signal, SIGINT or SIGTERM; a second signal kills."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[str] = loop.create_future()
    signals = (signal.SIGINT, signal.SIGTERM)

    def on_signal(number: int, _: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_DFL)
        # Nothing may delay the exit. Name resolution could: it runs in a thread, and
        # Python waits for threads.
        timer = threading.Timer(STOP_SECONDS, os._exit, (0,))
        timer.daemon = True
        timer.start()
        loop.call_soon_threadsafe(stop.set_result, signal.Signals(number).name)

    for each in signals:
        # Not `loop.add_signal_handler`: that would wait for a loop that is stuck.
        signal.signal(each, on_signal)
    return stop
