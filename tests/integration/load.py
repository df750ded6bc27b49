"""A device and clients that keep it busy, as a process of their own.

    python -m tests.integration.load ask|come_and_go|flap REQUESTS_A_SECOND

Prints the device's port, reads the multiplexer's, and then keeps up the rate until
its standard input is closed. Each client has an address of its own. At the end one
line of JSON tells what they saw.
"""

import asyncio
from collections.abc import AsyncGenerator
import contextlib
import json
import sys

from tests.wire import read

from .peers import ModbusClient, ModbusDevice

CLIENTS = 50


class Load:
    """Clients at a common rate, and what they saw."""

    def __init__(self, port: int, rate: int) -> None:
        """Know whom to ask how often."""
        self._port = port
        self._pause = CLIENTS / rate
        self.seen = dict.fromkeys(("answered", "refused", "disconnected"), 0)

    async def ask(self, address: str) -> None:
        """Stay connected and ask at the rate."""
        async for _ in self._beat():
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with ModbusClient(self._port, address) as client:
                    async for _ in self._beat():
                        await self._exchange(client)
            self.seen["disconnected"] += 1

    async def flap(self, address: str) -> None:
        """Ask a device that hangs up after every answer."""
        await self.ask(address)

    async def come_and_go(self, address: str) -> None:
        """Connect for every request, and stay for half of the time."""
        async for _ in self._beat():
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with ModbusClient(self._port, address) as client:
                    await self._exchange(client)
                    await asyncio.sleep(self._pause / 2)
            self.seen["disconnected"] += 1

    async def _beat(self) -> AsyncGenerator[None]:
        """Give the moments at which a client has to act."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            yield
            due = max(due + self._pause, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _exchange(self, client: ModbusClient) -> None:
        answer = await client.ask(read(count=10))
        self.seen["answered" if answer[0] == 3 else "refused"] += 1


async def main(way: str, rate: int) -> None:
    """Run a device and clients until standard input ends."""
    device = ModbusDevice()
    device.hangs_up = way == "flap"
    await device.start()
    stdin = await _stdin()
    print(device.port, flush=True)  # noqa: T201 - to who started this
    load = Load(int(await stdin.readline()), rate)
    clients = [
        asyncio.create_task(getattr(load, way)(f"127.0.0.{i}"))
        for i in range(1, CLIENTS + 1)
    ]
    await stdin.read()
    for client in clients:
        client.cancel()
    await asyncio.wait(clients)
    await device.stop()
    print(json.dumps(load.seen))  # noqa: T201


async def _stdin() -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
