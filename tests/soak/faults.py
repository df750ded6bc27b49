"""What goes wrong in a soak, one after the other: a minute each."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from tests.integration.peers import ModbusClient, ModbusDevice
from tests.wire import Frame, read

SECONDS: Final = 8.0
"""For which a fault of the device lasts."""
FLOOD: Final = 500
CONNECTS: Final = 200


class Faults:
    """What can go wrong with a device, its clients and the network between them."""

    def __init__(self, device: ModbusDevice, port: int) -> None:
        """Know the device, and where the multiplexer listens."""
        self._device = device
        self._port = port

    def all(self) -> list[Callable[[], Awaitable[None]]]:
        """Return all of them, in the order in which they come."""
        return [
            self.switched_off,
            self.silent,
            self.hangs_up,
            self.slow,
            self.broken_off,
            self.silent_unit,
            self.says_what_nobody_asked,
            self.flood,
            self.connects,
            self.reads_nothing,
            self.sends_garbage,
            self.sends_half,
        ]

    async def switched_off(self) -> None:
        """Be a device that refuses connections."""
        await self._device.stop()
        await asyncio.sleep(SECONDS)
        await self._device.start()

    async def silent(self) -> None:
        """Be a device that answers nothing."""
        self._device.silent = True
        await asyncio.sleep(SECONDS)
        self._device.silent = False

    async def hangs_up(self) -> None:
        """Be a device that closes after every response."""
        self._device.hangs_up = True
        await asyncio.sleep(SECONDS)
        self._device.hangs_up = False

    async def slow(self) -> None:
        """Be a device that needs a second."""
        self._device.delay = 1.0
        await asyncio.sleep(SECONDS)
        self._device.delay = 0.0

    async def broken_off(self) -> None:
        """Be a device whose connection breaks again and again."""
        for _ in range(int(SECONDS)):
            if self._device.connection is not None:
                self._device.connection.transport.abort()
            await asyncio.sleep(1)

    async def silent_unit(self) -> None:
        """Be a gateway before one dead unit."""
        self._device.silent_units = {1}
        await asyncio.sleep(SECONDS)
        self._device.silent_units = set()

    async def says_what_nobody_asked(self) -> None:
        """Be a device that talks."""
        for _ in range(int(SECONDS)):
            if self._device.connection is not None:
                noise = Frame(0xFFFE, 1, read(7)).encoded() + b"\xff" * 40
                self._device.connection.transport.write(noise)
            await asyncio.sleep(1)

    async def flood(self) -> None:
        """Be a client that asks everything at once."""
        with suppress(OSError):
            async with ModbusClient(self._port, "127.0.0.3") as client:
                await client.say(
                    b"".join(
                        Frame(number, 2, read(number)).encoded()
                        for number in range(FLOOD)
                    )
                )
                await asyncio.sleep(SECONDS)

    async def connects(self) -> None:
        """Be a client that comes and goes."""
        for _ in range(CONNECTS):
            with suppress(OSError):
                async with ModbusClient(self._port, "127.0.0.3"):
                    pass
            await asyncio.sleep(SECONDS / CONNECTS)

    async def reads_nothing(self) -> None:
        """Be clients that ask and do not read."""
        with suppress(OSError):
            async with ModbusClient(self._port, "127.0.0.3") as client:
                ask = Frame(1, 2, read(0, 125)).encoded()
                for number in range(FLOOD):
                    await client.say(number.to_bytes(2) + ask[2:])
                await asyncio.sleep(SECONDS)

    async def sends_garbage(self) -> None:
        """Be clients that speak something else."""
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 300, b"\x16\x03\x01" * 9):
            with suppress(OSError):
                async with ModbusClient(self._port, "127.0.0.3") as client:
                    await client.say(data)
                    await asyncio.sleep(1)

    async def sends_half(self) -> None:
        """Be a client that never sends the rest."""
        with suppress(OSError):
            async with ModbusClient(self._port, "127.0.0.3") as client:
                await client.say(Frame(1, 1, read()).encoded()[:7])
                await asyncio.sleep(SECONDS)
