"""A world for one scene: nothing is left to chance, so that moments can be asserted.

Bytes travel in no time, the engine's loop is never late, and device and clients do just
what the scene tells them. Time is counted in seconds from the scene's beginning. The
`Watch` of other worlds is off: a scene says itself what must be seen.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, override

import pytest

from custom_components.tcp_multiplexer.multiplexer import Event, EventType
from tests.engine.serial_line import with_crc
from tests.solarman import telling

from .device import HOST, PORT
from .dialects import read
from .network import Conditions, Link, Refusal
from .world import World

SERVICE = 0.1
"""Seconds after which the device answers, unless told otherwise."""
EXACT = Conditions(latency=(0.0, 0.0), jitter=0.0, split=0.0, merge=0.0)


def at(moment: float) -> Any:
    """Give a moment; floating-point sums of seconds differ in their last bits."""
    return pytest.approx(moment, abs=1e-6)


def asks(number: int, unit: int = 1) -> bytes:
    """Give a read unlike all others."""
    return read(unit, 3, number, 1).body


def sets(number: int, unit: int = 1) -> bytes:
    """Give a write unlike all others."""
    return bytes((unit, 6)) + number.to_bytes(2) + b"\x11\x22"


def excuse(body: bytes, code: int) -> bytes:
    """Give the exception with which the multiplexer answers instead of the device."""
    return bytes((body[0], body[1] | 0x80, code))


class Asked(NamedTuple):
    """A request that reached the device."""

    at: float
    line: int
    """The device's connections are counted from 1."""
    body: bytes


class Heard(NamedTuple):
    """A response that reached a client."""

    at: float
    tid: int
    body: bytes


class Line(asyncio.Protocol):
    """One connection that the device accepted."""

    def __init__(self, stage: Stage, link: Link, number: int) -> None:
        """Begin with nothing received."""
        self.stage = stage
        self.link = link
        self.number = number
        self._buffer = bytearray()

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        puppet = self.stage.puppet
        for tid, body in self.stage.cut(self._buffer):
            puppet.asked.append(Asked(self.stage.now, self.number, body))
            puppet.tids.append(tid)
            react = puppet.script.popleft() if puppet.script else puppet.manners
            react(self, tid, body)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.stage.puppet.ended.append((self.stage.now, self.number))

    def later(self, seconds: float, callback: Callable[..., object], *a: Any) -> None:
        """Do something later."""
        self.stage.loop.post(self.stage.loop.time() + seconds, callback, *a)

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self.link.accepted.write(data)


type Reaction = Callable[[Line, int, bytes], None]
"""What the device does about a request."""


def answers(after: float = SERVICE) -> Reaction:
    """Answer, after so long."""

    def react(line: Line, tid: int, body: bytes) -> None:
        answer = line.stage.dialect.execute(body, line.stage.loop.time())
        line.later(after, line.say, line.stage.pack(tid, answer))

    return react


def says_nothing(line: Line, tid: int, body: bytes) -> None:
    """Do not answer."""


def resets(after: float) -> Reaction:
    """Break the connection off instead of answering."""

    def react(line: Line, tid: int, body: bytes) -> None:
        line.later(after, line.link.reset)

    return react


def hangs_up(after: float) -> Reaction:
    """Close the connection instead of answering."""

    def react(line: Line, tid: int, body: bytes) -> None:
        line.later(after, line.link.accepted.close)

    return react


def begins(line: Line, tid: int, body: bytes) -> None:
    """Answer at once, but not to the end."""
    line.say(line.stage.pack(tid, line.stage.dialect.execute(body, 0.0))[:-1])


def says_before(change: Callable[[bytes], bytes], after: float = SERVICE) -> Reaction:
    """Say something like the answer at once, and then the answer."""

    def react(line: Line, tid: int, body: bytes) -> None:
        line.say(change(line.stage.pack(tid, line.stage.dialect.execute(body, 0.0))))
        answers(after)(line, tid, body)

    return react


def begins_and_resets(line: Line, tid: int, body: bytes) -> None:
    """Begin to answer, and break the connection off within the answer."""
    begins(line, tid, body)
    line.later(SERVICE, line.link.reset)


class Puppet:
    """A device that does what the scene says."""

    def __init__(self, stage: Stage) -> None:
        """Take the place of the world's own device."""
        self.stage = stage
        self.manner: Refusal | None = None
        """What it does about connection attempts, if it does not accept."""
        self.dials: list[float] = []
        self.asked: list[Asked] = []
        self.tids: list[int] = []
        """The transaction identifiers of what was asked."""
        self.ended: list[tuple[float, int]] = []
        """When which of its connections ended."""
        self.lines: list[Line] = []
        self.script: deque[Reaction] = deque()
        """What it does about the next requests."""
        self.manners: Reaction = answers()
        """What it does about all others."""
        stage.network.hosts[HOST, PORT] = self._accept

    def hang_up(self, number: int) -> None:
        """Close a connection."""
        self.lines[number - 1].link.accepted.close()

    def reset(self, number: int) -> None:
        """Break a connection off."""
        self.lines[number - 1].link.reset()

    def go_away(self) -> None:
        """Accept no more connections."""
        self.manner = Refusal.REFUSED

    def come_back(self) -> None:
        """Accept them again."""
        self.manner = None

    def _accept(self, link: Link) -> asyncio.Protocol | Refusal:
        self.dials.append(self.stage.now)
        if self.manner is not None:
            return self.manner
        line = Line(self.stage, link, len(self.lines) + 1)
        self.lines.append(line)
        return line


class Hand(asyncio.Protocol):
    """A client that asks what it is told to, and notes what it hears."""

    def __init__(self, stage: Stage) -> None:
        """Begin with nothing asked."""
        self.stage = stage
        self.heard: list[Heard] = []
        self.connected = False
        self.closed: float | None = None
        """When it was closed."""
        self.link: Link
        self._tid = 0
        self._buffer = bytearray()

    def prepare(self, link: Link) -> None:
        """Be told of the connection."""
        self.link = link

    def refused(self) -> None:
        """Be told that there is none."""
        self.closed = self.stage.now

    def ask(self, *bodies: bytes) -> None:
        """Ask something, all at once."""
        frames = []
        for body in bodies:
            self._tid += 1
            frames.append(self.stage.dialect.pack(self._tid, body))
        self.send(b"".join(frames))

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.link.dialled.write(data)

    def leave(self) -> None:
        """Close the connection."""
        self.link.dialled.close()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connected = True

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for tid, body in self.stage.dialect.cut_answers(self._buffer):
            self.heard.append(Heard(self.stage.now, tid, body))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = self.stage.now


class Stage(World):
    """A world in which nothing happens by chance."""

    def __init__(self, **settings: Any) -> None:
        """Have a device; `settings` are the multiplexer's."""
        super().__init__("stage", conditions=EXACT, **settings)
        self.loop.step = None
        self.network.on_dial = self.network.on_refused = None
        self.beginning = self.loop.time()
        self.puppet = Puppet(self)
        self.events: list[tuple[float, Event]] = []
        self._hands = 0

    @property
    def now(self) -> float:
        """Seconds since the scene began."""
        return self.loop.time() - self.beginning

    def run_to(self, moment: float) -> None:
        """Let time pass until a moment of the scene."""
        self.run_for(moment - self.now)

    def at(self, moment: float, do: Callable[..., object], *args: Any) -> None:
        """Do something at a moment of the scene."""
        self.loop.post(self.beginning + moment, do, *args)

    def hand(self, listener: int = 0, *, source: str | None = None) -> Hand:
        """Let a client come, by the first listener and from an address of its own."""
        hand = Hand(self)
        self._hands += 1
        self.network.dial(
            hand,
            *self.mux.snapshot().listen_addresses[listener],
            source=source or f"192.168.1.{self._hands}",
            prepare=hand.prepare,
            refused=hand.refused,
        )
        self.loop.run_until(lambda: hand.connected, 1.0)
        return hand

    def note(self, event: Event) -> None:
        """Note what the multiplexer tells."""
        self.events.append((self.now, event))

    def told(self, kind: EventType) -> list[float]:
        """Give the moments at which the multiplexer told of a kind of event."""
        return [moment for moment, event in self.events if event.type is kind]

    @property
    def healths(self) -> list[tuple[float, str | None]]:
        """Give when the device's health became what."""
        return [
            (moment, event.reason)
            for moment, event in self.events
            if event.type is EventType.HEALTH_CHANGED
        ]

    # How the device frames

    def pack(self, tid: int, body: bytes) -> bytes:
        """Give a frame of the device's."""
        if self.settings.framing == "rtu":
            return with_crc(body)
        if self.settings.framing == "solarman":
            return telling(tid, with_crc(body))
        return self.dialect.pack_answer(tid, body)

    def cut(self, buffer: bytearray) -> Iterator[tuple[int, bytes]]:
        """Take the frames that the device received."""
        if self.settings.framing == "solarman":
            while len(buffer) > 2:
                end = 13 + buffer[1]
                if buffer[4] == 0x45:  # (else it acknowledges)
                    yield buffer[5], bytes(buffer[26 : end - 4])
                del buffer[:end]
        elif self.settings.framing != "rtu":
            yield from self.dialect.cut(buffer)
        while self.settings.framing == "rtu" and len(buffer) >= 8:
            yield 0, bytes(buffer[:6])
            del buffer[:8]


@contextmanager
def stage(
    *, settled: float = 1.0, manner: Refusal | None = None, **settings: Any
) -> Generator[Stage]:
    """Have a multiplexer that was started `settled` seconds ago; see that it stops."""
    with Stage(**settings) as scene:
        scene.puppet.manner = manner
        scene.start().subscribe(scene.note)
        if settled:
            scene.run_for(settled)
            scene.puppet.dials.clear()
            scene.events.clear()
            scene.beginning = scene.loop.time()
        yield scene
        scene.stop()
