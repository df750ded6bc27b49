"""Run a soak: see `script/soak`."""

import argparse
import asyncio
from contextlib import suppress
import json
from pathlib import Path
import sys
import tempfile
import time
from typing import Any, Final

import aiohttp

from script.demo.run import (
    ROOT,
    HomeAssistant,
    fill,
    free_port,
    run_home_assistant,
)
from tests.integration.peers import ModbusClient, ModbusDevice
from tests.wire import read, values

from .faults import Faults
from .verdict import leaks

HERE: Final = Path(__file__).parent
CLIENTS: Final = 10
PAUSE: Final = 0.1
"""Seconds between two requests of a client."""
SETTLED: Final = 10
"""Minutes after which nothing may grow any more."""
QUIET: Final = 6.0
"""Seconds without traffic before something is measured."""
START_SECONDS: Final = 180


class Traffic:
    """Clients that ask all the time, and what they got."""

    def __init__(self, port: int) -> None:
        """Know whom to ask."""
        self._port = port
        self._tasks: list[asyncio.Task[None]] = []
        self.right = 0
        self.refused = 0
        self.wrong = 0
        self.disconnected = 0

    def begin(self) -> None:
        """Let them ask."""
        self._tasks = [
            asyncio.create_task(self._ask_all_the_time(number))
            for number in range(1, CLIENTS + 1)
        ]

    async def end(self) -> None:
        """Let them go."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask_all_the_time(self, number: int) -> None:
        unit = 1 + number % 2
        address = 0
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                async with ModbusClient(self._port, f"127.0.0.{10 + number}") as client:
                    while True:
                        address = (address + number) % 1000
                        answer = await client.ask(read(address, 10), unit)
                        if answer[0] != 3:
                            self.refused += 1
                        elif answer == values(address, 10, unit=unit):
                            self.right += 1
                        else:
                            self.wrong += 1
                        await asyncio.sleep(PAUSE)
            self.disconnected += 1
            await asyncio.sleep(PAUSE)


class Soak:
    """One soak: a Home Assistant, its device, and all that happens to them."""

    def __init__(self, folder: Path, minutes: int) -> None:
        """Choose the ports."""
        self._folder = folder
        self._minutes = minutes
        self._device = ModbusDevice()
        self._listen = free_port("127.0.0.1")
        self._pages = free_port("127.0.0.1")
        self._url = f"http://127.0.0.1:{self._pages}"
        self._traffic = Traffic(self._listen)

    async def run(self) -> list[str]:
        """Run it; return what it found, in words."""
        await self._device.start()
        components = self._folder / "custom_components"
        components.mkdir(parents=True)
        for source in (ROOT / "custom_components/tcp_multiplexer", HERE / "soak_probe"):
            (components / source.name).symlink_to(source)
        ports = (self._pages, self._listen, self._device.port)
        fill(self._folder, "127.0.0.1", *ports)
        with (self._folder / "configuration.yaml").open("a") as configuration:
            configuration.write("\nsoak_probe:\n")
        hass = asyncio.create_task(run_home_assistant(self._folder))
        try:
            async with aiohttp.ClientSession() as session:
                return await self._soak(session, hass)
        finally:
            hass.cancel()
            await asyncio.gather(hass, return_exceptions=True)
            await self._device.stop()

    async def _soak(
        self, session: aiohttp.ClientSession, hass: asyncio.Task[int]
    ) -> list[str]:
        async with asyncio.timeout(START_SECONDS):
            await HomeAssistant(session, self._url).log_in(first_start=True)

        async def probe(method: str) -> Any:
            async with session.request(
                method, f"{self._url}/api/soak_probe"
            ) as response:
                response.raise_for_status()
                return await response.json()

        faults = Faults(self._device, self._listen).all()
        settled: dict[str, int] = {}
        measured: dict[str, int] = {}
        begin = time.monotonic()
        for minute in range(1, self._minutes + 1):
            self._traffic.begin()
            await asyncio.sleep(10)
            await faults[minute % len(faults)]()
            if minute % 2 and await probe("POST") != [True]:
                return ["it could not be reloaded"]
            await asyncio.sleep(begin + minute * 60 - QUIET - time.monotonic())
            await self._traffic.end()
            await asyncio.sleep(QUIET - 1)
            measured = await probe("GET")
            self._tell(minute, faults[minute % len(faults)].__name__, measured)
            if minute == min(SETTLED, self._minutes):
                settled = measured
            if hass.done():
                return ["Home Assistant has ended"]
        return leaks(settled, measured) + self._complaints()

    def _tell(self, minute: int, fault: str, measured: dict[str, int]) -> None:
        traffic = self._traffic
        seen = {
            "minute": minute,
            "fault": fault,
            "right": traffic.right,
            "refused": traffic.refused,
            "disconnected": traffic.disconnected,
        }
        print(json.dumps(seen | measured), flush=True)

    def _complaints(self) -> list[str]:
        found = []
        if self._traffic.wrong:
            found.append(f"{self._traffic.wrong} wrong answers")
        if not self._traffic.right:
            found.append("not one right answer")
        log = (self._folder / "home-assistant.log").read_text()
        if "Traceback" in log and "custom_components/tcp_multiplexer" in log:
            found.append("an exception in Home Assistant's log")
        return found


def main() -> int:
    """Run it for as long as told; return the exit code."""
    parser = argparse.ArgumentParser(prog="script/soak")
    parser.add_argument("--minutes", type=int, default=60)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(Path(folder), minutes)
        found = asyncio.run(soak.run())
        if found:
            log = Path(folder, "home-assistant.log")
            kept = ROOT / ".soak.log"
            if log.exists():
                kept.write_text(log.read_text())
            print("script/soak: " + "; ".join(found), file=sys.stderr)
            print(f"script/soak: Home Assistant's log is in {kept}", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
