"""Trying a local port and a device, each with a real one at the other end."""

import _socket
import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
import errno
import os
import socket
import struct
from typing import Any, override

from aiohttp import web
import pytest

from custom_components.tcp_multiplexer.flow.probe import (
    DeviceError,
    DeviceProblem,
    ask_device,
)
from custom_components.tcp_multiplexer.local_sockets import (
    ListenProblem,
    next_free_port,
    own_addresses,
    try_listen,
)
from custom_components.tcp_multiplexer.multiplexer import Settings, TlsUpstream

from .pymodbus_device import pymodbus_device

STRAY = b"\xab\xcd\0\0\0\3\1\x83\2"
"""A response that nobody asked for."""

type Reaction = Callable[[bytes], bytes | None]


def settings(port: int, host: str = "127.0.0.1", **more: Any) -> Settings:
    """Give settings for a device, with little patience."""
    return Settings(host=host, port=port, **({"timeout": 0.3} | more))


@pytest.fixture
def taken() -> Generator[int]:
    """Return a port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@asynccontextmanager
async def device(
    reaction: Reaction, greeting: bytes = b""
) -> AsyncGenerator[tuple[int, list[bytes]]]:
    """Run a device that sends what `reaction` gives; None closes the connection.

    Gives its port, and what it hears.
    """
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        while data := await reader.read(1000):
            heard.append(data)
            if (answer := reaction(data)) is None:
                break
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heard
        server.close_clients()


async def problem(settings: Settings, **patience: Any) -> DeviceProblem:
    """Give the problem that a device has."""
    with pytest.raises(DeviceError) as caught:
        await ask_device(settings, **patience)
    return caught.value.problem


# The local port


@pytest.mark.parametrize("host", [None, "127.0.0.1"])
async def test_a_free_port_can_be_had_and_is_let_go(host: str | None) -> None:
    port = await next_free_port(host, 20_000, ())
    assert await try_listen(host, port) is None
    with socket.create_server(("", port)):
        assert await try_listen(host, port) is ListenProblem.IN_USE


async def test_no_client_is_accepted_meanwhile() -> None:
    """Those who wait for the multiplexer must not take the trial for it."""
    port = await next_free_port("127.0.0.1", 20_000, ())
    trial = asyncio.create_task(try_listen("127.0.0.1", port))
    while not trial.done():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        await asyncio.sleep(0)
    assert trial.result() is None


@pytest.mark.parametrize("host", [None, "127.0.0.1"])
async def test_a_port_in_use(host: str | None, taken: int) -> None:
    assert await try_listen(host, taken) is ListenProblem.IN_USE


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "fe80::1%nowhere"])
async def test_an_address_that_this_machine_does_not_have(host: str) -> None:
    assert await try_listen(host, 0) is ListenProblem.NOT_HERE


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EACCES, ListenProblem.NOT_PERMITTED),
        (errno.EPERM, ListenProblem.NOT_PERMITTED),
        (errno.EMFILE, ListenProblem.OTHER),
    ],
)
async def test_what_the_system_refuses(
    number: int, expected: ListenProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which ports are privileged, and who may have them, differs between machines.
    async def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(asyncio.get_running_loop(), "create_server", refuse)
    assert await try_listen(None, 502) is expected


async def test_the_next_free_port_is_neither_in_use_nor_wanted(taken: int) -> None:
    assert await next_free_port("127.0.0.1", taken, ()) > taken
    free = await next_free_port("127.0.0.1", taken, ())
    assert await next_free_port("127.0.0.1", taken, {free}) > free


async def test_after_the_last_port_come_the_unprivileged_ones() -> None:
    port = await next_free_port("127.0.0.1", 65535, {65535})
    assert 1024 <= port < 65535


async def test_own_addresses() -> None:
    assert await own_addresses("127.0.0.1") == {"127.0.0.1"}
    assert await own_addresses("127.0.0.2") == {"127.0.0.2"}
    assert "127.0.0.1" in await own_addresses("localhost")


async def test_addresses_of_others_are_not_own() -> None:
    assert await own_addresses("192.0.2.1") == set()


# The device


async def test_a_device_answers_with_a_value() -> None:
    async with pymodbus_device(21365) as port:
        answer = (await ask_device(settings(port, host="localhost"))).answer
    assert answer == "unit 1 read holding registers 0 count 1 -> values 21365"


async def test_an_exception_is_an_answer() -> None:
    async with pymodbus_device(7, address=100) as port:
        answer = (await ask_device(settings(port))).answer
    assert answer is not None
    assert answer.endswith("-> exception 0x02 illegal data address")


async def test_the_connection_is_closed_behind_the_answer() -> None:
    def answer(request: bytes) -> bytes:
        return request[:4] + b"\0\5" + request[6:8] + b"\2\0\1"

    async with device(answer) as (port, heard):
        for _ in range(3):
            assert (await ask_device(settings(port))).answer
        first = [request for request in heard if request[:2] == b"\0\1"]
        assert len(first) == 3


async def test_the_unit_is_the_one_that_was_set() -> None:
    async with device(lambda _: None) as (port, heard):
        await problem(settings(port, unit_id=3))
    assert heard[0][6:] == bytes((3, 3, 0, 0, 0, 1))


async def test_the_delay_after_connecting_is_kept() -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    def note(_: bytes) -> None:
        times.append(loop.time())

    async with device(note) as (port, _):
        start = loop.time()
        await problem(settings(port, connect_delay=0.2))
    assert times[0] - start >= 0.2


async def test_nobody_waits_for_minutes() -> None:
    async with device(lambda _: None) as (port, heard):
        assert await ask_device(settings(port, connect_delay=120)) == (None, None)
    assert heard == []


async def test_a_protocol_without_a_question() -> None:
    async with device(lambda _: None) as (port, heard):
        assert await ask_device(settings(port, protocol="echo")) == (None, None)
    assert heard == []


async def test_a_keepalive_before_the_answer_is_returned() -> None:
    def answer(heard: bytes) -> bytes:
        return b"0004pong" if b"0000" in heard else b"0000"

    async with device(answer) as (port, heard):
        said = (
            await ask_device(settings(port, protocol="mpu", probe=b"0004ping"))
        ).answer
    assert heard == [b"0004ping", b"0000"]
    assert said == "4 bytes 70 69 6e 67 -> 4 bytes 70 6f 6e 67"


async def test_http_is_asked_as_well() -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    assert (await ask_device(settings(port, protocol="http"))).answer == (
        "OPTIONS * -> 404, 14 bytes"
    )
    await runner.cleanup()


@pytest.mark.parametrize("host", ["fe80::1%nowhere", "x" * 70])
async def test_an_unknown_host(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The test plugin lets no name through; neither of these leaves the machine.
    monkeypatch.setattr(socket, "getaddrinfo", _socket.getaddrinfo)
    assert await problem(settings(502, host=host)) is DeviceProblem.UNKNOWN_HOST
    assert await own_addresses(host) == set()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_port_where_nobody_listens(host: str) -> None:
    port = await next_free_port(None, 20_000, ())
    assert await problem(settings(port, host=host)) is DeviceProblem.REFUSED


async def test_a_network_that_cannot_be_reached() -> None:
    # No TCP connection leads to a broadcast address.
    assert (
        await problem(settings(502, host="127.255.255.255"))
        is DeviceProblem.UNREACHABLE
    )


async def test_a_host_that_does_not_answer() -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        # It fills the queue; the kernel drops what comes after it.
        socket.create_connection(server.getsockname()),
    ):
        port = server.getsockname()[1]
        async with asyncio.timeout(3):
            found = await problem(settings(port), connect_seconds=0.2)
        assert found is DeviceProblem.UNREACHABLE


async def test_a_device_that_hangs_up() -> None:
    async with device(lambda _: None) as (port, _):
        assert await problem(settings(port)) is DeviceProblem.CLOSED


async def test_a_device_that_breaks_off() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_BreaksOff, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await problem(settings(port)) is DeviceProblem.CLOSED


class _BreaksOff(asyncio.Protocol):
    """Resets the connection as soon as something is asked."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        linger = struct.pack("ii", 1, 0)
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()


async def test_a_device_that_says_nothing() -> None:
    async with device(lambda _: b"") as (port, _):
        assert await problem(settings(port)) is DeviceProblem.SILENT


async def test_an_endless_timeout_ends() -> None:
    async with device(lambda _: b"") as (port, _):
        found = await problem(settings(port, timeout=3600), answer_seconds=0.2)
    assert found is DeviceProblem.SILENT


@pytest.mark.parametrize(
    "reaction",
    [
        pytest.param(lambda _: b"HTTP/1.1 400 Bad Request\r\n", id="another protocol"),
        pytest.param(lambda _: STRAY, id="another transaction"),
        pytest.param(lambda asked: asked[:6] + b"\2" + asked[7:], id="another unit"),
    ],
)
async def test_an_answer_that_is_none(reaction: Reaction) -> None:
    async with device(reaction) as (port, _):
        assert await problem(settings(port)) is DeviceProblem.NOT_UNDERSTOOD


async def test_a_strange_answer_and_then_the_end() -> None:
    async with device(lambda _: None, greeting=STRAY) as (port, _):
        assert await problem(settings(port)) is DeviceProblem.NOT_UNDERSTOOD


async def test_the_right_answer_counts_whatever_comes_before_it() -> None:
    def answer(asked: bytes) -> bytes:
        return STRAY + asked[:4] + b"\0\5" + asked[6:8] + b"\2\0\x2a"

    async with device(answer) as (port, _):
        said = (await ask_device(settings(port))).answer
    assert said == "unit 1 read holding registers 0 count 1 -> values 42"


# TLS


@pytest.mark.parametrize(
    ("reaction", "detail"),
    [
        (lambda _: None, "connection closed"),
        (lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", "WRONG_VERSION_NUMBER"),
        (lambda _: b"", "no answer"),
    ],
)
async def test_a_handshake_that_fails(reaction: Reaction, detail: str) -> None:
    """The dialog goes on, and the connection is closed."""
    async with device(reaction) as (port, heard):
        with pytest.raises(DeviceError) as caught:
            await ask_device(
                settings(port, tls=TlsUpstream(verify=False)), connect_seconds=0.5
            )
        assert caught.value.problem is DeviceProblem.NO_TLS
        assert caught.value.detail == detail
        assert heard[0][:2] == b"\x16\3"  # a handshake (RFC 8446, 5.1)


async def test_a_device_that_hangs_up_when_asked_who_it_is() -> None:
    """What it said before counts."""

    def answer(request: bytes) -> bytes | None:
        if request[7] != 3:
            return None
        return request[:4] + b"\0\5" + request[6:8] + b"\2\0\1"

    async with device(answer) as (port, _):
        said, identity = await ask_device(settings(port))
    assert said is not None
    assert identity is None
