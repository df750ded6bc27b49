"""Measures what Home Assistant's own Modbus hub costs another client.

A real Home Assistant runs the integration. Its `modbus` hub, from YAML and with its
defaults, polls four sensors of a unit that is silent; another client polls a unit that
lives, through the same multiplexer: every second, and then without pause. The same is
measured first without a hub.

    benchmarks/modbus_hub.py                 a minute of each
    benchmarks/modbus_hub.py --seconds 300
"""

import argparse
import asyncio
from contextlib import suppress
from pathlib import Path
import socket
from statistics import median
import sys
from tempfile import TemporaryDirectory
import time
from typing import Any, NamedTuple, override

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.home_assistant import entry, home_assistant  # noqa: E402
from script.demo.run import free_port  # noqa: E402
from tests.engine.serial_line import with_crc  # noqa: E402

LIVING, SILENT = 1, 2
SERVICE = 0.02
"""Seconds that the device takes for a response."""
SETTLES = 75
"""Seconds that a hub has to connect: it tries again after a minute."""


class Gateway(NamedTuple):
    """A device, and what stands before its silent unit."""

    name: str
    holds: float = 0.0
    """Seconds for which it waits for that, serving nobody else; 0: it forgets it."""
    loses: bool = False
    """It loses what comes meanwhile."""
    rtu: bool = False


GATEWAYS = (
    Gateway("drops the request"),
    Gateway("waits 1 s, in order", 1.0),
    Gateway("waits 3 s, in order", 3.0),
    Gateway("waits 1 s, loses others", 1.0, loses=True),
    Gateway("RTU", rtu=True),
)


class Device(asyncio.Protocol):
    """One connection to a device that serves all in order."""

    def __init__(self, gateway: Gateway, asked: dict[int, int]) -> None:
        """Count in `asked` how often which unit was."""
        self._gateway = gateway
        self._asked = asked
        self._buffer = b""
        self._free_at = 0.0

    @override
    def connection_made(self, transport: Any) -> None:
        """Be connected."""
        self._transport = transport
        self._asked[0] = self._asked.get(0, 0) + 1

    @override
    def data_received(self, data: bytes) -> None:
        """Take requests for registers."""
        self._buffer += data
        size = 8 if self._gateway.rtu else 12
        while len(self._buffer) >= size:
            frame, self._buffer = self._buffer[:size], self._buffer[size:]
            self._take(frame if self._gateway.rtu else frame[6:], frame[:2])

    def _take(self, pdu: bytes, number: bytes) -> None:
        loop, unit = asyncio.get_running_loop(), pdu[0]
        now = loop.time()
        self._asked[unit] = self._asked.get(unit, 0) + 1
        if unit == SILENT:
            if self._gateway.holds:
                self._free_at = max(now, self._free_at) + self._gateway.holds
            return
        if self._gateway.loses and now < self._free_at:
            return
        self._free_at = max(now, self._free_at) + SERVICE
        values = pdu[:2] + bytes((2 * pdu[5],)) + pdu[2:4] * pdu[5]
        if self._gateway.rtu:
            response = with_crc(values)
        else:
            response = number + b"\0\0" + len(values).to_bytes(2) + values
        loop.call_at(self._free_at, self._transport.write, response)


class Polled(NamedTuple):
    """How another client fared."""

    asked: int
    right: int
    slowest: float
    median: float


async def poll(port: int, seconds: float, pause: float) -> Polled:
    """Read registers of the living unit, each other ones than before."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    waits, asked, right, end = [], 0, 0, time.monotonic() + seconds
    while time.monotonic() < end:
        asked += 1
        address = (asked * 7919 & 0x7FFF).to_bytes(2)
        began = time.monotonic()
        head = (asked & 0xFFFF).to_bytes(2) + b"\0\0\0\6"
        writer.write(head + bytes((LIVING, 3)) + address + b"\0\1")
        response = await reader.readexactly(6)
        response += await reader.readexactly(response[5])
        waits.append(time.monotonic() - began)
        right += response[6:] == bytes((LIVING, 3, 2)) + address
        await asyncio.sleep(max(0.0, pause - waits[-1]) if pause else 0)
    writer.close()
    return Polled(asked, right, max(waits), median(waits))


def hub(port: int, number: int) -> str:
    """Give the YAML of a hub that polls the silent unit."""
    sensors = "".join(
        f"      - {{name: s{number}_{n}, slave: {SILENT}, address: {10 * n}}}\n"
        for n in range(4)
    )
    return (
        f"  - name: hub{number}\n    type: tcp\n    host: 127.0.0.1\n"
        f"    port: {port}\n    sensors:\n{sensors}"
    )


CONNECT = """
automation:
  - alias: Connect the hubs as soon as the multiplexer listens
    triggers: [{trigger: homeassistant, event: start}]
    actions: [{delay: 5}, {action: modbus.reload}]
"""


def entries(devices: list[int], ports: list[int]) -> list[dict[str, Any]]:
    """Give an entry for each gateway."""
    return [
        entry(
            number,
            {
                "port": device,
                "listen_port": port,
                **({"upstream": "rtu"} if gateway.rtu else {}),
            },
            {},
        )
        for number, (gateway, device, port) in enumerate(
            zip(GATEWAYS, devices, ports, strict=True)
        )
    ]


async def wait_for(port: int) -> None:
    """Return once somebody listens."""
    for _ in range(600):
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        await asyncio.sleep(0.2)
    raise TimeoutError("Home Assistant does not listen")


async def measure(folder: Path, seconds: float, *, hubs: bool) -> None:
    """Run a Home Assistant, with hubs or without, and poll beside it."""
    loop = asyncio.get_running_loop()
    asked: list[dict[int, int]] = [{} for _ in GATEWAYS]
    servers = [
        await loop.create_server(
            lambda gateway=gateway, counts=counts: Device(gateway, counts),  # type: ignore[misc]
            "127.0.0.1",
            0,
        )
        for gateway, counts in zip(GATEWAYS, asked, strict=True)
    ]
    devices = [server.sockets[0].getsockname()[1] for server in servers]
    ports = [free_port("127.0.0.1") for _ in GATEWAYS]
    yaml = "modbus:\n" + "".join(hub(p, n) for n, p in enumerate(ports)) + CONNECT
    hass = Path(sys.executable).with_name("hass")
    with home_assistant(hass, folder, entries(devices, ports), yaml if hubs else ""):
        for port in ports:
            await wait_for(port)
        end = loop.time() + SETTLES
        while hubs and loop.time() < end and not all(SILENT in a for a in asked):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        for pause in (1.0, 0.0):
            before = [dict(counts) for counts in asked]
            polls = [poll(port, seconds, pause) for port in ports]
            polled = await asyncio.gather(*polls)
            for gateway, was, counts, got in zip(
                GATEWAYS, before, asked, polled, strict=True
            ):
                silent = counts.get(SILENT, 0) - was.get(SILENT, 0)
                print(
                    f"{gateway.name:24} {'hub' if hubs else '-':4} {pause:3.0f} s"
                    f" {got.asked:6} {got.right:6} {got.slowest:8.3f} {got.median:8.3f}"
                    f" {silent:6} {counts.get(0, 0) - was.get(0, 0):6}",
                    flush=True,
                )
    for server in servers:
        server.close()


async def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    seconds = parser.parse_args().seconds
    print(f"{'':33}  asked  right  slowest   median silent connects")
    with TemporaryDirectory() as folder:
        for hubs in (False, True):
            await measure(Path(folder) / f"hubs{hubs:d}", seconds, hubs=hubs)


if __name__ == "__main__":
    asyncio.run(main())
