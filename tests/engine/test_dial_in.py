"""Devices that dial in: when they may, what they say first, and who waits meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
import socket
from typing import Any, Self, cast, override

import pytest

from custom_components.tcp_multiplexer.multiplexer import (
    DialIn,
    Event,
    EventType,
    Failure,
    Health,
    Multiplexer,
    RequestError,
    Settings,
    SettingsError,
)
from custom_components.tcp_multiplexer.multiplexer.protocols.modbus.registration import (
    Registration,
)
from custom_components.tcp_multiplexer.multiplexer.upstream import dial_in
from tests.waiting import until

from .serial_line import with_crc

READ = b"\x01\x03\x00\x10\x00\x01"
ANSWER = b"\x01\x03\x02\x12\x34"
WRITE = b"\x00\x06\x00\x05\x12\x34"
GREETING = b"\0\x01\0\0\0\x13\x01\x41SOLAX-DONGLE-001\0" + b"\0\x01\0\0\0\x03\0\x86\x03"
"""A registration, and the exception behind it."""

type Share = Callable[..., Awaitable[Multiplexer]]


class Dongle(asyncio.Protocol):
    """A device that has dialled in; it answers what it is asked."""

    def __init__(self, greeting: bytes = GREETING, *, rtu: bool = False) -> None:
        self.greeting = greeting
        self.rtu = rtu
        self.silent = False
        self.asked: list[bytes] = []
        self.closed = False
        self.transport: asyncio.Transport

    @classmethod
    async def dial(
        cls, port: int, *args: Any, source: str = "127.0.0.1", **options: Any
    ) -> Self:
        """Connect from an address of its own."""
        loop = asyncio.get_running_loop()
        _, dongle = await loop.create_connection(
            lambda: cls(*args, **options),
            "127.0.0.1",
            port,
            local_addr=(source, 0),
        )
        return dongle

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.greeting:
            self.transport.write(self.greeting)

    @override
    def data_received(self, data: bytes) -> None:
        self.asked.append(data)
        if self.silent:
            return
        if not self.rtu and data[7] != 3:
            self.transport.write(data[:4] + bytes((0, 3, data[6], data[7] | 0x80, 1)))
        elif self.rtu:
            self.transport.write(with_crc(ANSWER))
        else:
            self.transport.write(data[:4] + len(ANSWER).to_bytes(2) + ANSWER)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True


@pytest.fixture
def port() -> int:
    """Return a free port, on which the device will be expected."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture
async def share(port: int) -> AsyncGenerator[Share]:
    """Start multiplexers that expect a device; they are stopped in the end."""
    started: list[Multiplexer] = []

    async def share(device: str = "127.0.0.1", **settings: Any) -> Multiplexer:
        defaults: dict[str, Any] = {
            "dial_in": DialIn(host="127.0.0.1", port=port, device=device),
            "listen_host": "127.0.0.1",
            "listen_port": 0,
        }
        multiplexer = Multiplexer(Settings(**(defaults | settings)))
        started.append(multiplexer)
        await multiplexer.start()
        return multiplexer

    yield share
    for multiplexer in started:
        await multiplexer.stop()


async def test_requests_wait_for_the_device(share: Share, port: int) -> None:
    mux = await share()
    assert mux.health is Health.WAITING
    request = asyncio.create_task(mux.request(READ))
    await until(lambda: mux.snapshot().queue_depth)
    await Dongle.dial(port)
    assert await request == ANSWER
    assert mux.snapshot().health is Health.HEALTHY
    snapshot = mux.snapshot()
    assert snapshot.connection_attempts == 0
    assert snapshot.unsolicited_responses == 0
    assert not any(snapshot.failures.values())


async def test_no_longer_than_their_deadline(share: Share) -> None:
    mux = await share(timeout=0.1)
    with pytest.raises(RequestError) as failed:
        await mux.request(READ)
    assert failed.value.failure is Failure.NO_CONNECTION
    assert mux.health is Health.WAITING


async def test_an_end_is_no_outage(share: Share, port: int) -> None:
    mux = await share()
    events: list[Event] = []
    mux.subscribe(events.append)
    for silent in (False, True, True):
        dongle = await Dongle.dial(port)
        dongle.silent = silent
        await until(lambda: mux.snapshot().connections)
        request = asyncio.create_task(mux.request(READ))
        await until(lambda: dongle.asked)  # noqa: B023
        dongle.transport.abort()
        await until(lambda: not mux.snapshot().connections)
        assert mux.health is Health.WAITING
        again = await Dongle.dial(port)
        assert await request == ANSWER
        again.transport.close()
        await until(lambda: not mux.snapshot().connections)
    assert EventType.UPSTREAM_LOST not in {event.type for event in events}


async def test_a_greeting_answers_nothing(share: Share, port: int) -> None:
    """Its exception would fit a write to unit 0, were it not for its identifier."""
    mux = await share(matching="lenient")
    dongle = await Dongle.dial(port)
    dongle.silent = True
    request = asyncio.create_task(mux.request(b"\0\x06\0\5\0\1\0\0"[:6]))
    await until(lambda: dongle.asked)
    dongle.transport.write(b"\0\0\0\0\0\6\0\6\0\5\0\1")
    assert await request == b"\0\6\0\5\0\1"


async def test_a_greeting_of_another_kind(share: Share, port: int) -> None:
    mux = await share(framing="rtu")
    request = asyncio.create_task(mux.request(READ))
    await Dongle.dial(port, b"REG:356938035643809\r\n", rtu=True)
    assert await request == ANSWER
    assert mux.snapshot().unsolicited_responses == 0


@pytest.mark.parametrize("size", range(1, 8))
def test_a_greeting_is_cut_out_wherever_it_is_split(size: int) -> None:
    stream = GREETING + b"\0\x02\0\0\0\3\1\x83\2" + b"\0\1\0\0\0\3\1\x83\2"
    greeting = Registration()
    parts = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert b"".join(map(greeting.strip, parts)) == stream[len(GREETING) :]


def test_what_is_no_greeting() -> None:
    for data in (b"\1", b"\0\1\0\1\0\3", b"\0\1\0\0\xff\xff", b"\0\2\0\0\0\3"):
        assert Registration().strip(data) == data


async def test_only_the_device_may_dial(share: Share, port: int) -> None:
    mux = await share(device="127.0.0.2")
    stranger = await Dongle.dial(port, source="127.0.0.1")
    await until(lambda: stranger.closed)
    assert mux.health is Health.WAITING
    await Dongle.dial(port, source="127.0.0.2")
    assert await mux.request(READ) == ANSWER


async def test_the_device_is_learned_once(share: Share, port: int) -> None:
    mux = await share(device="")
    events: list[Event] = []
    mux.subscribe(events.append)
    silent = await Dongle.dial(port, source="127.0.0.3")
    await until(lambda: mux.snapshot().connections)
    silent.transport.close()  # it has answered nothing: it is nobody
    await until(lambda: not mux.snapshot().connections)
    device = await Dongle.dial(port, source="127.0.0.2")
    assert await mux.request(READ) == ANSWER
    learned = [event for event in events if event.type is EventType.DEVICE_LEARNED]
    assert [event.detail for event in learned] == ["127.0.0.2"]
    assert mux.settings.dial_in
    assert mux.settings.dial_in.device == "127.0.0.2"
    device.transport.close()
    await until(lambda: not mux.snapshot().connections)
    stranger = await Dongle.dial(port, source="127.0.0.3")
    await until(lambda: stranger.closed)


async def test_whoever_may_be_no_client_is_not_learned(share: Share, port: int) -> None:
    await share(device="", allowed_networks=())
    stranger = await Dongle.dial(port)
    await until(lambda: stranger.closed)


async def test_a_second_dial_beside_a_living_one(share: Share, port: int) -> None:
    mux = await share()
    first = await Dongle.dial(port)
    assert await mux.request(READ) == ANSWER
    second = await Dongle.dial(port)
    await asyncio.sleep(0.05)
    assert await mux.request(READ) == ANSWER
    await until(lambda: second.closed)
    assert not second.asked
    assert not first.closed
    assert await mux.request(READ) == ANSWER


async def test_a_second_dial_beside_one_that_only_its_system_keeps(
    share: Share, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial_in, "WAIT_SECONDS", 0.2)
    mux = await share()
    first = await Dongle.dial(port)
    await until(lambda: mux.snapshot().connections)
    second = await Dongle.dial(port)
    await until(lambda: second.closed)
    assert not first.closed


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_second_dial_replaces_a_dead_one(
    share: Share, port: int, when: str
) -> None:
    mux = await share(timeout=0.3)
    first = await Dongle.dial(port)
    assert await mux.request(READ) == ANSWER
    first.silent = True
    request = asyncio.create_task(mux.request(READ))
    if when == "after":
        with pytest.raises(RequestError):
            await request
    second = await Dongle.dial(port)
    if when == "before":
        with pytest.raises(RequestError):
            await request
    await until(lambda: first.closed)
    assert await mux.request(READ) == ANSWER
    assert second.asked


async def test_a_second_dial_takes_over_when_the_first_ends(
    share: Share, port: int
) -> None:
    mux = await share()
    first = await Dongle.dial(port)
    await until(lambda: mux.snapshot().connections)
    second = await Dongle.dial(port)
    third = await Dongle.dial(port)
    await until(lambda: second.closed)
    first.transport.abort()
    assert await mux.request(READ) == ANSWER
    assert third.asked


async def test_paused_it_takes_no_dial(
    share: Share, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial_in, "WAIT_SECONDS", 0.1)
    mux = await share()
    await mux.pause()
    assert mux.health is Health.PAUSED
    dongle = await Dongle.dial(port)
    await until(lambda: dongle.closed)
    mux.resume()
    assert mux.snapshot().health is Health.WAITING
    await Dongle.dial(port)
    assert await mux.request(READ) == ANSWER


async def test_reconnect_waits_for_the_next_dial(share: Share, port: int) -> None:
    mux = await share()
    first = await Dongle.dial(port)
    assert await mux.request(READ) == ANSWER
    await mux.reconnect()
    await until(lambda: first.closed)
    assert mux.health is Health.WAITING
    await Dongle.dial(port)
    assert await mux.request(READ) == ANSWER


async def test_connecting_on_demand_the_device_may_dial_at_any_time(
    share: Share, port: int
) -> None:
    mux = await share(connect_on_demand=True)
    await Dongle.dial(port)
    await until(lambda: mux.snapshot().connections)


async def test_the_port_is_free_once_it_has_stopped(share: Share, port: int) -> None:
    for _ in range(3):
        mux = await share()
        dongle = await Dongle.dial(port)
        assert await mux.request(READ) == ANSWER
        await mux.stop()
        await until(lambda: dongle.closed)  # noqa: B023


async def test_identifiers_do_not_come_to_that_of_the_greeting(
    share: Share, port: int
) -> None:
    mux = await share()
    dongle = await Dongle.dial(port)
    await mux.request(READ)
    assert dongle.asked[0][:2] != b"\0\1"


@pytest.mark.parametrize("wrong", [{"port": -1}, {"port": 5502, "device": "inverter"}])
def test_where_nothing_dials_in(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        DialIn(**wrong)


def test_there_is_one_connection() -> None:
    with pytest.raises(SettingsError):
        Settings(dial_in=DialIn(port=5502), max_connections=2)
