"""A Modbus/TCP device and a Modbus/TCP client whose every step a test decides.

Both frame by themselves and trust what they read: they must not be wrong in the same
way as what they test. Nothing here takes time: a device that is to be slow holds its
answers until it is told to give them.

What registers hold, `tests/wire.py` says.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
import socket
import ssl
import struct
from typing import NamedTuple, Self, cast, override

from custom_components.tcp_multiplexer.multiplexer import Multiplexer
from tests.waiting import PATIENCE, until
from tests.wire import Frame, cut_frames, exception, read, values

# ---- the device -----------------------------------------------------------------


class Link(asyncio.Protocol):
    """One connection to the device, from its side."""

    transport: asyncio.Transport

    def __init__(self, device: Device) -> None:
        """Belong to `device`."""
        self.device = device
        self.open = False
        self.received = bytearray()
        """Everything that came on it."""
        self._buffer = bytearray()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        device = self.device
        if device.slots is not None and len(device.open_links) >= device.slots:
            device.refused += 1
            self.transport.close()
            return
        if device.newest_wins:
            for link in device.open_links:
                link.transport.close()
        self.open = True
        device.links.append(self)
        device.most_open = max(device.most_open, len(device.open_links))
        self.transport.write(device.greeting)

    @override
    def data_received(self, data: bytes) -> None:
        if not self.open:
            return
        self.received += data
        self._buffer += data
        for frame in cut_frames(self._buffer):
            asked = Asked(self, *frame)
            self.device.requests.append(asked)
            script = self.device.script
            (script.popleft() if script else self.device.respond)(asked)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False


class Asked(NamedTuple):
    """One request as the device got it."""

    link: Link
    transaction: int
    unit: int
    pdu: bytes

    def frame(self, pdu: bytes | None = None) -> bytes:
        """Give the frame that answers it, with the right PDU or another."""
        if pdu is None:
            pdu = self.link.device.answer(self.unit, self.pdu)
        return Frame(self.transaction, self.unit, pdu).encoded()


type Responder = Callable[[Asked], object]


class Device:
    """Accepts `slots` connections at a time (None: any number), closes others."""

    def __init__(self, *, slots: int | None = 1) -> None:
        """Begin switched off."""
        self.port = 0
        self.slots = slots
        self.newest_wins = False
        """It drops older connections for a newer one."""
        self.greeting = b""
        """What it says to a new connection, unasked."""
        self.links: list[Link] = []
        """Every connection that had a slot, in order."""
        self.refused = 0
        self.most_open = 0
        """The most connections open at the same time."""
        self.requests: list[Asked] = []
        """Every request, in the order in which they came."""
        self.held: list[Asked] = []
        """Requests whose answers are held back."""
        self.respond: Responder = answer
        """What is done with a request."""
        self.script: deque[Responder] = deque()
        """What is done with the next requests instead."""
        self._registers: dict[tuple[int, int], int] = {}
        self._server: asyncio.Server | None = None

    @property
    def open_links(self) -> list[Link]:
        """The connections that are open now."""
        return [link for link in self.links if link.open]

    @property
    def asked(self) -> list[bytes]:
        """The PDUs of all requests."""
        return [asked.pdu for asked in self.requests]

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Switch on, at the same port as before."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Link(self), "127.0.0.1", self.port, ssl=tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Accept no connection any more; those that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def stop(self) -> None:
        """Switch off: its connections are reset, and none is accepted any more."""
        self.refuse()
        for link in self.open_links:
            link.transport.abort()
        await until(lambda: not self.open_links)

    def hold(self) -> None:
        """Hold answers back from now on; they gather in `held`."""
        self.respond = self.keep

    def keep(self, asked: Asked) -> None:
        """Hold this answer back."""
        self.held.append(asked)

    async def holds(self, count: int) -> None:
        """Wait until `count` answers are held back."""
        await until(lambda: len(self.held) >= count)

    def release(self) -> None:
        """Give the answers held back, and hold no more."""
        self.respond = answer
        held, self.held = self.held, []
        for asked in held:
            answer(asked)

    async def has_been_asked(self, count: int) -> None:
        """Wait until there were `count` requests."""
        await until(lambda: len(self.requests) >= count)

    def answer(self, unit: int, pdu: bytes) -> bytes:
        """Do what a request asks, and give the PDU that answers it."""
        function = pdu[0]
        if function in {3, 4}:
            address, count = struct.unpack_from(">HH", pdu, 1)
            words = [self._register(unit, address + i) for i in range(count)]
            return struct.pack(f">BB{count}H", function, 2 * count, *words)
        if function == 6:
            address, value = struct.unpack_from(">HH", pdu, 1)
            self._registers[unit, address] = value
            return pdu
        if function == 16:
            address, count = struct.unpack_from(">HH", pdu, 1)
            for i, value in enumerate(struct.unpack_from(f">{count}H", pdu, 6)):
                self._registers[unit, address + i] = value
            return pdu[:5]
        return exception(function, 1)

    def _register(self, unit: int, address: int) -> int:
        return self._registers.get((unit, address), (unit * 1000 + address) & 0xFFFF)


type Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(peer: Peer) -> AsyncGenerator[int]:
    """Have a device of few lines, for other protocols; gives its port."""
    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await peer(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in filter(None, tasks):
            task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)


@asynccontextmanager
async def running(*, slots: int | None = 1) -> AsyncGenerator[Device]:
    """Have a device switched on."""
    device = Device(slots=slots)
    await device.start()
    try:
        yield device
    finally:
        await device.stop()


# What a device may do with a request.


def answer(asked: Asked) -> None:
    """Answer it."""
    if not asked.link.transport.is_closing():
        asked.link.transport.write(asked.frame())


def ignore(asked: Asked) -> None:
    """Say nothing."""


def hang_up(asked: Asked) -> None:
    """Close the connection."""
    asked.link.transport.close()


def reset(asked: Asked) -> None:
    """Break the connection off."""
    abort(asked.link.transport)


def send(*parts: bytes | Callable[[Asked], bytes]) -> Responder:
    """Send these bytes, or what these functions give."""

    def respond(asked: Asked) -> None:
        data = [part if isinstance(part, bytes) else part(asked) for part in parts]
        asked.link.transport.write(b"".join(data))

    return respond


def abort(transport: asyncio.WriteTransport) -> None:
    """Close a connection with a reset rather than an end."""
    sock: socket.socket = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


# ---- the client -----------------------------------------------------------------


class Client:
    """A Modbus/TCP client."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Use an open connection."""
        self.reader = reader
        self.writer = writer
        self._transaction = 0
        self._buffer = bytearray()
        self._frames: deque[Frame] = deque()

    @classmethod
    async def connect(
        cls, port: int, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> Self:
        """Connect to a multiplexer."""
        return cls(*await asyncio.open_connection(host, port, ssl=tls))

    @property
    def address(self) -> tuple[str, int]:
        """Its own address and port."""
        host, port = self.writer.get_extra_info("sockname")[:2]
        return host, port

    def send(self, *pdus: bytes, unit: int = 1) -> None:
        """Send requests, numbered from 1 on, in one piece."""
        data = b""
        for pdu in pdus:
            self._transaction += 1
            data += Frame(self._transaction, unit, pdu).encoded()
        self.writer.write(data)

    async def receive(self) -> Frame:
        """Give the next frame that comes.

        Raises:
            EOFError: the connection was closed, or reset, instead.

        """
        async with asyncio.timeout(PATIENCE):
            while not self._frames:
                try:
                    data = await self.reader.read(65536)
                except ConnectionError:
                    data = b""
                if not data:
                    raise EOFError
                self._buffer += data
                self._frames.extend(cut_frames(self._buffer))
        return self._frames.popleft()

    async def ask(self, pdu: bytes, *, unit: int = 1) -> bytes:
        """Send a request and give the PDU of its answer."""
        self.send(pdu, unit=unit)
        frame = await self.receive()
        assert frame[:2] == (self._transaction, unit)
        return frame.pdu

    async def closed(self) -> bool:
        """Wait for the end; tell whether nothing else came before it."""
        try:
            await self.receive()
        except EOFError:
            return True
        return False

    def half_close(self) -> None:
        """Send no more, but listen."""
        self.writer.write_eof()

    def close(self) -> None:
        """Leave."""
        self.writer.close()

    def reset(self) -> None:
        """Leave without a word."""
        abort(self.writer.transport)


def port_of(multiplexer: Multiplexer) -> int:
    """Give the port that a multiplexer listens on."""
    return multiplexer.snapshot().listen_addresses[0][1]


async def spread(device: Device, clients: Sequence[Client]) -> None:
    """Let clients ask side by side until each has a connection to the device.

    Connections are opened one by one, each when the one before has proved itself.
    """
    for connections in range(1, len(clients) + 1):
        device.hold()
        for number, client in enumerate(clients):
            client.send(read(number))
        await device.holds(connections)
        device.release()
        for number, client in enumerate(clients):
            assert (await client.receive()).pdu == values(number)


# ---- the surroundings -----------------------------------------------------------


@contextmanager
def silent_port(host: str = "127.0.0.1", port: int = 0) -> Generator[int]:
    """Have a port of a device that is there and does not answer, not even to connect.

    A listener whose backlog is full makes the system ignore who knocks.
    """
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server((host, port)))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(2):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield address[1]


def open_sockets() -> set[str]:
    """Give the sockets that this process has open."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            target = str(descriptor.readlink())
            if target.startswith("socket:"):
                found.add(target)
    return found


async def taken_of_flood(
    device: Device, multiplexer: Multiplexer, messages: int
) -> list[int]:
    """Have a device send long messages that nobody asked for, until all are taken.

    Give how many were taken in each turn of the loop that took any.
    """
    unasked = Frame(0xFFFF, 1, values(count=20)).encoded()
    device.links[-1].transport.write(unasked * messages)
    taken, at_a_time = 0, []
    async with asyncio.timeout(PATIENCE):
        while taken < messages:
            await asyncio.sleep(0)  # one turn of the loop
            before, taken = taken, multiplexer.snapshot().unsolicited_responses
            if taken > before:
                at_a_time.append(taken - before)
    return at_a_time
