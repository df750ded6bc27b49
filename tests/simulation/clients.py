"""Simulated clients of several temperaments, all numbering their requests alike.

Each is a protocol on an endpoint of the world's side; it comes back whenever its
connection ends. What it is answered is judged by the `Watch` as the engine writes it;
the client itself checks only that it gets what was written.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Protocol, override

from .dialects import Ask, Dialect, ModbusDialect, Verdict
from .faces import Face
from .invariants import Watch
from .network import Endpoint, Link, Network
from .questions import Asker, Question, Violation

_AWAY = (0.01, 1.0)
"""Seconds after which a client comes back."""
_BORED = (0.2, 1.0)
"""Seconds that a client waits after the multiplexer excused itself, for each request
that it has open."""


class Scene(Protocol):
    """What a client must know of the world."""

    network: Network
    dialect: Dialect
    watch: Watch
    address: tuple[str, int]
    """Where the multiplexer listens."""
    rtu_address: tuple[str, int]
    """Where it listens for clients that speak RTU."""
    face: Face
    """How clients frame what they say."""
    rtu_face: Face
    winding_down: bool
    """Nothing more is asked."""


@dataclass(frozen=True, kw_only=True)
class Temper:
    """How a client asks; times are seconds."""

    depth: int = 1
    """Requests that it has open at a time."""
    think: tuple[float, float] = (0.0, 0.03)
    """Between an answer and the next request."""
    constant: bool = False
    """All its requests have the same identifier."""
    rtu: bool = False
    """It speaks RTU."""
    repeats: float = 0.0
    """The share of its requests that repeat its last write, if that was confirmed."""


class SimulatedClient(asyncio.Protocol):
    """A patient client: asks, waits for the answer, asks again."""

    def __init__(
        self, scene: Scene, rng: Random, source: str, temper: Temper | None = None
    ) -> None:
        """Come from the address `source`."""
        self.scene = scene
        self.rng = rng
        self.source = source
        self.temper = temper or Temper()
        self.face = scene.rtu_face if self.temper.rtu else scene.face
        self.loop = scene.network.loop
        self.connected = False
        self.answers = 0
        self.link: Link
        self.asker: Asker
        self.open: dict[int, Question] = {}
        self._order: deque[Question] = deque()
        self._connections = 0
        self._excused = False
        """The multiplexer excused itself last."""
        self._confirmed: Ask | None = None
        """Its last write, once that was confirmed."""
        self._tid = 0
        self._buffer = bytearray()

    @property
    def end(self) -> Endpoint:
        """Give the client's end of its connection."""
        return self.link.dialled

    def connect(self) -> None:
        """Connect, if there is something left to do."""
        if self.scene.winding_down:
            return
        scene = self.scene
        host, port = scene.rtu_address if self.temper.rtu else scene.address
        self.scene.network.dial(
            self,
            host,
            port,
            source=self.source,
            prepare=self.prepare,
            refused=lambda: self.after(0.5, self.connect),
        )

    def prepare(self, link: Link) -> None:
        """Be told of a new connection, before anything is sent on it."""
        self.link = link
        self._connections += 1
        name = f"{type(self).__name__} {self.source}#{self._connections}"
        self.asker = self.scene.watch.accept(link, name, self.face)
        self.open.clear()
        self._order.clear()
        self._buffer.clear()
        self._tid = 0

    def after(self, seconds: float, callback: Callable[[], object]) -> None:
        """Do something later."""
        self.loop.post(self.loop.time() + seconds, callback)

    def within(self, seconds: float, callback: Callable[[], object]) -> None:
        """Do something later, if this connection is still there then."""
        link = self.link

        def still() -> None:
            if self.connected and self.link is link:
                callback()

        self.after(seconds, still)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connected = True
        self.begin()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.connected = False
        self.asker.left = True
        pause = _BORED if self._excused else _AWAY
        self.after(self.rng.uniform(*pause), self.connect)

    def begin(self) -> None:
        """Start to ask on a new connection."""
        self.ask_on()

    def ask_on(self) -> None:
        """Ask until enough is open."""
        while len(self.open) < self.temper.depth and self.may_ask():
            self.ask()

    def may_ask(self) -> bool:
        """Tell whether there is anything to ask, and anybody to ask it."""
        return (
            self.connected
            and not self.scene.winding_down
            and not self.end.is_closing()
            and not self.asker.left
        )

    def ask(self) -> Question:
        """Ask something."""
        face = self.face
        ask = self._confirmed if self.temper.repeats > self.rng.random() else None
        ask = ask or face.ask(self.rng)
        if ask.writes is not None:
            self._confirmed = None
        self._tid = 1 if self.temper.constant else self._tid + 1
        tid = self._tid if face.correlated else 0
        data = face.pack(tid, ask.body)
        question = self.scene.watch.asked(self.asker, tid, ask, len(data))
        self.open[self._tid] = question
        self._order.append(question)
        self.send(data)
        return question

    def send(self, data: bytes) -> None:
        """Send a request."""
        self.end.write(data)

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for tid, _ in self.face.cut_answers(self._buffer):
            if self.asker.offended and not self.open:
                return  # the multiplexer's last words
            if self.face.correlated:
                question = self.open.pop(tid)
            else:
                question = self._order.popleft()
                del self.open[next(iter(self.open))]
            self.answers += 1
            if question.ask.writes is not None and question.verdict is Verdict.RIGHT:
                self._confirmed = question.ask
            self.answered(question)

    def answered(self, question: Question) -> None:
        """Think about an answer, then go on."""
        self._excused = question.verdict is Verdict.GATEWAY
        if self._excused:
            pause = self.rng.uniform(*_BORED) * self.temper.depth
        else:
            pause = self.rng.uniform(*self.temper.think)
        if pause:
            self.within(pause, self._ask_again)
        else:
            self._ask_again()

    def _ask_again(self) -> None:
        if len(self.open) < self.temper.depth and self.may_ask():
            self.ask()

    def must_be_closed(self, why: str, *, timeouts: int = 0) -> None:
        """Expect the multiplexer to close this connection, after so many timeouts."""
        watch = self.scene.watch
        began = self.loop.time()

        def look() -> None:
            # (The timeout may have been changed in the meantime.)
            due = began + timeouts * watch.timeout + watch.slack + 0.1
            if self.loop.time() >= due:
                raise Violation(f"{self.asker.name} is still connected: {why}")
            self.within(due - self.loop.time(), look)

        look()

    def leave(self) -> None:
        """Go, in one way or another; come back later."""
        if not self.connected:
            return
        self.asker.left = True
        match self.rng.randrange(4):
            case 0:
                self.end.abort()
            case 1:
                self.link.reset()
            case _:
                self.end.close()


class Leaver(SimulatedClient):
    """Gives up after a while, closes, and comes back."""

    @override
    def begin(self) -> None:
        self.ask_on()
        patience = self.rng.choice((0.005, 0.03, 0.2, 1.0)) * (0.5 + self.rng.random())
        self.within(patience, self.leave)


class Vanisher(SimulatedClient):
    """Is suddenly gone, in the middle of a request, and nobody tells."""

    @override
    def begin(self) -> None:
        self.ask_on()
        self.within(self.rng.uniform(0.01, 1.0), self._vanish)

    def _vanish(self) -> None:
        data = self.face.pack(99, self.face.ask(self.rng).body)
        self.scene.watch.skipped(self.asker, 10_000)
        self.end.write(data[: self.rng.randrange(len(data))])
        self.asker.left = True
        self.link.vanish()
        # Its own system forgets the connection; a new one comes in its place.
        self.end.abort()


class HalfCloser(SimulatedClient):
    """Asks a few things, says that this was all, and waits for the answers."""

    @override
    def begin(self) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            if self.may_ask():
                self.ask()
        self.within(self.rng.uniform(0, 0.02), self._finish)

    def _finish(self) -> None:
        self.asker.left = True
        self.end.write_eof()
        self.must_be_closed("it asks nothing more", timeouts=4)

    @override
    def answered(self, question: Question) -> None:
        pass


class SlowReader(SimulatedClient):
    """Asks much, and reads now and then."""

    @override
    def prepare(self, link: Link) -> None:
        super().prepare(link)
        self.asker.slow = True
        link.narrow(1024)

    @override
    def begin(self) -> None:
        self._doze()
        self.ask_on()

    def _doze(self) -> None:
        if not self.scene.winding_down:
            self.end.pause_reading()
        self.within(self.rng.uniform(0.05, 1.5), self._wake)

    def _wake(self) -> None:
        self.end.resume_reading()
        if not self.scene.winding_down:
            self.within(self.rng.uniform(0.01, 0.3), self._doze)


class Flooder(SimulatedClient):
    """Asks as fast as its socket takes it; does not read, half the time."""

    _MOST = 500
    """Questions on one connection."""

    @override
    def prepare(self, link: Link) -> None:
        super().prepare(link)
        self._asked = 0
        if self.rng.random() < 0.5:
            self.asker.slow = True
            link.narrow(1024)

    @override
    def begin(self) -> None:
        if self.asker.slow:
            self.end.pause_reading()
        self._flood()
        self.within(self.rng.uniform(1, 10), self.leave)

    def _flood(self) -> None:
        if self.scene.winding_down:
            self.leave()
            return
        while (
            self._asked < self._MOST
            and self.may_ask()
            and not self.end.get_write_buffer_size()
        ):
            self.ask()
            self._asked += 1
        self.within(self.rng.uniform(0.005, 0.05), self._flood)

    @override
    def answered(self, question: Question) -> None:
        pass


class Dribbler(SimulatedClient):
    """Sends its requests in dribs and drabs, at times byte by byte."""

    @override
    def send(self, data: bytes) -> None:
        size = self.rng.choice((1, 4, 7))
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        longest = self.scene.watch.shortest_timeout / 4
        pause = longest / len(pieces) * self.rng.random()
        for index, piece in enumerate(pieces):
            self.within(index * pause, partial(self.end.write, piece))


class Staller(SimulatedClient):
    """Begins a request and never ends it."""

    @override
    def begin(self) -> None:
        self.ask_on()
        self.within(self.rng.uniform(0, 2), self._stall)

    def _stall(self) -> None:
        if not self.may_ask():
            return
        if self.open:
            self.within(0.1, self._stall)
            return
        data = self.face.pack(99, self.face.ask(self.rng).body)
        self.scene.watch.skipped(self.asker, 10_000)
        self.asker.offended = True
        self.end.write(data[: self.rng.randrange(1, len(data))])
        self.must_be_closed("its request is unfinished", timeouts=1)

    @override
    def may_ask(self) -> bool:
        return super().may_ask() and not self.asker.offended


class Babbler(SimulatedClient):
    """Sends what is no request."""

    @override
    def begin(self) -> None:
        self.ask_on()
        self.within(self.rng.uniform(0, 2), self._babble)

    def _babble(self) -> None:
        if not self.may_ask():
            return
        dialect = self.scene.dialect
        if isinstance(dialect, ModbusDialect) and self.rng.random() < 0.5:
            # A protocol identifier other than 0: discarded, and all goes on.
            data = b"\0\1\0\7\0\6\1\3\0\0\0\1"
            self.scene.watch.skipped(self.asker, len(data))
            self.end.write(data)
            self.within(self.rng.uniform(0, 2), self._babble)
            return
        data = dialect.garbage(self.rng)
        if isinstance(dialect, ModbusDialect):
            data = data[:2] + b"\0\0\1\0" + data[6:]
        self.scene.watch.skipped(self.asker, 1_000_000)
        self.asker.offended = True
        self.end.write(data)
        # (While it is held back, because the queue is full, it is not understood.)
        self.must_be_closed("it talks nonsense", timeouts=2)

    @override
    def may_ask(self) -> bool:
        return super().may_ask() and not self.asker.offended


class Intruder(SimulatedClient):
    """Comes from a network that is not allowed."""

    @override
    def prepare(self, link: Link) -> None:
        super().prepare(link)
        self.asker.silent = self.asker.offended = True

    @override
    def begin(self) -> None:
        data = self.face.pack(1, self.face.ask(self.rng).body)
        self.scene.watch.skipped(self.asker, len(data))
        self.end.write(data)
        self.must_be_closed("it is not allowed")

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.connected = False
        self.after(3.0, self.connect)
