"""A device and its clients on loopback sockets, as real ones behave.

The device speaks Modbus/TCP and has one slot, like most inverters: a second
connection is closed at once. What it holds in a register is the register's address,
so that a wrong answer is seen.
"""

import asyncio
from collections.abc import AsyncIterator
import contextlib
import ssl
from types import TracebackType
from typing import Self, override

from tests.waiting import until
from tests.wire import values


class ModbusDevice:
    """A device with one slot."""

    def __init__(self) -> None:
        """Begin switched off."""
        self.port = 0
        self.requests: list[bytes] = []
        """Unit and PDU of everything that was asked."""
        self.delay = 0.0
        """Seconds between a request and its answer."""
        self.silent = False
        """Take requests and answer none."""
        self.silent_units: set[int] = set()
        """The same for these units only."""
        self.hangs_up = False
        """Close the connection after every answer, or instead of it if silent."""
        self.closes_on_garbage = False
        """Close the connection on what is no Modbus, instead of waiting for more."""
        self.tls: ssl.SSLContext | None = None
        """Speak within TLS."""
        self.connection: _DeviceConnection | None = None
        self._server: asyncio.Server | None = None

    async def start(self, address: str = "127.0.0.1") -> None:
        """Switch on, at the same port as before."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _DeviceConnection(self), address, self.port, ssl=self.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    @contextlib.asynccontextmanager
    async def also(self) -> AsyncIterator[int]:
        """Listen on another port too, for the same slot."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: _DeviceConnection(self), "127.0.0.1", 0
        )
        yield server.sockets[0].getsockname()[1]
        server.close()

    async def stop(self) -> None:
        """Switch off."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self.connection is not None:
            self.connection.transport.abort()
            await until(lambda: self.connection is None)

    def answer(self, request: bytes) -> bytes:
        """Give unit and PDU of the answer to a unit and a PDU."""
        unit, function = request[:1], request[1]
        if function in {3, 4}:
            address, count = request[2:4], request[4:6]
            pdu = values(int.from_bytes(address), int.from_bytes(count), unit=unit[0])
            return unit + bytes((function,)) + pdu[1:]
        if function in {5, 6, 15, 16}:
            return request[:6]
        return unit + bytes((function | 0x80, 1))


class _DeviceConnection(asyncio.Protocol):
    """The device's slot."""

    transport: asyncio.Transport

    def __init__(self, device: ModbusDevice) -> None:
        self._device = device
        self._buffer = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._device.connection is None:
            self._device.connection = self
        else:
            transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._device.connection is self:
            self._device.connection = None

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._device.closes_on_garbage and any(self._buffer[2:4]):
            self.transport.close()
            return
        while len(self._buffer) >= 8:
            end = 6 + int.from_bytes(self._buffer[4:6])
            if len(self._buffer) < end:
                return
            frame, self._buffer = self._buffer[:end], self._buffer[end:]
            device = self._device
            device.requests.append(frame[6:])
            if device.silent or frame[6] in device.silent_units:
                if device.hangs_up:
                    self.transport.close()
                continue
            answer = device.answer(frame[6:])
            reply = frame[:4] + len(answer).to_bytes(2) + answer
            if device.delay:
                asyncio.get_running_loop().call_later(
                    device.delay, self.transport.write, reply
                )
            else:
                self.transport.write(reply)
            if device.hangs_up:
                self.transport.close()


class ModbusClient:
    """A client that asks and waits for the answer."""

    def __init__(
        self,
        port: int,
        address: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Know where to connect, from which address of this machine, and how."""
        self._port = port
        self._address = address
        self._tls = tls
        self._transaction = 0

    async def __aenter__(self) -> Self:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=(self._address, 0), ssl=self._tls
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection."""
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def ask(self, pdu: bytes, unit: int = 1) -> bytes:
        """Give the PDU that answers `pdu`.

        Raises:
            IncompleteReadError: the connection was closed instead.
            OSError: it was broken off.

        """
        self._transaction = (self._transaction + 1) % 0x10000
        header = self._transaction.to_bytes(2) + b"\0\0"
        request = bytes((unit,)) + pdu
        self._writer.write(header + len(request).to_bytes(2) + request)
        head = await self._reader.readexactly(6)
        body = await self._reader.readexactly(int.from_bytes(head[4:6]))
        assert head[:4] == header
        assert body[0] == unit
        return body[1:]

    async def say(self, data: bytes) -> None:
        """Send bytes, whatever they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def closed(self) -> bool:
        """Wait until the other side closes the connection."""
        with contextlib.suppress(ConnectionError):
            return await self._reader.read(1) == b""
        return True
