"""The engine before a simulated device that dials in, and does it badly.

It says things unasked, closes when nobody asks for a while, breaks off, falls silent,
and dials again although its last connection is not gone, or is and we cannot know.
Strangers dial as well.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any, override

import pytest

from custom_components.tcp_multiplexer.multiplexer import DialIn, Health

from .contract import contract
from .network import Link
from .questions import Violation
from .stage import SERVICE, Hand, Stage, asks, at, excuse, sets, stage
from .ways import WayWorld
from .world import World

PORT = 5502
DEVICE = "10.0.0.2"
GREETING = b"\0\1\0\0\0\5\1\x41abc" + b"\0\1\0\0\0\3\0\x86\3"
NO_PATH = 0x0A

_FAULTS = ("late", "lost", "split", "reset", "close", "vanish", "again", "stranger")


def expecting(**settings: Any) -> Any:
    """Have a multiplexer that expects the device, in a scene."""
    dial_in = DialIn(host="127.0.0.1", port=PORT, device=DEVICE)
    return stage(**{"host": "", "dial_in": dial_in, **settings})


class Dialler(Hand):
    """The device of a scene, which has dialled; it answers what it is asked."""

    silent = False

    def __init__(self, scene: Stage, source: str = DEVICE) -> None:
        super().__init__(scene)
        self.asked: list[bytes] = []
        scene.network.dial(
            self,
            "127.0.0.1",
            PORT,
            source=source,
            prepare=self.prepare,
            refused=self.refused,
        )

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.send(GREETING)

    @override
    def data_received(self, data: bytes) -> None:
        scene = self.stage
        for tid, body in scene.dialect.cut(bytearray(data)):
            self.asked.append(body)
            if not self.silent:
                answer = scene.dialect.execute(body, 0.0)
                frame = scene.dialect.pack(tid, answer)
                scene.loop.post(scene.loop.time() + SERVICE, self.send, frame)


@contract(
    "requests wait for it until their deadlines",
    "while no connection is open, health is *waiting*",
)
def test_requests_wait_for_the_device() -> None:
    with expecting(timeout=5.0) as scene:
        first, second = scene.hand(), scene.hand()
        scene.at(0, first.ask, asks(1))
        scene.at(3, second.ask, asks(2))
        scene.at(6, Dialler, scene)
        scene.run_to(7)
        assert [heard.at for heard in first.heard] == [at(5)]
        assert first.heard[0].body == excuse(asks(1), NO_PATH)
        assert [heard.at for heard in second.heard] == [at(6 + SERVICE)]
        assert scene.mux.snapshot().connection_attempts == 0
        assert scene.healths == [(at(6), Health.HEALTHY)]


@contract(
    "There are no attempts, no backoff and no outages",
    "it is used as soon as the old one ends or lets a request time out",
)
def test_a_dead_one_is_replaced() -> None:
    with expecting(timeout=2.0) as scene:
        client = scene.hand()
        first = Dialler(scene)
        first.silent = True
        scene.at(1, client.ask, asks(1))
        second: list[Dialler] = []
        scene.at(1.5, lambda: second.append(Dialler(scene)))
        scene.at(4, client.ask, asks(2))
        scene.run_to(5)
        assert first.closed == at(3)
        assert second[0].asked == [asks(2)]
        assert [heard.at for heard in client.heard] == [at(3), at(4 + SERVICE)]
        assert Health.UNREACHABLE not in {health for _, health in scene.healths}


@contract("closed as soon as a byte comes on the old one")
def test_a_living_one_stays() -> None:
    with expecting() as scene:
        client = scene.hand()
        first = Dialler(scene)
        scene.at(1, client.ask, asks(1))
        second: list[Dialler] = []
        scene.at(1.05, lambda: second.append(Dialler(scene)))
        scene.run_to(2)
        assert second[0].closed == at(1 + SERVICE)
        assert first.closed is None


@contract("or after 5 s in which nothing was asked on that")
def test_one_that_nobody_asks_stays() -> None:
    with expecting() as scene:
        first = Dialler(scene)
        second: list[Dialler] = []
        scene.at(1, lambda: second.append(Dialler(scene)))
        scene.run_to(7)
        assert second[0].closed == at(6)
        assert first.closed is None


@contract(
    "Only the device's own address may dial in.",
    "Everybody else is closed immediately.",
)
def test_a_stranger() -> None:
    with expecting() as scene:
        stranger = Dialler(scene, "192.168.1.7")
        scene.run_to(1)
        assert stranger.closed == at(0)
        assert not stranger.asked


@contract(
    "the first that answers a request is the device's from then on",
    "any address from which clients may connect may try",
)
def test_an_address_is_learned() -> None:
    dial_in = DialIn(host="127.0.0.1", port=PORT)
    with expecting(dial_in=dial_in) as scene:
        client = scene.hand()
        from_afar = Dialler(scene, "8.8.8.8")
        scene.run_to(1)
        assert from_afar.closed == at(0)
        silent = Dialler(scene, "192.168.1.7")
        scene.run_to(2)
        silent.leave()
        device = Dialler(scene, DEVICE)
        scene.at(3, client.ask, asks(1))
        scene.run_to(4)
        device.leave()
        stranger = Dialler(scene, "192.168.1.7")
        scene.run_to(5)
        assert stranger.closed == at(4)
        assert scene.mux.settings.dial_in == DialIn(
            host="127.0.0.1", port=PORT, device=DEVICE
        )


@contract("What the device says before its first response answers nothing")
def test_a_greeting() -> None:
    with expecting() as scene:
        client = scene.hand()
        client.ask(sets(1, unit=0))  # an exception of its function is in the greeting
        Dialler(scene)
        scene.run_to(1)
        assert client.heard[0].body == scene.dialect.execute(sets(1, unit=0), 0.0)
        assert scene.mux.snapshot().unsolicited_responses == 0


class BadDialler(asyncio.Protocol):
    """One connection of a device that has all faults."""

    def __init__(self, device: BadDevice) -> None:
        self.device = device
        self.link: Link
        self.buffer = bytearray()
        self.last_asked = device.loop.time()
        self.gone = False

    def prepare(self, link: Link) -> None:
        """Be told of the connection."""
        self.link = link
        self.device.world.watch.upstream(link)

    def refused(self) -> None:
        """Be told that nobody listens."""
        self.gone = True

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.device.rng.random() < 0.8:
            self.say(GREETING)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True

    @override
    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.last_asked = self.device.loop.time()
        for tid, body in self.device.world.dialect.cut(self.buffer):
            self.device.asked(self, tid, body)

    def say(self, data: bytes) -> None:
        """Send bytes, if that is still possible."""
        if not self.gone and not self.link.dialled.is_closing():
            self.link.dialled.write(data)


class BadDevice:
    """A device that dials whenever it has no connection, and sometimes when it has."""

    def __init__(self, world: World, rng: Random) -> None:
        self.world = world
        self.rng = rng
        self.loop = world.loop
        self.faults: Counter[str] = Counter()
        self.line = self._dial()
        self._later(0.1, self._look)

    def _later(self, seconds: float, callback: Any, *args: Any) -> None:
        self.loop.post(self.loop.time() + seconds, callback, *args)

    def _dial(self) -> BadDialler:
        dialler = BadDialler(self)
        self.world.network.dial(
            dialler,
            "127.0.0.1",
            PORT,
            source=DEVICE,
            prepare=dialler.prepare,
            refused=dialler.refused,
        )
        return dialler

    def _look(self) -> None:
        """Dial again, or close what nobody uses."""
        if self.world.winding_down:
            return
        if self.line.gone:
            self.line = self._dial()
        elif self.loop.time() - self.line.last_asked > 1.0:
            self.line.link.dialled.close()
            self.line.gone = True
        self._later(self.rng.uniform(0.05, 0.5), self._look)

    def asked(self, line: BadDialler, tid: int, body: bytes) -> None:
        """Answer, or do something else."""
        fault = self.rng.choice(_FAULTS) if self.rng.random() < 0.1 else "none"
        self.faults[fault] += 1
        frame = self.world.dialect.pack(
            tid, self.world.dialect.execute(body, self.loop.time())
        )
        match fault:
            case "late":
                self._later(self.rng.uniform(0.6, 1.0), line.say, frame)
            case "lost":
                pass
            case "split":
                for at_ in range(len(frame)):
                    self._later(at_ * 0.001, line.say, frame[at_ : at_ + 1])
            case "reset":
                line.link.reset()
            case "close":
                line.link.dialled.close()
                line.gone = True
            case "vanish":
                line.link.vanish()
                line.gone = True
            case "again":
                self._later(self.rng.uniform(0, 0.01), line.say, frame)
                self.line = self._dial()
            case _:
                if fault == "stranger":
                    self._stranger()
                self._later(self.rng.uniform(0.001, 0.02), line.say, frame)

    def _stranger(self) -> None:
        stranger = Stranger()
        self.world.network.dial(
            stranger,
            "127.0.0.1",
            PORT,
            source="192.168.1.99",
            prepare=lambda _: None,
            refused=stranger.refused,
        )
        self._later(1.0, stranger.must_be_gone)


class Stranger(asyncio.Protocol):
    """Dials as if it were the device."""

    closed = False

    @override
    def data_received(self, data: bytes) -> None:
        raise Violation(f"a stranger was told {data!r}")

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True

    def refused(self) -> None:
        """Be told that nobody listens."""
        self.closed = True

    def must_be_gone(self) -> None:
        """See that it was closed."""
        if not self.closed:
            raise Violation("a stranger was not closed")


@pytest.mark.parametrize("seed", range(5))
def test_a_bad_device_that_dials_in(seed: int) -> None:
    live(seed)


def live(seed: int) -> None:
    """Let clients of all tempers live with it."""
    with WayWorld(
        f"{seed}/dial in",
        host="",
        dial_in=DialIn(host="127.0.0.1", port=PORT, device=DEVICE),
        timeout=0.5,
    ) as world:
        world.start()
        device = BadDevice(world, world.rng("device"))
        world.live(200)
        assert all(device.faults[fault] > 3 for fault in _FAULTS)
