"""A serial line on two pseudo terminals: a real port on either side, the line between.

Bytes travel at the pace of the line. The adapter on our side may echo, noise may come
before or behind what the device says, bytes may come slowly, and the adapter may be
unplugged and plugged in again under the same path.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
import os
from pathlib import Path
import tty

from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

BITS = 10
"""A character without parity."""


class _End:
    """One end of the line: a pseudo terminal, of which we are the master."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)

    @property
    def path(self) -> str:
        """The path under which a program opens it."""
        return os.ttyname(self.slave)

    def close(self) -> None:
        """Take it out of the system."""
        asyncio.get_running_loop().remove_reader(self.master)
        os.close(self.slave)
        os.close(self.master)


class _Wire:
    """One direction of the line: each byte takes its time."""

    def __init__(self, seconds: float, deliver: Callable[[bytes], None]) -> None:
        self.seconds = seconds
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._bytes: deque[tuple[float, int]] = deque()
        self._free_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def send(self, data: bytes) -> None:
        """Send bytes behind what is on its way."""
        at = max(self._free_at, self._loop.time())
        for byte in data:
            at += self.seconds
            self._bytes.append((at, byte))
        self._free_at = at
        self._wait()

    def _wait(self) -> None:
        if self._timer is None and self._bytes:
            self._timer = self._loop.call_at(self._bytes[0][0], self._arrive)

    def _arrive(self) -> None:
        self._timer = None
        arrived = bytearray()
        while self._bytes and self._bytes[0][0] <= self._loop.time() + 1e-4:
            arrived.append(self._bytes.popleft()[1])
        self._deliver(bytes(arrived))
        self._wait()

    def stop(self) -> None:
        """Lose what is on its way."""
        self._bytes.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class PtyLine:
    """The line; `path` is its adapter's."""

    def __init__(self, folder: Path, baudrate: int) -> None:
        """Have an adapter plugged in."""
        self.path = folder / "usb-adapter"
        self.echoes = False
        self.change: Callable[[bytes], bytes] = bytes
        """What becomes of bytes that the device says."""
        self.asked = bytearray()
        """All that reached the device's end."""
        self.silences: list[float] = []
        """Seconds between the last byte on the line and the first of each request."""
        self._loop = asyncio.get_running_loop()
        self._last = 0.0
        self.far = _End()
        self._near: _End | None = None
        seconds = BITS / baudrate
        self.down = _Wire(seconds, self._to_device)
        self.up = _Wire(seconds, self._to_us)
        self._loop.add_reader(self.far.master, self._from_device)
        self.plug_in()

    def plug_in(self) -> None:
        """Plug the adapter in; it gets another terminal under the same path."""
        near = self._near = _End()
        self.path.symlink_to(near.path)
        self._loop.add_reader(near.master, self._from_us, near)

    def unplug(self) -> None:
        """Unplug the adapter."""
        assert self._near is not None
        self._near.close()
        self._near = None
        self.path.unlink()

    def close(self) -> None:
        """Take everything away."""
        if self._near is not None:
            self.unplug()
        self.down.stop()
        self.up.stop()
        self.far.close()

    def _from_us(self, near: _End) -> None:
        data = os.read(near.master, 4096)
        self.silences.append(self._loop.time() - self._last)
        self.down.send(data)

    def _to_device(self, data: bytes) -> None:
        self._last = self._loop.time()
        self.asked += data
        os.write(self.far.master, data)
        if self.echoes:
            self._to_us(data)

    def _from_device(self) -> None:
        with suppress(OSError):  # the device has closed its port
            self.up.send(self.change(os.read(self.far.master, 4096)))

    def _to_us(self, data: bytes) -> None:
        self._last = self._loop.time()
        if self._near is not None:
            os.write(self._near.master, data)


@asynccontextmanager
async def pty_line(folder: Path, baudrate: int = 9600) -> AsyncGenerator[PtyLine]:
    """Have a line with nothing at its far end."""
    line = PtyLine(folder, baudrate)
    try:
        yield line
    finally:
        line.close()


@asynccontextmanager
async def device_on(
    line: PtyLine, device: SimDevice | None = None
) -> AsyncGenerator[ModbusSerialServer]:
    """Have pymodbus' serial server at the far end.

    Without a device of your own, registers hold their address.
    """
    registers = SimData(0, values=list(range(1000)), datatype=DataType.UINT16)
    server = ModbusSerialServer(
        device or SimDevice(1, simdata=[registers]),
        framer=FramerType.RTU,
        port=line.far.path,
        baudrate=9600,
        ignore_missing_devices=True,
    )
    await server.serve_forever(background=True)
    try:
        yield server
    finally:
        await server.shutdown()
