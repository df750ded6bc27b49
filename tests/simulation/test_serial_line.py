"""The engine before a simulated serial line: RTU over TCP, or a port of its own.

The port's adapter may echo what it sends, and be unplugged. The line does to frames
everything that lines do; clients are of all tempers. The `Watch` sees the engine's
upstream side in Modbus/TCP, into which the line's server translates for it. What is
looked for is the same as ever: no wrong answer, no write twice, nobody left waiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any, override

import pytest

from custom_components.tcp_multiplexer.multiplexer import SerialLine
from custom_components.tcp_multiplexer.multiplexer.dispatch.exchange import Exchange
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus import rtu_serial
from custom_components.tcp_multiplexer.multiplexer.upstream.serial_upstream import (
    SerialPort,
)
from tests.engine.serial_line import acceptable, with_crc

from .device import HOST, PORT
from .faces import CarelessFace, Face
from .manners import Habit
from .network import Link, ProgramEndpoint, Refusal
from .questions import Violation
from .ways import WayWorld
from .world import World

TIMEOUT = 0.6
QUIET = 0.3
_UNKNOWN = 0x41
_TEST = b"\x03\xff\xff\0\x01"
"""What the engine reads here to find out whether an adapter echoes; no client does."""
_FAULTS = ("late", "lost", "split", "corrupt", "truncated", "noise", "other", "reset")


class SerialServer(asyncio.Protocol):
    """Takes connections to a line with three slaves; says to all what the line says.

    A request arrives whole when what has arrived has a right CRC. Faults are drawn from
    the seed. A response that is late is so by less than the quiet time.
    """

    def __init__(self, world: World, rng: Random, *, echoes: bool = False) -> None:
        """Stand where the world's own device stood."""
        self.echoes = echoes
        self.world = world
        self.rng = rng
        self.loop = world.loop
        self.links: list[Link] = []
        self.faults: Counter[str] = Counter()
        self._buffer = b""
        self._plugged_in_at = 0.0
        world.network.hosts[HOST, PORT] = self._accept

    def _accept(self, link: Link) -> asyncio.Protocol | Refusal:
        if self.loop.time() < self._plugged_in_at:
            return Refusal.REFUSED
        self.links.append(link)
        face: Face | None = None
        if not self.echoes:  # (which seem to be the beginning of a response)
            face = CarelessFace(self.world.dialect, Habit.SAYS_ZERO)
        self.world.watch.upstream(link, face)
        end = link.dialled
        assert isinstance(end, ProgramEndpoint)
        watched, read = end.on_write, end.on_read
        assert watched is not None
        assert read is not None
        last = 0
        port = self.world.settings.serial

        def translated(data: bytes) -> None:
            nonlocal last
            assert with_crc(data[:-2]) == data
            if last == _UNKNOWN:
                read(b"")  # silence has ended its response
            last = data[1]
            now = self.loop.time()
            if data[1:-2] == _TEST:
                self.world.watch.tested(data[0])
                return
            if port is not None:
                # it waits until the line is silent, and the adapter is known
                chosen = [e.sent for e in self._in_flight()]
                self.world.watch.chosen = min(chosen, default=now - port.silence)
            try:
                watched(self.world.dialect.pack(0, data[:-2]))
            except Violation as err:  # whoever writes may take it for a broken port
                context = {"message": str(err), "exception": err}
                self.loop.call_exception_handler(context)

        end.on_write = translated
        self._buffer = b""
        return self

    def _in_flight(self) -> Iterator[Exchange]:
        """Give the requests that the engine has chosen to send: it is believed."""
        for upstream in self.world.mux._connections.open:  # noqa: SLF001
            yield from upstream.in_flight.values()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.links = [link for link in self.links if not link.accepted.is_closing()]

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        asked = self._buffer[:-2]
        if len(self._buffer) < 4 or with_crc(asked) != self._buffer:
            return
        self._buffer = b""
        if self.echoes:
            self.say(self._echo(with_crc(asked)))
        fault = self.rng.choice(_FAULTS) if self.rng.random() < 0.15 else "none"
        self.faults[fault] += 1
        self._later(self.rng.uniform(0.001, 0.02), self._serve, asked, fault)

    def _echo(self, frame: bytes) -> bytes:
        """Give what an adapter hears of itself, which noise may have spoiled."""
        spoiled = self.rng.randbytes(2) + frame[2:]
        if self.rng.random() < 0.05 and not acceptable(spoiled, frame[:-2]):
            self.faults["spoiled echo"] += 1
            return spoiled
        return frame

    def _later(self, seconds: float, callback: object, *args: object) -> None:
        self.loop.post(self.loop.time() + seconds, callback, *args)  # type: ignore[arg-type]

    def say(self, data: bytes) -> None:
        """Say something to everybody who is connected."""
        for link in self.links:
            if data and not link.accepted.is_closing():
                link.accepted.write(data)

    def _serve(self, asked: bytes, fault: str) -> None:
        rng = self.rng
        frame = with_crc(self.world.dialect.execute(asked, self.loop.time()))
        match fault:
            case "late":
                self._when_given_up(asked, frame)
            case "lost":
                pass
            case "split":
                for at in range(len(frame)):
                    pause = at * rng.choice((0.0, 0.0002, 0.002))
                    self._later(pause, self.say, frame[at : at + 1])
            case "corrupt":
                self._spoil(asked, frame)
            case "truncated":
                self.say(frame[: rng.randrange(1, len(frame))])
            case "noise":
                before, behind = (rng.randbytes(rng.randrange(9)) for _ in range(2))
                stream = before + frame + behind
                only = [(len(before), len(before) + len(frame))]
                self.say(stream if acceptable(stream, asked) == only else frame)
            case "other":
                unit = asked[0] ^ 0x40
                self.say(with_crc(bytes((unit,)) + frame[1:-2]) + frame)
            case "reset":  # and the line answers those who connect anew
                for link in tuple(self.links):
                    link.reset()
                if self.world.settings.serial:
                    self._plugged_in_at = self.loop.time() + rng.uniform(0, 0.3)
                self._later(rng.uniform(0, QUIET * 0.9), self.say, frame)
            case _:
                self.say(frame)

    def _spoil(self, asked: bytes, frame: bytes) -> None:
        at = self.rng.randrange(len(frame))
        burst = self.rng.randbytes(2)
        spoiled = frame[:at] + burst + frame[at + 2 :]
        if not acceptable(spoiled, asked):
            self.say(spoiled)

    def _when_given_up(self, asked: bytes, frame: bytes) -> None:
        """Answer when the engine has just ceased to wait."""
        if all(exchange.asked.payload != asked for exchange in self._in_flight()):
            self._later(self.rng.uniform(0, QUIET * 0.9), self.say, frame)
        elif self.links:
            self._later(0.005, self._when_given_up, asked, frame)


@pytest.mark.parametrize("seed", range(5))
def test_a_bad_line_behind_the_engine(seed: int) -> None:
    live(f"{seed}/line")


@pytest.mark.parametrize("echoes", [False, True], ids=["plain", "echo"])
@pytest.mark.parametrize("seed", range(5))
def test_a_bad_line_at_a_port(
    seed: int, echoes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SerialPort, "open", _open)
    monkeypatch.setattr(rtu_serial, "HARMLESS_READ", _TEST)
    line = SerialLine(device="/dev/simulated", baudrate=115200)
    live(f"{seed}/port", echoes=echoes, host="", serial=line)


async def _open(port: SerialPort, protocol: asyncio.Protocol) -> None:
    """Open a simulated port."""
    await port.free.wait()
    await asyncio.get_running_loop().create_connection(lambda: protocol, HOST, PORT)


def live(seed: str, *, echoes: bool = False, **settings: Any) -> None:
    """Let clients of all tempers live before a line in which everything goes wrong."""
    with WayWorld(
        seed,
        framing="rtu",
        timeout=TIMEOUT,
        quiet=QUIET,
        reconnect_backoff=0.1,
        **settings,
    ) as world:
        line = SerialServer(world, world.rng("line"), echoes=echoes)
        world.start()
        world.live()
        faults = (*_FAULTS, "spoiled echo") if echoes else _FAULTS
        assert all(line.faults[fault] > 5 for fault in faults)
        snapshot = world.mux.snapshot()
        assert snapshot.unsolicited_responses > 0
