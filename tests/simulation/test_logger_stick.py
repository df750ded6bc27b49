"""The engine before a simulated logger stick: Solarman V5.

The stick does everything that sticks do; clients are of all tempers. The `Watch` sees
the engine's upstream side in Modbus/TCP, into which the stick translates for it. What
is looked for is the same as ever: no wrong answer, no write twice, nobody left waiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import override

import pytest

from tests.engine.serial_line import acceptable, with_crc
from tests.solarman import (
    GREETING,
    NO_ANSWER,
    PUSHED,
    SERIAL,
    acknowledging,
    telling,
    v5,
)

from .device import HOST, PORT
from .network import Link, ProgramEndpoint
from .ways import WayWorld
from .world import World

TIMEOUT = 0.6
_FAULTS = (
    "late",
    "lost",
    "bytewise",
    "no answer",
    "wrong crc",
    "wrong checksum",
    "doubled",
    "pushed",
    "other's",
    "noise",
    "reset",
)


class Stick:
    """Takes connections, and says to all what it says to one.

    Faults are drawn from the seed.
    """

    def __init__(self, world: World, rng: Random) -> None:
        """Stand where the world's own device stood."""
        self.world = world
        self.rng = rng
        self.loop = world.loop
        self.links: list[Link] = []
        self.faults: Counter[str] = Counter()
        self.owed: Counter[bytes] = Counter()
        """Acknowledgements that are awaited; time is simulated, but not of day."""
        self.acknowledged = 0
        world.network.hosts[HOST, PORT] = self._accept

    def _accept(self, link: Link) -> asyncio.Protocol:
        self.links.append(link)
        self.world.watch.upstream(link)
        end = link.dialled
        assert isinstance(end, ProgramEndpoint)
        watched, read = end.on_write, end.on_read
        assert watched is not None
        assert read is not None

        def translated(data: bytes) -> None:
            if data[4] == 0x45:  # (else it acknowledges)
                assert with_crc(data[26:-4]) == data[26:-2]
                watched(self.world.dialect.pack(0, data[26:-4]))

        end.on_write = translated
        end.on_read = lambda _: read(b"")
        link.accepted.write(GREETING)
        return Line(self)

    def received(self, frame: bytes) -> None:
        """Serve a request, or note an acknowledgement."""
        if frame[4] != 0x45:
            self.owed[_without_time(frame)] -= 1
            self.acknowledged += 1
            return
        fault = self.rng.choice(_FAULTS) if self.rng.random() < 0.3 else "none"
        self.faults[fault] += 1
        pause = self.rng.uniform(0.001, 0.02)
        self._later(pause, self._serve, frame[5], frame[26:-4], fault)

    def _later(self, seconds: float, callback: object, *args: object) -> None:
        self.loop.post(self.loop.time() + seconds, callback, *args)  # type: ignore[arg-type]

    def say(self, data: bytes) -> None:
        """Say something to everybody who is connected."""
        for link in self.links:
            if data and not link.accepted.is_closing():
                link.accepted.write(data)

    def _push(self) -> bytes:
        """Give a heartbeat or a report that must be acknowledged."""
        rng = self.rng
        size = rng.choice((1, 1, 80))
        frame = v5(rng.choice(PUSHED), rng.randrange(256), rng.randbytes(size))
        self.owed[_without_time(acknowledging(frame, 0))] += len(self.links)
        return frame

    def _serve(self, number: int, asked: bytes, fault: str) -> None:
        rng = self.rng
        rtu = with_crc(self.world.dialect.execute(asked, self.loop.time()))
        frame = telling(number, rtu)
        if rtu.endswith(b"\0\0"):
            fault = "lost"  # nothing tells it from one whose CRC is there twice
        match fault:
            case "late":
                self._when_given_up(self.world.mux.snapshot().timeouts, frame)
            case "lost":
                pass
            case "bytewise":
                pause = rng.choice((0.0, 0.0002))
                for at in range(len(frame)):
                    self._later(at * pause, self.say, frame[at : at + 1])
            case "no answer":
                self.say(telling(number, NO_ANSWER))
            case "wrong crc":
                self.say(telling(number, rtu[:-1] + bytes((rtu[-1] ^ 0x11,))))
            case "wrong checksum":
                self.say(telling(number, rtu, wrong=rng.randrange(1, 256)))
            case "doubled":
                self.say(telling(number, rtu + b"\0\0"))
            case "pushed":
                pushed = [self._push() for _ in range(3)]
                pushed.insert(rng.randrange(4), frame)
                self.say(b"".join(pushed))
            case "other's":
                self.say(
                    self._other(number, asked) + frame + self._other(number, asked)
                )
            case "noise":
                self.say(rng.choice((GREETING, rng.randbytes(5))) + frame)
            case "reset":  # and it answers those who connect anew
                for link in tuple(self.links):
                    link.reset()
                self._later(rng.uniform(0, 0.3), self.say, frame)
            case _:
                self.say(frame)

    def _other(self, number: int, asked: bytes) -> bytes:
        """Give the response to another client, which has something of its own."""
        unit = asked[0] ^ self.rng.choice((0, 0x40))
        rtu = with_crc(bytes((unit, 3, 4)) + self.rng.randbytes(4))
        if acceptable(rtu, asked):
            number += 99
        return telling(number & 0xFF, rtu)

    def _when_given_up(self, timeouts: int, frame: bytes) -> None:
        """Answer when the engine has just ceased to wait."""
        if self.world.mux.snapshot().timeouts > timeouts:
            self._later(self.rng.uniform(0, 0.5), self.say, frame)
        elif self.links:
            self._later(0.005, self._when_given_up, timeouts, frame)


class Line(asyncio.Protocol):
    """One connection to the stick."""

    def __init__(self, stick: Stick) -> None:
        """Belong to `stick`."""
        self._stick = stick
        self._buffer = b""

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        stick = self._stick
        stick.links = [link for link in stick.links if not link.accepted.is_closing()]

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) > 12:
            end = 13 + int.from_bytes(self._buffer[1:3], "little")
            if len(self._buffer) < end:
                return
            frame, self._buffer = self._buffer[:end], self._buffer[end:]
            self._stick.received(frame)


def _without_time(acknowledgement: bytes) -> bytes:
    """Give what an acknowledgement says besides the time of day and the checksum."""
    return acknowledgement[:13] + acknowledgement[17:-2]


@pytest.mark.parametrize("seed", range(5))
def test_a_bad_stick_behind_the_engine(seed: int) -> None:
    with WayWorld(
        f"{seed}/stick",
        framing="solarman",
        logger_serial=SERIAL,
        timeout=TIMEOUT,
        reconnect_backoff=0.1,
    ) as world:
        stick = Stick(world, world.rng("stick"))
        world.start()
        world.live()
        assert min(stick.owed.values()) == 0 < stick.acknowledged
        assert all(stick.faults[fault] > 5 for fault in _FAULTS)
        snapshot = world.mux.snapshot()
        assert snapshot.late_responses > 0
        assert snapshot.unsolicited_responses > 0
