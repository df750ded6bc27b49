"""Solarman V5 as tests write it: frames, and a logger stick on loopback.

Nothing here is the engine's: what tests it must not be wrong in the same way.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
import struct
from typing import Any, cast, override

from tests.engine.serial_line import with_crc

from .waiting import until
from .wire import values

SERIAL = 2_712_345_678
GREETING = b"AT+YZCMPVER=MW3_16U_5406_2.32-D1\r\n\r\n"
PUSHED = (0x4110, 0x4210, 0x4310, 0x4710, 0x4810)
NO_ANSWER = b"\5\0"
REFUSED = b"\6\0"


def v5(
    control: int,
    sequence: int,
    payload: bytes,
    *,
    serial: int = SERIAL,
    count: int = 0,
    wrong: int = 0,
) -> bytes:
    """Give a V5 frame; `wrong` is added to its checksum."""
    head = struct.pack("<HHBBI", len(payload), control, sequence, count, serial)
    total = sum(head + payload) + wrong & 0xFF
    return b"\xa5" + head + payload + bytes((total, 0x15))


def asking(sequence: int, rtu: bytes, serial: int = SERIAL) -> bytes:
    """Give the frame of a request."""
    return v5(0x4510, sequence, b"\2" + bytes(14) + rtu, serial=serial)


def telling(
    sequence: int, rtu: bytes, serial: int = SERIAL, count: int = 0x55, wrong: int = 0
) -> bytes:
    """Give the frame of a response."""
    times = struct.pack("<III", 0x36DC4F, 0x136F, 0x67708B52)
    payload = b"\2\1" + times + rtu
    return v5(0x1510, sequence, payload, serial=serial, count=count, wrong=wrong)


def acknowledging(pushed: bytes, time: int) -> bytes:
    """Give the frame that acknowledges one that a stick has pushed."""
    control, sequence, count, serial = struct.unpack_from("<HBBI", pushed, 3)
    payload = pushed[11:12] + b"\1" + struct.pack("<II", time, 0x78)
    return v5(control - 0x3000, sequence, payload, serial=serial, count=count)


def heartbeat(sequence: int = 1, count: int = 2) -> bytes:
    """Give a heartbeat."""
    return v5(0x4710, sequence, b"\0", count=count)


def answer(request: bytes) -> bytes:
    """Give unit and PDU of an inverter's response: `tests/wire.py` says what it holds.

    Units above 9 are not there, and there are 5,000 registers.
    """
    unit, function = request[:2]
    first, count = int.from_bytes(request[2:4]), int.from_bytes(request[4:6])
    if function in {3, 4} and first + count <= 5000:
        pdu = values(first, count, unit=unit)
        return bytes((unit, function)) + pdu[1:]
    if function in {6, 16}:
        return request[:6]
    return bytes((unit, function | 0x80, 2))


class LoggerStick:
    """A stick with one slot, in front of an inverter."""

    def __init__(self) -> None:
        """Begin switched off."""
        self.port = 0
        self.serial = SERIAL
        self.refuses = False
        """It answers other serial numbers, with its own, instead of being silent."""
        self.requests: list[bytes] = []
        """Unit and PDU of everything that the inverter was asked."""
        self.acknowledged: list[bytes] = []
        """What came that was no request."""
        self.connections = 0
        self.refused = 0
        self.respond: Callable[[int, bytes], bytes] = right
        """Gives the bytes that answer a sequence byte and a request."""
        self.slot: _Slot | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Switch on."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Slot(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Switch off."""
        if self._server is not None:
            self._server.close()
        if self.slot is not None:
            self.slot.transport.abort()
            await until(lambda: self.slot is None)

    def say(self, data: bytes) -> None:
        """Send bytes unasked."""
        assert self.slot is not None
        self.slot.transport.write(data)


def right(sequence: int, request: bytes) -> bytes:
    """Answer as the inverter does."""
    rtu = with_crc(answer(request)) if request[0] < 10 else NO_ANSWER
    return telling(sequence, rtu)


class _Slot(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, stick: LoggerStick) -> None:
        self._stick = stick
        self._buffer = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._stick.slot is None:
            self._stick.slot = self
            self._stick.connections += 1
        else:
            self._stick.refused += 1
            self.transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._stick.slot is self:
            self._stick.slot = None

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) > 12:
            end = 13 + int.from_bytes(self._buffer[1:3], "little")
            frame, self._buffer = self._buffer[:end], self._buffer[end:]
            self._serve(frame)

    def _serve(self, frame: bytes) -> None:
        stick = self._stick
        control, sequence, _, serial = struct.unpack_from("<HBBI", frame, 3)
        if control != 0x4510:
            stick.acknowledged.append(frame)
            return
        request = frame[26:-4]
        assert frame == asking(sequence, with_crc(request), serial)
        if serial == stick.serial:
            stick.requests.append(request)
            self.transport.write(stick.respond(sequence, request))
        elif stick.refuses:
            self.transport.write(telling(sequence, REFUSED, stick.serial))


@asynccontextmanager
async def logger_stick() -> AsyncGenerator[LoggerStick]:
    """Have a stick switched on."""
    stick = LoggerStick()
    await stick.start()
    try:
        yield stick
    finally:
        await stick.stop()


@asynccontextmanager
async def searchable(*answers: bytes) -> AsyncGenerator[tuple[int, list[bytes]]]:
    """Answer a search for sticks; gives the port, and what was asked."""
    asked: list[bytes] = []

    class Responder(asyncio.DatagramProtocol):
        transport: asyncio.DatagramTransport

        @override
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        @override
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            asked.append(data)
            for each in answers:
                self.transport.sendto(each, addr)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        Responder, local_addr=("127.0.0.1", 0)
    )
    try:
        yield transport.get_extra_info("sockname")[1], asked
    finally:
        transport.close()
