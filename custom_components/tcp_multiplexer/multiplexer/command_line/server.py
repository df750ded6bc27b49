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

from .devices import Devices, explained
from .event_loop import loop_factory
from .flags import flag_of
from .notify import Notifier
from .report import report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import FrameType

    from ..settings import Settings
    from .devices import StartError
    from .monitor import Monitor
    from .reloads import Reloads

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
    # Before it can be seen to run: these signals would end it otherwise.
    _on_signal("SIGUSR1", lambda: print(report(devices), flush=True))  # noqa: T201
    # What only some need is imported for them: it would make others start later.
    reloads: Reloads | None = None
    if file is not None:
        from .reloads import Reloads  # noqa: PLC0415

        reloads = Reloads(devices, file, notifier)
        _on_signal("SIGHUP", reloads.ask)
    if errors := await devices.start(wanted):
        await devices.stop()
        why = _explained(errors) if reloads is None else reloads.explained(errors)
        raise ValueError("\n".join(why))
    monitor: Monitor | None = None
    if metrics is not None:
        from .monitor import Monitor  # noqa: PLC0415

        monitor = Monitor(devices)
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
    if monitor is not None:
        monitor.stop()
    await devices.stop()
    if level < logging.WARNING:
        LOGGER.info("Stopped by %s", name)


def _explained(errors: Iterable[StartError]) -> list[str]:
    """Return why a device could not be started, with the flag that is to blame."""
    return [explained(error, flag_of) for error in errors]


def _on_signal(name: str, action: Callable[[], object]) -> None:
    """Do something in the event loop at a signal, on systems that have it."""
    number = getattr(signal, name, None)
    if number is not None:
        asyncio.get_running_loop().add_signal_handler(number, action)


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
