"""Scenes at a serial port: what the line's pace and an adapter's echo ask for."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from typing import Any

import pytest

from custom_components.tcp_multiplexer.multiplexer import Health, SerialLine
from custom_components.tcp_multiplexer.multiplexer.upstream.serial_upstream import (
    SerialPort,
)
from tests.engine.serial_line import with_crc

from .contract import contract
from .device import HOST, PORT
from .stage import (
    SERVICE,
    Line,
    Stage,
    answers,
    asks,
    at,
    excuse,
    says_nothing,
    sets,
    stage,
)

NO_ANSWER = 0x0B
TEST_READ = b"\x01\x03\0\0\0\x01"
"""What finds out whether an adapter echoes."""


@pytest.fixture(autouse=True)
def port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach the scene's device by what is opened as a port."""

    async def open_port(port: SerialPort, protocol: asyncio.Protocol) -> None:
        await port.free.wait()
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: protocol, HOST, PORT)

    monkeypatch.setattr(SerialPort, "open", open_port)


def at_port(baudrate: int = 9600, **settings: Any) -> AbstractContextManager[Stage]:
    """Have a multiplexer at a serial port, in a scene."""
    line = SerialLine(device="/dev/simulated", baudrate=baudrate)
    return stage(host="", serial=line, framing="rtu", **settings)


def echoes(line: Line, tid: int, body: bytes) -> None:
    """Say what was heard, and answer."""
    line.say(with_crc(body))
    answers()(line, tid, body)


def only_echoes(line: Line, tid: int, body: bytes) -> None:
    """Say what was heard, and nothing else."""
    line.say(with_crc(body))


def asked(scene: Stage) -> list[bytes]:
    """Give what reached the device."""
    return [each.body for each in scene.puppet.asked]


@pytest.mark.parametrize(("baudrate", "silence"), [(9600, 0.0036458), (38400, 0.00175)])
@contract(
    "Before each frame the line is silent for 3.5 characters, for 1.75 ms above 19,200"
)
def test_silence_before_a_frame(baudrate: int, silence: float) -> None:
    with at_port(baudrate) as scene:
        client, other = scene.hand(), scene.hand()
        client.ask(asks(1))
        other.ask(asks(2))
        scene.run_to(1)
        first, second = scene.puppet.asked
        assert second.at - first.at == pytest.approx(SERVICE + silence, abs=1e-6)


def test_what_waits_for_silence_is_not_sent_late() -> None:
    """A line at 300 baud is silent for 0.117 s, and the second has 0.1 s left."""
    with at_port(300, timeout=0.2) as scene:
        client, other = scene.hand(), scene.hand()
        client.ask(asks(1))
        other.ask(asks(2))
        scene.run_to(3)
        assert other.heard[0].at == at(0.2)
        assert asked(scene) == [asks(1)]


@contract("begins when its last character has been sent")
def test_turnaround_after_a_broadcast() -> None:
    with at_port(300) as scene:
        scene.puppet.script += [says_nothing]
        client = scene.hand()
        client.ask(sets(1, unit=0))
        scene.run_to(1)
        assert client.heard[0].at == at(8 * 10 / 300 + 0.1)


@contract("where the response may be equal to the request, the first copy of it is the")
def test_an_echo_confirms_nothing() -> None:
    with at_port(timeout=2.0) as scene:
        scene.puppet.script += [echoes, only_echoes, echoes]
        client = scene.hand()
        client.ask(asks(1))
        scene.run_to(1)
        client.ask(sets(2))
        scene.run_to(4)
        assert client.heard[1].body == excuse(sets(2), NO_ANSWER)
        client.ask(sets(3))
        scene.run_to(6)
        assert client.heard[2].body == sets(3)
        assert client.heard[2].at > 4 + SERVICE
        assert asked(scene) == [asks(1), sets(2), sets(3)]


@contract("a read of holding register 0 of its unit goes before it")
def test_a_write_that_comes_first() -> None:
    with at_port() as scene:
        scene.puppet.script += [echoes, echoes]
        client = scene.hand()
        client.ask(sets(1))
        scene.run_to(1)
        assert asked(scene) == [TEST_READ, sets(1)]
        assert client.heard[0].body == sets(1)


@contract("for at most a second and the time that it takes on the line")
def test_a_write_that_comes_first_to_a_silent_device() -> None:
    with at_port() as scene:
        scene.puppet.script += [says_nothing]
        client = scene.hand()
        client.ask(sets(1))
        scene.run_to(2)
        assert scene.puppet.asked[1].at == at(1 + 8 * 10 / 9600)
        assert client.heard[0].body == sets(1)


@contract("one that was unplugged is found again under its path")
def test_an_adapter_is_unplugged() -> None:
    with at_port(reconnect_backoff=1.0) as scene:
        client = scene.hand()
        client.ask(asks(1))
        scene.run_to(1)
        scene.puppet.go_away()
        scene.puppet.reset(1)
        scene.run_to(2)
        assert scene.mux.health is Health.UNREACHABLE
        scene.puppet.come_back()
        scene.run_to(5)
        client.ask(asks(2))
        scene.run_to(6)
        assert len(client.heard) == 2
        assert scene.mux.snapshot().health is Health.HEALTHY
