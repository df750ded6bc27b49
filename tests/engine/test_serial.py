"""A device on a serial line: real ports, and pymodbus' server at the far end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, override

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
import pytest

from custom_components.tcp_multiplexer.multiplexer import (
    Health,
    Multiplexer,
    RequestError,
    SerialLine,
    Settings,
    SettingsError,
)
from custom_components.tcp_multiplexer.multiplexer.upstream.serial_upstream import (
    SerialUpstream,
    _Sender,
)
from tests.waiting import until

from .devices import port_of
from .program import program
from .pty_line import PtyLine, device_on, pty_line
from .serial_line import with_crc
from .serial_server import serial_server

READ = b"\x01\x03\x00\x10\x00\x02"
READ_ANSWER = b"\x01\x03\x04\x00\x10\x00\x11"
WRITE = b"\x01\x06\x00\x05\x12\x34"

type Share = Callable[..., Awaitable[Multiplexer]]


@pytest.fixture
async def line(tmp_path: Path) -> AsyncGenerator[PtyLine]:
    async with pty_line(tmp_path) as line:
        yield line


@pytest.fixture
async def share(line: PtyLine) -> AsyncGenerator[Share]:
    """Start multiplexers on the line; they are stopped in the end."""
    started: list[Multiplexer] = []

    async def share(**settings: Any) -> Multiplexer:
        defaults: dict[str, Any] = {
            "serial": SerialLine(device=str(line.path)),
            "framing": "rtu",
            "listen_host": "127.0.0.1",
            "listen_port": 0,
            "reconnect_backoff": 0.1,
        }
        multiplexer = Multiplexer(Settings(**(defaults | settings)))
        started.append(multiplexer)
        await multiplexer.start()
        return multiplexer

    yield share
    for multiplexer in started:
        await multiplexer.stop()


async def connected(multiplexer: Multiplexer) -> None:
    await until(lambda: multiplexer.snapshot().connections)


async def test_reads_and_writes(line: PtyLine, share: Share) -> None:
    async with device_on(line):
        mux = await share()
        assert await mux.request(READ) == READ_ANSWER
        assert await mux.request(WRITE) == WRITE
        assert await mux.request(b"\x01\x03\x00\x05\x00\x01") == b"\x01\x03\x02\x12\x34"
        assert mux.snapshot().unsolicited_responses == 0


@pytest.mark.parametrize("scheme", ["rfc2217", "socket"])
async def test_a_port_that_a_server_offers(
    line: PtyLine, share: Share, scheme: str
) -> None:
    negotiates = scheme == "rfc2217"
    async with (
        device_on(line),
        serial_server(line.path, negotiates=negotiates) as (tcp_port, port),
    ):
        url = f"{scheme}://127.0.0.1:{tcp_port}"
        mux = await share(serial=SerialLine(device=url, baudrate=4800, stopbits=2))
        assert await mux.request(READ) == READ_ANSWER
        assert await mux.request(WRITE) == WRITE
        if negotiates:
            assert (port.baudrate, port.stopbits) == (4800, 2)
        await mux.reconnect()
        assert await mux.request(READ) == READ_ANSWER
        await mux.stop()


async def test_a_server_that_is_away(share: Share) -> None:
    url = "rfc2217://127.0.0.1:1"
    mux = await share(serial=SerialLine(device=url))
    await until(lambda: mux.health is Health.UNREACHABLE)


async def test_a_frame_comes_after_three_and_a_half_characters_of_silence(
    line: PtyLine, share: Share
) -> None:
    async with device_on(line):
        mux = await share()
        for _ in range(10):
            await mux.request(READ)
        assert min(line.silences[1:]) >= 3.5 * 10 / 9600


@pytest.mark.parametrize("first", [READ, WRITE], ids=["read", "write"])
async def test_an_echo_is_no_response(
    line: PtyLine, share: Share, first: bytes
) -> None:
    line.echoes = True
    async with device_on(line):
        mux = await share()
        for payload in (first, READ, WRITE, READ, WRITE):
            response = await mux.request(payload)
            assert response == (READ_ANSWER if payload == READ else WRITE)
        await asyncio.sleep(0.05)
        assert mux.snapshot().unsolicited_responses == 0


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
async def test_an_echo_confirms_no_write(
    line: PtyLine, share: Share, known: bool
) -> None:
    line.echoes = True
    mux = await share(timeout=2.0)
    if known:
        async with device_on(line):
            await mux.request(READ)
    with pytest.raises(RequestError):
        await mux.request(WRITE)


async def test_a_write_first_where_nothing_echoes(line: PtyLine, share: Share) -> None:
    async with device_on(line):
        mux = await share()
        for _ in range(3):
            assert await mux.request(WRITE) == WRITE
        assert line.asked == (with_crc(b"\x01\x03\0\0\0\x01") + 3 * with_crc(WRITE))


async def test_a_silent_device_still_gets_the_write(
    line: PtyLine, share: Share
) -> None:
    mux = await share(timeout=2.0)
    with pytest.raises(RequestError):
        await mux.request(WRITE)
    assert line.asked == with_crc(b"\x01\x03\0\0\0\x01") + with_crc(WRITE)


@pytest.mark.parametrize("echoes", [False, True], ids=["plain", "echo"])
async def test_noise_around_frames(line: PtyLine, share: Share, echoes: bool) -> None:
    line.echoes = echoes
    line.change = lambda data: b"\xff\0" + data + b"\xf8"
    async with device_on(line):
        mux = await share()
        for _ in range(5):
            assert await mux.request(READ) == READ_ANSWER
            assert await mux.request(WRITE) == WRITE


async def test_slow_bytes(line: PtyLine, share: Share) -> None:
    line.up.seconds = 0.03
    async with device_on(line):
        mux = await share()
        assert await mux.request(READ) == READ_ANSWER
        assert await mux.request(WRITE) == WRITE


async def test_an_adapter_that_comes_back_under_its_path(
    line: PtyLine, share: Share
) -> None:
    async with device_on(line):
        mux = await share()
        assert await mux.request(READ) == READ_ANSWER
        line.unplug()
        await until(lambda: mux.health is Health.UNREACHABLE)
        assert "usb-adapter" in (mux.snapshot().health_reason or "")
        line.plug_in()
        await connected(mux)
        assert await mux.request(READ) == READ_ANSWER
        assert mux.health is Health.HEALTHY


async def test_an_adapter_unplugged_within_a_response(
    line: PtyLine, share: Share
) -> None:
    async with device_on(line):
        mux = await share()
        await mux.request(READ)
        line.up.seconds = 0.02
        request = asyncio.create_task(mux.request(READ))
        asked = len(line.asked)
        await until(lambda: len(line.asked) >= asked + 8)
        await asyncio.sleep(0.1)
        line.up.stop()
        line.unplug()
        line.up.seconds = 0.001
        line.plug_in()
        with pytest.raises(RequestError):
            await request  # its response had begun
        assert await mux.request(READ) == READ_ANSWER


async def test_the_port_is_free_once_it_has_stopped(
    line: PtyLine, share: Share
) -> None:
    async with device_on(line):
        for _ in range(5):
            mux = await share()
            assert await mux.request(READ) == READ_ANSWER
            assert mux.snapshot().connection_attempts == 1
            await mux.stop()


async def test_a_stop_waits_until_the_port_is_closed(
    share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transports close in the background, and some take their time."""
    mux = await share()
    await connected(mux)
    closed = asyncio.Event()
    lost = SerialUpstream.connection_lost

    def lost_late(upstream: SerialUpstream, exc: Exception | None) -> None:
        def now() -> None:
            closed.set()
            lost(upstream, exc)

        asyncio.get_running_loop().call_later(0.1, now)

    monkeypatch.setattr(SerialUpstream, "connection_lost", lost_late)
    await mux.stop()
    assert closed.is_set()


async def test_reconnecting_waits_for_the_port(line: PtyLine, share: Share) -> None:
    async with device_on(line):
        mux = await share()
        await connected(mux)
        for _ in range(5):
            await mux.reconnect()
            assert await mux.request(READ) == READ_ANSWER
        assert mux.health is Health.HEALTHY
        assert mux.snapshot().connection_attempts == 6


async def test_what_cannot_be_opened_is_an_outage(share: Share) -> None:
    for device, words in (
        ("/dev/serial/by-id/none", "No such file"),
        ("nonsense://port", "nonsense"),
    ):
        mux = await share(serial=SerialLine(device=device))
        await until(lambda: mux.health is Health.UNREACHABLE)  # noqa: B023
        assert words in (mux.snapshot().health_reason or "")


async def test_a_network_serial_port(share: Share) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(8):
            writer.write(with_crc(READ_ANSWER))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    mux = await share(serial=SerialLine(device=f"socket://127.0.0.1:{port}"))
    assert await mux.request(READ) == READ_ANSWER
    await mux.stop()
    server.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": ""},
        {"baudrate": 0},
        {"parity": "mark"},
        {"stopbits": 3},
    ],
)
def test_settings_of_a_line_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        SerialLine(**{"device": "/dev/ttyUSB0", **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"framing": "tcp"},
        {"protocol": "echo"},
        {"max_connections": 2},
        {"max_in_flight": 2},
    ],
)
def test_settings_that_no_line_has(wrong: dict[str, Any]) -> None:
    line = SerialLine(device="/dev/ttyUSB0")
    with pytest.raises(SettingsError):
        Settings(**{"serial": line, "framing": "rtu", **wrong})


async def test_the_command_line(line: PtyLine) -> None:
    async with device_on(line), program("-t", f"serial:{line.path}") as running:
        client = AsyncModbusTcpClient("127.0.0.1", port=await running.port())
        assert await client.connect()
        assert (await client.read_holding_registers(16, count=2)).registers == [16, 17]
        client.close()


async def test_four_clients_get_what_one_gets_from_the_line(
    line: PtyLine, share: Share
) -> None:
    async def read(client: Any, seconds: float, silence: float = 0.0) -> int:
        count = 0
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            assert (await client.read_holding_registers(16, count=20)).registers
            count += 1
            await asyncio.sleep(silence)
        return count

    async def by_one() -> int:
        alone = AsyncModbusSerialClient(str(line.path), baudrate=9600, timeout=3)
        assert await alone.connect()
        # It does not keep the silence before a frame by itself, as it should.
        count = await read(alone, 3.0, SerialLine(device="-").silence)
        alone.close()
        return count

    async def by_four() -> int:
        mux = await share(share_reads=False)
        clients = [
            AsyncModbusTcpClient("127.0.0.1", port=port_of(mux), timeout=5)
            for _ in range(4)
        ]
        for client in clients:
            assert await client.connect()
        count = sum(await asyncio.gather(*(read(each, 3.0) for each in clients)))
        for client in clients:
            client.close()
        await mux.stop()
        return count

    async with device_on(line):
        # Whatever else the machine does disturbs one or the other.
        ratios = [await by_four() / await by_one() for _ in range(3)]
    assert max(ratios) >= 0.95


class BrokenPort(asyncio.Transport):
    """A port that was unplugged a moment ago."""

    @override
    def is_closing(self) -> bool:
        return False

    @override
    def write(self, data: object) -> None:
        raise RuntimeError("the adapter is gone")

    @override
    def abort(self) -> None:
        """There is nothing to end."""


async def test_a_port_that_breaks_while_it_is_written_to() -> None:
    """Its end is told by the transport: writing raises nothing."""
    sender = _Sender(BrokenPort(), 60)
    sender.write(b"at once")
    sender.heard()
    sender.write(b"after the silence, that is, never")
    sender.abort()
    assert sender.written_at > 0
