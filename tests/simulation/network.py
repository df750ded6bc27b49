"""TCP without a network: links between endpoints, in memory, drawn from a seed.

A `Link` has two `Endpoint`s, which are asyncio transports, and two `Pipe`s, one for
each direction. A pipe delays what is written into it, cuts it at random places and
glues it together again, never changes its order, and holds a bounded number of bytes
that the other side has not read: beyond that they pile up with the writer, as in life.

Endpoints on the program's side act in turns of the loop (see `loop.py`), those on the
world's side at once. A link can be closed, reset (both ends learn of it), or vanish:
then nothing arrives any more, what is written is swallowed, and only keepalive tells,
after a minute or so.

Every write and every read of the program goes into a log that is kept short, and into
a digest by which two runs can be compared.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
import enum
import errno
from itertools import count
from random import Random
import resource
import socket
from typing import Any, cast, override
from zlib import crc32

from .loop import SimulatedLoop

_LOG_LENGTH = 400
_KEEPALIVE_SECONDS = (30.0, 75.0)


class Refusal(enum.Enum):
    """What a host may do with a connection that it does not accept."""

    REFUSED = enum.auto()
    """Say no (RST)."""
    IGNORED = enum.auto()
    """Say nothing."""


class NoDescriptor(AssertionError):  # noqa: N818 - what it is, like KeyboardInterrupt
    """The program has as many sockets open as it may, and wants another one."""


type Accept = Callable[["Link"], asyncio.Protocol | Refusal]


@dataclass(frozen=True)
class Conditions:
    """How the network behaves; times are seconds, shares are of all writes."""

    latency: tuple[float, float] = (0.0002, 0.002)
    """A link's delay in each direction is drawn from this range."""
    jitter: float = 0.001
    """Added to each piece's delay, at most."""
    split: float = 0.05
    merge: float = 0.2
    capacity: tuple[int, int] = (1 << 14, 1 << 16)
    """Bytes that a pipe holds before they pile up with the writer."""
    descriptors: int = 0
    """Sockets that the program may have open at a time; 0: as many as it likes."""

    @property
    def slowest(self) -> float:
        """The longest delay of a piece."""
        return self.latency[1] + self.jitter


class Pipe:
    """One direction of a link."""

    __slots__ = (
        "_delay",
        "_last",
        "_network",
        "_segment",
        "backlog",
        "capacity",
        "finished",
        "link",
        "receiver",
        "sender",
        "unread",
    )

    link: Link
    sender: Endpoint
    receiver: Endpoint

    def __init__(self, network: Network) -> None:
        """Draw the delay and the capacity."""
        conditions, rng = network.conditions, network.rng
        self._network = network
        self._delay = rng.uniform(*conditions.latency)
        self._last = 0.0
        self._segment: list[bytes] | None = None
        self.capacity = rng.randint(*conditions.capacity)
        self.backlog = bytearray()
        """Written, but the pipe is full."""
        self.unread = 0
        """Bytes on their way, or arrived and not read."""
        self.finished = False
        """The end of the stream was sent."""

    def write(self, data: bytes, *, whole: bool = False) -> None:
        """Send; `whole` keeps the bytes in one piece of their own."""
        if self.backlog or self.unread + len(data) > self.capacity:
            self.backlog += data
            self.pump()
        else:
            self._transmit(data, whole=whole)

    def pump(self) -> None:
        """Send of what has piled up as much as the pipe can hold."""
        room = self.capacity - self.unread
        if room > 0 and self.backlog:
            data = bytes(self.backlog[:room])
            del self.backlog[:room]
            self._transmit(data)

    def _transmit(self, data: bytes, *, whole: bool = False) -> None:
        self.unread += len(data)
        network = self._network
        conditions, rng = network.conditions, network.rng
        if whole:
            self._post(self._when(), [data])
            self._segment = None
            return
        if self._segment is not None and rng.random() < conditions.merge:
            self._segment.append(data)
            return
        while len(data) > 1 and rng.random() < conditions.split:
            cut = rng.randrange(1, len(data))
            self._post(self._when(), [data[:cut]])
            data = data[cut:]
        self._segment = [data]
        self._post(self._when(), self._segment)

    def _when(self) -> float:
        """Give when the next piece arrives: not before the one ahead of it."""
        network = self._network
        delay = self._delay + network.conditions.jitter * network.rng.random()
        self._last = max(self._last, network.loop.time() + delay)
        return self._last

    def _post(self, when: float, segment: list[bytes]) -> None:
        self._network.loop.post(when, self._arrive, segment)

    def _arrive(self, segment: list[bytes]) -> None:
        if segment is self._segment:
            self._segment = None
        if not self.link.dead:
            self.receiver.incoming(b"".join(segment))

    def finish(self) -> None:
        """Send the end of the stream behind all that was sent."""
        if not self.finished:
            self.finished = True
            self._segment = None
            self._network.loop.post(self._when(), self._arrive_end)

    def _arrive_end(self) -> None:
        if not self.link.dead:
            self.receiver.incoming_end()

    def consumed(self, count: int) -> None:
        """Note that the receiver read so many bytes: there is room again."""
        self.unread -= count
        if self.backlog:
            self.sender.writable()


class Link:
    """One TCP connection."""

    __slots__ = ("accepted", "dead", "dialled", "network", "number")

    def __init__(self, network: Network, number: int) -> None:
        """Belong to a network; `join` gives it its ends."""
        self.network = network
        self.number = number
        self.dead = False
        """Nothing arrives any more, in either direction."""
        self.dialled: Endpoint
        self.accepted: Endpoint

    def join(
        self, dialled: Endpoint, accepted: Endpoint, there: Pipe, back: Pipe
    ) -> None:
        """Tie the ends and the pipes together."""
        self.dialled, self.accepted = dialled, accepted
        there.link = back.link = self
        there.sender, there.receiver = dialled, accepted
        back.sender, back.receiver = accepted, dialled
        dialled.tie(self, out=there, into=back)
        accepted.tie(self, out=back, into=there)

    @property
    def program(self) -> ProgramEndpoint:
        """The end that is the program's."""
        for end in (self.dialled, self.accepted):
            if isinstance(end, ProgramEndpoint):
                return end
        raise TypeError(self)

    def narrow(self, capacity: int) -> None:
        """Let little be on its way to the end that dialled."""
        self.accepted.narrow(capacity)

    def reset(self) -> None:
        """Break it: both ends learn of it, and what was on its way is lost."""
        if not self.dead:
            self.dead = True
            self.network.note("reset", self.number)
            for end in (self.dialled, self.accepted):
                end.broken(ConnectionResetError(errno.ECONNRESET, "reset by peer"))

    def vanish(self) -> None:
        """Let it go silent: nobody learns of it before keepalive does."""
        if not self.dead:
            self.dead = True
            self.network.note("vanish", self.number)
            loop, rng = self.network.loop, self.network.rng
            for end in (self.dialled, self.accepted):
                when = loop.time() + rng.uniform(*_KEEPALIVE_SECONDS)
                error = TimeoutError(errno.ETIMEDOUT, "keepalive found nobody")
                loop.post(when, end.broken, error)


class Endpoint(asyncio.Transport):
    """One end of a link, on the world's side: it acts at once."""

    def __init__(self, network: Network, name: object, peer: object) -> None:
        """Belong to a network; `name` and `peer` are socket addresses."""
        super().__init__({"sockname": name, "peername": peer, "socket": None})
        self.network = network
        self.link: Link
        self.protocol: asyncio.Protocol | None = None
        self.on_write: Callable[[bytes], None] | None = None
        """Sees each write as it is made."""
        self.on_read: Callable[[bytes], None] | None = None
        """Sees what is read just before the protocol does."""
        self.gone = False
        """`connection_lost` was called: there is no socket any more."""
        self.unread = bytearray()
        """Arrived, not yet read."""
        self._out: Pipe
        self._in: Pipe
        self._reading = True
        self._closing = False
        self._lost = False
        """`connection_lost` was called, or will be in a moment."""
        self._eof_sent = False
        self._eof_arrived = False
        self._eof_told = False
        self._error: OSError | None = None
        self.writing_paused = False
        """Its protocol was told to write no more, and not yet to go on."""
        self._high = 64 << 10
        self._low = 16 << 10
        self.max_size = 256 << 10
        """Bytes read at once, at most; asyncio's socket transports have it, too."""

    def tie(self, link: Link, *, out: Pipe, into: Pipe) -> None:
        """Become one end of `link`."""
        self.link, self._out, self._in = link, out, into

    def begin(self, protocol: asyncio.Protocol) -> None:
        """Hand the connection to a protocol."""
        self.protocol = protocol
        protocol.connection_made(self)
        self.proceed()

    def narrow(self, capacity: int) -> None:
        """Hold no more than so many bytes that the other end has not read."""
        self._out.capacity = capacity

    # What the network does to it

    def incoming(self, data: bytes) -> None:
        """Take bytes that arrived."""
        if self.gone or self._closing:
            # There is nobody to read it: the system tells the sender so.
            self._in.unread -= len(data)
            if self.gone:
                self.network.later(self._in.sender.broken, _connection_reset())
            return
        self.unread += data
        self.proceed()

    def incoming_end(self) -> None:
        """Take the end of the stream."""
        self._eof_arrived = True
        self.proceed()

    def broken(self, error: OSError) -> None:
        """Learn that the connection exists no more."""
        if not self.gone:
            self._error = error
            self.proceed()

    def writable(self) -> None:
        """Learn that there is room for what has piled up."""
        self.proceed()

    def proceed(self) -> None:
        """Do what is to be done."""
        if self.protocol is None:
            return
        if self._writes_wait():
            self._flush()
        while self._read_something():
            pass

    def _writes_wait(self) -> bool:
        return bool(self._out.backlog) and not self._lost

    def _flush(self) -> None:
        """Move on what has piled up, and do what waited for that."""
        if self._error is not None:
            self._lose(self._error)
            return
        out = self._out
        out.pump()
        if self.writing_paused and len(out.backlog) <= self._low:
            self.writing_paused = False
            self._protocol().resume_writing()
        if not out.backlog:
            if self._closing:
                self._lose(None)
            elif self._eof_sent:
                out.finish()

    def _read_something(self) -> bool:
        """Read what arrived, or its end, or an error; tell if there may be more."""
        if not self._reading or self._closing or self._lost:
            return False
        if self.unread:
            data = bytes(self.unread[: self.max_size])
            del self.unread[: self.max_size]
            self._in.consumed(len(data))
            if self.on_read is not None:
                self.on_read(data)
            self._protocol().data_received(data)
            return True
        if self._error is not None:
            self._lose(self._error)
        elif self._eof_arrived and not self._eof_told:
            self._eof_told = True
            self._end_of_stream()
        return False

    def _end_of_stream(self) -> None:
        if not self._protocol().eof_received():
            self.close()

    def _protocol(self) -> asyncio.Protocol:
        assert self.protocol is not None
        return self.protocol

    def _lose(self, error: Exception | None) -> None:
        """Go: the protocol is told, then the socket is closed."""
        if not self._lost:
            self._closing = self._lost = True
            self._soon(self._go, error)

    def _soon(self, callback: Callable[..., object], *args: Any) -> None:
        callback(*args)

    def _go(self, error: Exception | None) -> None:
        self.gone = True
        if self.protocol is not None:
            self.protocol.connection_lost(error)
        self._out.backlog.clear()
        if self.unread:
            # The system resets a connection that is closed before all was read.
            self.network.later(self._out.receiver.broken, _connection_reset())
        else:
            self._out.finish()

    # asyncio.Transport

    @override
    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._write(data)

    def write_whole(self, data: bytes) -> None:
        """Write bytes that arrive together, and without others behind them."""
        self._write(data, whole=True)

    def _write(
        self, data: bytes | bytearray | memoryview[Any], *, whole: bool = False
    ) -> None:
        if self._eof_sent:
            message = "Cannot call write() after write_eof()"
            raise RuntimeError(message)
        if self._closing or self._lost or not data:
            return
        data = bytes(memoryview(data))
        if self.on_write is not None:
            self.on_write(data)
        if self._error is not None:
            self._lose(self._error)
            return
        out = self._out
        out.write(data, whole=whole)
        if len(out.backlog) > self._high and not self.writing_paused:
            self.writing_paused = True
            self._protocol().pause_writing()

    @override
    def writelines(
        self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]
    ) -> None:
        self.write(b"".join(list_of_data))

    @override
    def write_eof(self) -> None:
        if self._closing or self._eof_sent:
            return
        self._eof_sent = True
        if not self._out.backlog:
            self._out.finish()

    @override
    def can_write_eof(self) -> bool:
        return True

    @override
    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if not self._out.backlog:
            self._lose(None)

    @override
    def abort(self) -> None:
        self._out.backlog.clear()
        self._lose(None)

    @override
    def is_closing(self) -> bool:
        return self._closing

    @override
    def is_reading(self) -> bool:
        return self._reading and not self._closing

    @override
    def pause_reading(self) -> None:
        self._reading = False

    @override
    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self.proceed()

    @override
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast("asyncio.Protocol", protocol)

    @override
    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol()

    @override
    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        if high is None:
            high = 64 << 10 if low is None else 4 * low
        self._high = high
        self._low = high // 4 if low is None else low
        if len(self._out.backlog) > self._high and not self.writing_paused:
            self.writing_paused = True
            self._protocol().pause_writing()

    @override
    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    @override
    def get_write_buffer_size(self) -> int:
        return len(self._out.backlog)


class Descriptor:
    """As much of a connected socket as the program asks for where they are limited.

    Its number is as far from the process's limit as that of one of these from theirs.
    """

    def __init__(self, number: int, limit: int) -> None:
        """Be the socket of this number, where there are `limit` of them."""
        self._below = limit - number

    def fileno(self) -> int:
        """Give a number, as a socket would."""
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - self._below

    def setsockopt(self, *_: int) -> None:
        """Take an option that means nothing here."""


class ProgramEndpoint(Endpoint):
    """One end of a link on the program's side: it acts in the loop's turns."""

    _extra: dict[str, object]
    """What `get_extra_info` tells (`asyncio.BaseTransport`)."""

    def __init__(self, network: Network, name: object, peer: object) -> None:
        """Be nobody's yet."""
        super().__init__(network, name, peer)
        self.server: SimulatedServer | None = None
        """The listener that accepted it; None where the program dialled."""
        self.on_begin: Callable[[], None] | None = None
        """Told just before the program's protocol learns of the connection."""
        self.on_leave: Callable[[bool], None] | None = None
        """Told once, when the program closes (True) or learns that the peer left."""
        self.on_gone: Callable[[], None] | None = None
        """Told just before the program's protocol learns that it is gone."""
        self.descriptor = 0
        """Its number among the program's sockets: the lowest that was free."""
        self._woken = False
        self._begun = False

    @override
    def begin(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        self.network.passed += 1  # (its end is noted)
        self.descriptor = self.network.lowest_free()
        if limit := self.network.conditions.descriptors:
            self._extra["socket"] = Descriptor(self.descriptor, limit)
        self.network.open[self] = None
        self.network.loop.call_soon(self._begin)

    def _begin(self) -> None:
        # A real transport calls this even if it was closed in the meantime.
        if self.on_begin is not None:
            self.on_begin()
        self._protocol().connection_made(self)
        self._begun = True
        self.proceed()

    @override
    def proceed(self) -> None:
        """Wait for the next turn, as a socket waits in a selector."""
        if self._woken or not self._begun or self._lost:
            return
        readable = self.unread or self._eof_arrived or self._error is not None
        if (readable and self._reading and not self._closing) or self._writes_wait():
            self._woken = True
            self.network.loop.wake(self)

    def turn(self) -> None:
        """Do what is to be done, once: the rest comes in the next turn."""
        self._woken = False
        if self._writes_wait() and (
            self._error is not None or self._out.unread < self._out.capacity
        ):
            self._flush()
        if self._read_something():
            self.proceed()

    @override
    def _read_something(self) -> bool:
        if self.unread and self._reading and not self._closing:
            data = bytes(self.unread[: self.max_size])
            self.network.record("<", self.link.number, data)
        return super()._read_something()

    @override
    def _write(
        self, data: bytes | bytearray | memoryview[Any], *, whole: bool = False
    ) -> None:
        if not self._closing:
            self.network.record(">", self.link.number, bytes(data))
        super()._write(data, whole=whole)

    @override
    def _soon(self, callback: Callable[..., object], *args: Any) -> None:
        self.network.loop.call_soon(callback, *args)

    def _leaves(self, *, own: bool) -> None:
        if self.on_leave is not None:
            on_leave, self.on_leave = self.on_leave, None
            on_leave(own)

    @override
    def _end_of_stream(self) -> None:
        self.network.note("end", self.link.number)
        self._leaves(own=False)
        super()._end_of_stream()

    @override
    def _lose(self, error: Exception | None) -> None:
        self._leaves(own=error is None)
        super()._lose(error)

    @override
    def close(self) -> None:
        self._leaves(own=True)
        super().close()

    @override
    def _go(self, error: Exception | None) -> None:
        self.network.note("lost", self.link.number, error)
        self.network.open.pop(self, None)
        if self.on_gone is not None:
            self.on_gone()
        super()._go(error)
        if self.server is not None:
            self.server.detach(self)


class SimulatedSocket:
    """As much of a listening socket as one may ask a server for."""

    def __init__(self, address: tuple[str, int]) -> None:
        """Be bound to an address."""
        self.family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._address = address

    def dup(self) -> socket.socket:
        """Refuse: no socket of the system's stands behind it."""
        raise NotImplementedError

    def getsockname(self) -> tuple[Any, ...]:
        """Give the address as a socket would."""
        if self.family is socket.AF_INET6:
            return (*self._address, 0, 0)
        return self._address


class SimulatedServer(asyncio.AbstractServer):
    """The program's listener on one or several addresses."""

    def __init__(
        self,
        network: Network,
        factory: Callable[[], asyncio.BaseProtocol],
        addresses: Sequence[tuple[str, int]],
    ) -> None:
        """Be bound to `addresses`; nothing is accepted before `start_serving`."""
        self._network = network
        self._factory = factory
        self._addresses = addresses
        self._accepting: deque[ProgramEndpoint] = deque()
        self._clients: dict[ProgramEndpoint, None] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._serving = False
        self._closed = False

    @property
    def sockets(self) -> tuple[SimulatedSocket, ...]:
        """The listening sockets; none after `close`."""
        if self._closed:
            return ()
        return tuple(SimulatedSocket(address) for address in self._addresses)

    @override
    async def start_serving(self) -> None:
        self._serving = True

    @override
    def is_serving(self) -> bool:
        return self._serving

    @override
    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._network.loop

    def arrived(self, end: ProgramEndpoint) -> None:
        """Take a connection that the system accepted."""
        self._accepting.append(end)
        if len(self._accepting) == 1:
            self._network.loop.wake(self)

    def turn(self) -> None:
        """Hand the accepted connections to their protocols."""
        while self._accepting:
            end = self._accepting.popleft()
            protocol = cast("asyncio.Protocol", self._factory())
            end.server = self
            self._clients[end] = None
            end.begin(protocol)

    def detach(self, end: ProgramEndpoint) -> None:
        """Note that a client's connection is gone."""
        self._clients.pop(end, None)
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        if self._closed and not self._clients:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    @override
    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._serving = False
        for address in self._addresses:
            del self._network.servers[address]
        while self._accepting:
            self._accepting.popleft().abort()
        self._wake_waiters()

    @override
    def close_clients(self) -> None:
        for end in tuple(self._clients):
            end.close()

    @override
    def abort_clients(self) -> None:
        for end in tuple(self._clients):
            end.abort()

    @override
    async def wait_closed(self) -> None:
        if self._closed and not self._clients:
            return
        waiter = self._network.loop.create_future()
        self._waiters.append(waiter)
        await waiter

    @override
    async def serve_forever(self) -> None:
        await self._network.loop.create_future()


class Network:
    """Hosts, names, listeners and all links between them."""

    def __init__(
        self, loop: SimulatedLoop, rng: Random, conditions: Conditions | None = None
    ) -> None:
        """Serve `loop`; every decision is drawn from `rng`."""
        self.loop = loop
        self.rng = rng
        self.conditions = conditions or Conditions()
        self.names: dict[str, list[str]] = {}
        """What the resolver knows; an address is its own name."""
        self.hosts: dict[tuple[str, int], Accept] = {}
        """What listens on the world's side."""
        self.servers: dict[tuple[str, int], SimulatedServer] = {}
        """What listens on the program's side."""
        self.open: dict[ProgramEndpoint, None] = {}
        """The program's transports that are not yet closed."""
        self.log: deque[tuple[Any, ...]] = deque(maxlen=_LOG_LENGTH)
        self.digest = 0
        self.passed = 0
        """How much was noted or recorded, and how many of the program's links began."""
        self.on_dial: Callable[[], None] | None = None
        """Told when the program begins to connect."""
        self.on_refused: Callable[[], None] | None = None
        """Told when it learns that this was refused."""
        self.syn_again: tuple[float, ...] = ()
        """When TCP repeats an attempt that nobody answers (s after its beginning)."""
        self._sockets: dict[socket.socket, ProgramEndpoint] = {}
        """What the program has connected and not yet begun to use."""
        self._links = 0
        self._ports = 40_000
        loop.network = self

    def lowest_free(self) -> int:
        """Give the number of the next socket, as the system does (POSIX, 2.6).

        Raises:
            NoDescriptor: there may be no more.

        """
        taken = {end.descriptor for end in self.open}
        lowest = next(number for number in count() if number not in taken)
        if 0 < self.conditions.descriptors <= lowest:
            message = f"{lowest} sockets are open, and another one is wanted"
            raise NoDescriptor(message)
        return lowest

    # What was seen

    def note(self, *what: object) -> None:
        """Remember that something happened."""
        time = self.loop.time()
        self.passed += 1
        self.log.append((time, *what))
        self.digest = crc32(f"{time} {what[0]} {what[1]}".encode(), self.digest)

    def record(self, direction: str, link: int, data: bytes) -> None:
        """Remember what the program wrote or read on a link."""
        time = self.loop.time()
        self.passed += 1
        self.log.append((time, direction, link, data))
        self.digest = crc32(data, crc32(b"%r%d" % (time, link), self.digest))

    # What the world uses

    def later(self, callback: Callable[..., object], *args: Any) -> None:
        """Let something happen after a packet's time."""
        delay = self.rng.uniform(*self.conditions.latency)
        self.loop.post(self.loop.time() + delay, callback, *args)

    def dial(
        self,
        protocol: asyncio.Protocol,
        host: str,
        port: int,
        *,
        source: str,
        prepare: Callable[[Link], None],
        refused: Callable[[], None],
    ) -> None:
        """Connect a client of the world to a server of the program.

        `prepare` is called as soon as there is a link, before anything is sent on it.
        """

        def syn() -> None:
            server = self._server(host, port)
            if server is None:
                self.later(refused)
                return
            name = (source, self._next_port())
            link = self._link(
                Endpoint(self, name, (host, port)),
                accepted := ProgramEndpoint(self, (host, port), name),
            )
            prepare(link)
            server.arrived(accepted)
            self.later(link.dialled.begin, protocol)

        self.later(syn)

    def _server(self, host: str, port: int) -> SimulatedServer | None:
        for address in (host, "::" if ":" in host else "0.0.0.0"):  # noqa: S104
            server = self.servers.get((address, port))
            if server is not None and server.is_serving():
                return server
        return None

    def _link(self, dialled: Endpoint, accepted: Endpoint) -> Link:
        self._links += 1
        link = Link(self, self._links)
        link.join(dialled, accepted, Pipe(self), Pipe(self))
        return link

    def _next_port(self) -> int:
        self._ports = self._ports + 1 if self._ports < 65_000 else 40_000
        return self._ports

    # What the program uses, by way of the loop

    async def resolve(self, host: str) -> list[str]:
        """Give a name's addresses.

        Raises:
            OSError: nobody knows the name.

        """
        answer: asyncio.Future[None] = self.loop.create_future()
        self.later(_settle, answer)
        await answer
        if host.replace(".", "").isdigit() or ":" in host:
            return [host]
        addresses = self.names.get(host)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return addresses

    async def connect(
        self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect the program to a host of the world, as `create_connection` does.

        Raises:
            OSError: no address of it accepts.

        """
        error = OSError("no address to try")
        for address in await self.resolve(host):
            try:
                end = await self._connect(address, port)
            except OSError as exc:
                error = exc
                continue
            return await self._begin(factory, end)
        raise error

    async def dialled(self, sock: socket.socket, address: str, port: int) -> None:
        """Connect a socket of the program's, which only stands for one of this world.

        Raises:
            OSError: the address does not accept.

        """
        self._sockets[sock] = await self._connect(address, port)
        self.later(self._see_closed, sock)

    def _see_closed(self, sock: socket.socket) -> None:
        """Close what the program connected and then closed without using it."""
        if sock not in self._sockets:
            return
        if sock.fileno() < 0:
            self._sockets.pop(sock).abort()
        else:
            self.loop.post(self.loop.time() + 1e-3, self._see_closed, sock)

    async def begin(
        self, factory: Callable[[], asyncio.BaseProtocol], sock: socket.socket
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Give a connected socket a protocol."""
        end = self._sockets.pop(sock)
        sock.close()
        return await self._begin(factory, end)

    async def _begin(
        self, factory: Callable[[], asyncio.BaseProtocol], end: ProgramEndpoint
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        protocol = cast("asyncio.Protocol", factory())
        begun: asyncio.Future[None] = self.loop.create_future()
        end.begin(protocol)
        self.loop.call_soon(_settle, begun)
        try:
            await begun
        except BaseException:
            end.close()
            raise
        return end, protocol

    async def _connect(self, address: str, port: int) -> ProgramEndpoint:
        answer: asyncio.Future[ProgramEndpoint] = self.loop.create_future()
        self.note("dial", port)
        if self.on_dial is not None:
            self.on_dial()
        self.later(self._syn, address, port, answer)
        for seconds in self.syn_again:
            when = self.loop.time() + seconds
            self.loop.post(when, self._syn, address, port, answer)
        return await answer

    def _syn(
        self, address: str, port: int, answer: asyncio.Future[ProgramEndpoint]
    ) -> None:
        """Let a connection attempt of the program's arrive at its host."""
        if answer.done():
            return
        accept = self.hosts.get((address, port))
        if accept is None:
            self.later(self._refuse, answer)
            return
        name = ("10.0.0.1", self._next_port())
        end = ProgramEndpoint(self, name, (address, port))
        link = self._link(end, Endpoint(self, (address, port), name))
        verdict = accept(link)
        if isinstance(verdict, asyncio.Protocol):
            link.accepted.begin(verdict)
            self.later(_connected, answer, end)
            return
        link.dead = True
        if verdict is Refusal.REFUSED:
            self.later(self._refuse, answer)

    def _refuse(self, answer: asyncio.Future[ProgramEndpoint]) -> None:
        if not answer.done():
            error = ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed")
            answer.set_exception(error)
            if self.on_refused is not None:
                self.on_refused()

    def serve(
        self,
        factory: Callable[[], asyncio.BaseProtocol],
        hosts: Sequence[str],
        port: int,
    ) -> SimulatedServer:
        """Bind a listener of the program's.

        Raises:
            OSError: an address is taken.

        """
        if port == 0:
            port = self._next_port()
        addresses = [(host, port) for host in hosts]
        for address in addresses:
            if address in self.servers:
                message = f"error while attempting to bind on address {address}"
                raise OSError(errno.EADDRINUSE, message)
        server = SimulatedServer(self, factory, addresses)
        self.servers.update(dict.fromkeys(addresses, server))
        return server


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _connected(future: asyncio.Future[ProgramEndpoint], end: ProgramEndpoint) -> None:
    if not future.done():
        future.set_result(end)
    else:
        # Nobody waits any more: the system closes what it had opened.
        end.abort()


def _connection_reset() -> OSError:
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
