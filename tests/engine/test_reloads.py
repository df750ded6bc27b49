"""When the file of the devices is read again; test_run.py does it by signals."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from custom_components.tcp_multiplexer.multiplexer.command_line.reloads import Reloads
from tests.waiting import until

FILE = """
[devices.meter]
host = "10.0.0.1"
port = 502
listen_port = 5020
"""


class Devices:
    """Notes what is wanted, and takes its time."""

    def __init__(self) -> None:
        self.wanted: list[list[str]] = []
        self.done = asyncio.Event()

    async def change(self, wanted: dict[str, Any]) -> list[Any]:
        """Change nothing."""
        self.wanted.append([*wanted])
        await self.done.wait()
        return []


class Notifier:
    """Notes what the service manager is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def reloading(self) -> None:
        """Note that a reload has begun."""
        self.told.append("reloading")

    def ready(self) -> None:
        """Note that it has ended."""
        self.told.append("ready")


def reloading(folder: Path) -> tuple[Reloads, Devices, Notifier]:
    """Return what reads a file again, whose devices it changes and whom it tells."""
    file = folder / "devices.toml"
    file.write_text(FILE)
    devices, notifier = Devices(), Notifier()
    reloads = Reloads(cast("Any", devices), file, cast("Any", notifier))
    return reloads, devices, notifier


async def test_reloads_follow_each_other_and_the_start(tmp_path: Path) -> None:
    reloads, devices, notifier = reloading(tmp_path)
    reloads.ask()
    assert not notifier.told  # The devices are still being started.
    reloads.begin()
    await until(lambda: devices.wanted)
    reloads.ask()
    reloads.ask()
    assert devices.wanted == [["meter"]]
    devices.done.set()
    await until(lambda: len(devices.wanted) == 2)
    await reloads.end()
    assert notifier.told == ["reloading", "ready"] * 2


async def test_the_end_waits_for_the_reload_that_is_under_way(tmp_path: Path) -> None:
    reloads, devices, notifier = reloading(tmp_path)
    reloads.begin()
    assert not notifier.told
    reloads.ask()
    await until(lambda: devices.wanted)
    end = asyncio.ensure_future(reloads.end())
    await asyncio.sleep(0)
    assert not end.done()
    devices.done.set()
    await end
    assert notifier.told == ["reloading", "ready"]
