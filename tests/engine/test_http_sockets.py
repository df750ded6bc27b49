"""HTTP through a running multiplexer: real servers, real clients, real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
import contextlib
from contextlib import asynccontextmanager
from pathlib import Path
import shutil
from typing import Any, cast, override

from aiohttp import ClientSession, TCPConnector, web
import pytest

from custom_components.tcp_multiplexer.multiplexer import Multiplexer, Settings
from custom_components.tcp_multiplexer.multiplexer.limits import LIMITS, Limits

type Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

ETAG = '"1"'
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")


class Refuse(asyncio.Protocol):
    """What a device does with a connection for which it has no slot."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()


class Device:
    """An aiohttp server that accepts one connection at a time."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.requests: list[web.Request] = []
        self._off = asyncio.Event()
        app = web.Application(client_max_size=1 << 25)
        app.router.add_get("/value/{n}", self.value)
        app.router.add_get("/cached", self.cached)
        app.router.add_get("/stream", self.stream)
        app.router.add_get("/slow", self.slow)
        app.router.add_post("/echo", self.echo)
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=3600, shutdown_timeout=0.1
        )
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._off.set()
        self._server.close()
        await self._runner.cleanup()

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        if server.connections:
            self.refused += 1
            return Refuse()
        self.accepted += 1
        return server()

    async def value(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        await asyncio.sleep(0)
        return web.json_response({"n": int(request.match_info["n"])})

    async def cached(self, request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == ETAG:
            return web.Response(status=304, headers={"ETag": ETAG})
        return web.Response(text="fresh", headers={"ETag": ETAG})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send chunks whose number is not known beforehand."""
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for n in range(20):
            await response.write(b"%d " % n)
            await asyncio.sleep(0)
        return response

    async def slow(self, request: web.Request) -> web.Response:
        """Respond after some seconds, or once the device is switched off."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(request.query["seconds"])):
                await self._off.wait()
        return web.Response(text="slow")

    async def echo(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        return web.Response(body=await request.read())


@pytest.fixture
async def device() -> AsyncIterator[Device]:
    running = Device()
    await running.start()
    yield running
    await running.stop()


@asynccontextmanager
async def scripted(handler: Handler) -> AsyncIterator[int]:
    """Run a device of few lines; give its port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the multiplexer hung up
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read a request without a body, or with one of a byte; give its start line."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"Content-Length: 1\r\n" in head:
        await reader.readexactly(1)
    return head.partition(b"\r\n")[0]


@asynccontextmanager
async def sharing(
    port: int, *, limits: Limits = LIMITS, **settings: Any
) -> AsyncIterator[Multiplexer]:
    """Run a multiplexer in front of a device on `port`."""
    multiplexer = Multiplexer(
        Settings(
            protocol="http",
            host="127.0.0.1",
            port=port,
            listen_host="127.0.0.1",
            listen_port=0,
            **{"timeout": 30.0, "reconnect_backoff": 0.1, **settings},
        ),
        limits=limits,
    )
    await multiplexer.start()
    try:
        yield multiplexer
    finally:
        await multiplexer.stop()


def url(multiplexer: Multiplexer, path: str = "/") -> str:
    host, port = multiplexer.snapshot().listen_addresses[0]
    return f"http://{host}:{port}{path}"


@asynccontextmanager
async def connected(
    multiplexer: Multiplexer,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect a client that reads and writes bytes."""
    address = multiplexer.snapshot().listen_addresses[0]
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.close()


async def curl(*arguments: str) -> tuple[int, str, str]:
    """Run curl; give its exit status, what it printed and what it told."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", "--verbose", "--noproxy", "*"),
        *("--max-time", "30", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_many_clients_share_one_connection(device: Device) -> None:
    """Each gets its own answers, and half of them say `Connection: close`."""

    async def client(number: int) -> None:
        connector = TCPConnector(force_close=number % 2 == 0)
        async with ClientSession(connector=connector) as session:
            for n in range(number * 100, number * 100 + 10):
                address = url(multiplexer, f"/value/{n}")
                async with session.get(address) as response:
                    assert await response.json() == {"n": n}

    async with sharing(device.port) as multiplexer:
        await asyncio.gather(*(client(number) for number in range(12)))
        snapshot = multiplexer.snapshot()
    assert (device.accepted, device.refused) == (1, 0)
    assert snapshot.responses == len(device.requests) == 120
    assert {"Connection", "Keep-Alive"}.isdisjoint(device.requests[0].headers)
    assert device.requests[0].headers["Via"] == "1.1 tcp_multiplexer"
    assert device.requests[0].headers["Host"].startswith("127.0.0.1:")


async def test_bodies_pass_both_ways(device: Device) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for n in range(50):
            yield b"%d " % n * 1000

    sent = b"".join([part async for part in parts()])
    async with sharing(device.port) as multiplexer, ClientSession() as session:
        address = url(multiplexer, "/echo")
        for body in (sent, parts(), b""):
            async with session.post(address, data=body) as response:
                assert await response.read() == (sent if body else b"")
        async with session.get(url(multiplexer, "/stream")) as response:
            assert await response.text() == "".join(f"{n} " for n in range(20))
            assert "Transfer-Encoding" not in response.headers
        assert len(multiplexer.snapshot().clients) == 1
    lengths = [request.headers.get("Content-Length") for request in device.requests]
    assert lengths == [str(len(sent)), str(len(sent)), "0"]
    assert device.accepted == 1


async def test_responses_without_a_body(device: Device) -> None:
    async with sharing(device.port) as multiplexer, ClientSession() as session:
        address = url(multiplexer, "/cached")
        for _ in range(3):
            async with session.head(address) as response:
                assert response.headers["Content-Length"] == "5"
            headers = {"If-None-Match": ETAG}
            async with session.get(address, headers=headers) as response:
                assert response.status == 304
            async with session.get(address) as response:
                assert await response.text() == "fresh"
        assert len(multiplexer.snapshot().clients) == 1
    assert device.accepted == 1


async def test_pipelining_client_is_answered_in_order(device: Device) -> None:
    async with (
        sharing(device.port) as multiplexer,
        connected(multiplexer) as (reader, writer),
    ):
        request = b"GET /value/%d HTTP/1.1\r\nHost: a\r\n\r\n"
        writer.write(b"".join(request % n for n in range(100)))
        for n in range(100):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            length = len(b'{"n": %d}' % n)
            assert await reader.readexactly(length) == b'{"n": %d}' % n
    assert device.accepted == 1


async def test_half_closing_client_is_answered_then_closed(device: Device) -> None:
    """As `printf 'GET ...' | nc` asks."""
    async with (
        sharing(device.port) as multiplexer,
        connected(multiplexer) as (reader, writer),
    ):
        request = b"GET /value/%d HTTP/1.1\r\nHost: a\r\n\r\n"
        writer.write(request % 1 + request % 2)
        writer.write_eof()
        said = await reader.read()
    assert said.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert said.endswith(b'{"n": 2}')


async def test_refusal_follows_the_answers_before_it(device: Device) -> None:
    async with (
        sharing(device.port) as multiplexer,
        connected(multiplexer) as (reader, writer),
    ):
        writer.write(b"GET /value/1 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n")
        said = await reader.read()
        assert multiplexer.snapshot().invalid_requests == 1
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'{"n": 1}HTTP/1.1 400 Bad Request\r\n' in said


async def test_too_long_body_is_refused_while_it_comes(device: Device) -> None:
    """Its client reads why: closing at once would reset the connection."""
    async with sharing(device.port, max_body=1024) as multiplexer:
        for _ in range(5):
            async with connected(multiplexer) as (reader, writer):
                writer.write(
                    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n"
                )
                writer.write(bytes(4_000_000))
                said = await reader.read()
                assert said.startswith(b"HTTP/1.1 413 ")
    assert device.requests == []


async def test_refused_client_cannot_stay(device: Device) -> None:
    """It has read why, and neither closes nor stops sending."""
    async with (
        sharing(device.port, limits=Limits(linger=0.2)) as multiplexer,
        connected(multiplexer) as (reader, writer),
    ):
        writer.write(b"nonsense\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        with contextlib.suppress(ConnectionError):
            while multiplexer.snapshot().clients:
                writer.write(b"GET /value/1 HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
                await writer.drain()
                await asyncio.sleep(0.01)
        assert multiplexer.snapshot().clients == ()
    assert device.requests == []


async def test_client_that_has_always_begun_the_next_request(device: Device) -> None:
    """What counts is how long each takes, not how long there is none at all."""
    async with (
        sharing(device.port, timeout=1.5) as multiplexer,
        connected(multiplexer) as (reader, writer),
    ):
        request = b"GET /value/1 HTTP/1.1\r\nHost: a\r\n\r\n"
        writer.write(request[:9])
        for _ in range(40):
            writer.write(request[9:] + request[:9])
            await reader.readuntil(b'{"n": 1}')
            await asyncio.sleep(0.05)


async def test_response_that_ends_with_its_connection() -> None:
    """The device needs a connection for each; its client keeps its own."""
    served = 0

    async def close_delimited(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal served
        await read_request(reader)
        served += 1
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        writer.write(b"number ")
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(b"%d" % served)

    async with (
        scripted(close_delimited) as port,
        sharing(port) as multiplexer,
        ClientSession() as session,
    ):
        for n in range(1, 6):
            async with session.get(url(multiplexer)) as response:
                assert response.headers["Content-Length"] == "8"
                assert await response.text() == f"number {n}"
        assert len(multiplexer.snapshot().clients) == 1
        assert multiplexer.snapshot().failures == dict.fromkeys(
            multiplexer.snapshot().failures, 0
        )


@pytest.mark.parametrize("told", [b"Connection: close\r\n", b""])
async def test_device_that_closes_after_each_response(told: bytes) -> None:
    open_at_once = most = 0

    async def one_response(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal open_at_once, most
        open_at_once += 1
        most = max(most, open_at_once)
        try:
            line = await read_request(reader)
            writer.write(
                b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (told, len(line))
            )
            writer.write(line)
            await writer.drain()
        finally:
            open_at_once -= 1

    async def client(number: int) -> None:
        async with ClientSession() as session:
            for n in range(5):
                address = url(multiplexer, f"/{number}/{n}")
                async with session.get(address) as response:
                    assert await response.text() == f"GET /{number}/{n} HTTP/1.1"

    async with scripted(one_response) as port, sharing(port) as multiplexer:
        await asyncio.gather(*(client(number) for number in range(4)))
        assert multiplexer.snapshot().responses == 20
    assert most == 1


SLOPPY = [
    b"HTTP/1.1 200OK\nA B: x\n\nok",
    b"http/1.0 200\tOK\r\n: x\r\nContent-Length : 2\r\n\r\nok",
    b"HTTP/2 200\r\nContent-Length: 2\r\nX: \x1b\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200\r\n%b%b\r\n2\nok\n0\n\n"
    % ((b"Transfer-Encoding: chunked\r\n",) * 2),
]


async def sloppy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Respond as asked for by the path's number, and close."""
    line = await read_request(reader)
    writer.write(SLOPPY[int(line.split()[1][1:])])


@pytest.mark.parametrize("number", range(len(SLOPPY)))
async def test_strict_client_reads_a_sloppy_device(number: int) -> None:
    async with (
        scripted(sloppy) as port,
        sharing(port) as multiplexer,
        ClientSession() as session,
    ):
        async with session.get(url(multiplexer, f"/{number}")) as response:
            assert response.status == 200
            assert response.headers["Content-Length"] == "2"
            assert await response.text() == "ok"
        assert len(multiplexer.snapshot().clients) == 1


async def test_offered_upgrade_is_ignored(device: Device) -> None:
    async with sharing(device.port) as multiplexer, ClientSession() as session:
        offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c"}
        address = url(multiplexer, "/value/1")
        headers = {**offer, "HTTP2-Settings": "AAMAAABkAAQAoAAA"}
        async with session.get(address, headers=headers) as response:
            assert await response.json() == {"n": 1}
            assert "Upgrade" not in response.headers
        async with session.get(
            address, headers={"Connection": "Upgrade", "Upgrade": "websocket"}
        ) as response:
            assert response.status == 501
    (request,) = device.requests
    assert {"Upgrade", "HTTP2-Settings"}.isdisjoint(request.headers)


async def test_device_may_take_its_time_to_read_one_long_request() -> None:
    """A device that does not read is disconnected, but not for a single request."""
    begun, read_on = asyncio.Event(), asyncio.Event()
    body = bytes(12 << 20)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        begun.set()
        await read_on.wait()
        await reader.readexactly(len(body))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.read()

    async with scripted(slow) as port, sharing(port) as multiplexer:
        async with connected(multiplexer) as (reader, writer):
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % len(body) + body)
            await begun.wait()
            read_on.set()
            assert (await reader.readline()).split()[1] == b"204"
        assert multiplexer.snapshot().connection_attempts == 1


async def test_client_that_sends_its_body_byte_by_byte(device: Device) -> None:
    async with (
        sharing(device.port) as multiplexer,
        connected(multiplexer) as (reader, writer),
    ):
        writer.write(b"POST /echo HTTP/1.1\r\nHost: a\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        writer.write(b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\nContent-Length: 10000\r\n" in head
        assert await reader.readexactly(10_000) == b"x" * 10_000


async def unused_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def test_device_that_is_away() -> None:
    async with (
        sharing(await unused_port(), timeout=0.5) as multiplexer,
        ClientSession() as session,
    ):
        for _ in range(3):
            async with session.get(url(multiplexer)) as response:
                assert response.status == 502
                assert "cannot be reached" in await response.text()
            async with session.head(url(multiplexer)) as response:
                assert response.status == 502
        assert len(multiplexer.snapshot().clients) == 1


async def test_paused_device(device: Device) -> None:
    async with sharing(device.port) as multiplexer, ClientSession() as session:
        await multiplexer.pause()
        async with session.get(url(multiplexer, "/value/1")) as response:
            assert response.status == 503
        multiplexer.resume()
        async with session.get(url(multiplexer, "/value/1")) as response:
            assert response.status == 200


async def test_late_response_reaches_nobody() -> None:
    """The device responds to the first request when it is asked the second."""
    asked_again = asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await read_request(reader)
        if b"first" in line:
            await asked_again.wait()
        asked_again.set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(line))
        writer.write(line)
        await reader.read()

    async with (
        scripted(late) as port,
        sharing(port, timeout=1.0) as multiplexer,
        ClientSession() as session,
    ):
        async with session.get(url(multiplexer, "/first")) as response:
            assert response.status == 504
            assert "did not answer in time" in await response.text()
        async with session.get(url(multiplexer, "/second")) as response:
            assert await response.text() == "GET /second HTTP/1.1"
        assert multiplexer.snapshot().timeouts == 1


async def test_request_that_waits_too_long_is_told_when_to_come_back(
    device: Device,
) -> None:
    """It is still queued at the deadline at which the one before it gets no answer."""
    async with (
        sharing(device.port, timeout=0.3) as multiplexer,
        connected(multiplexer) as (reader, writer),
    ):
        writer.write(b"GET /slow?seconds=60 HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        first = await reader.readuntil(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 504 ")
        second = await reader.readuntil(b"\r\n\r\n")
        assert b"HTTP/1.1 503 " in second
        assert b"\r\nRetry-After: 1\r\n" in second


@pytest.mark.parametrize(
    ("settings", "status"), [({"timeout": 1.0}, 504), ({"max_body": 1024}, 502)]
)
async def test_endless_response(settings: dict[str, Any], status: int) -> None:
    """Server-sent events, a camera's stream: they end at the deadline or the bound."""
    hung_up = asyncio.Event()

    async def events(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            line = await read_request(reader)
            if b"once" in line:
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await reader.read()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            while True:
                writer.write(b"data: x\n\n")
                await writer.drain()
                await asyncio.sleep(0.002)
        finally:
            hung_up.set()

    async with (
        scripted(events) as port,
        sharing(port, **settings) as multiplexer,
        ClientSession() as session,
    ):
        async with session.get(url(multiplexer)) as response:
            assert response.status == status
        await hung_up.wait()
        async with session.get(url(multiplexer, "/once")) as response:
            assert response.status == 204


@pytest.mark.parametrize(
    ("method", "served_before", "status", "seen"),
    [
        ("GET", True, 200, 2),
        ("HEAD", True, 200, 2),
        ("OPTIONS", True, 200, 2),
        ("POST", True, 502, 1),
        ("PUT", True, 502, 1),
        ("DELETE", True, 502, 1),
        ("GET", False, 502, 1),
    ],
)
async def test_idle_close_race(
    method: str, served_before: bool, status: int, seen: int
) -> None:
    """The device hangs up just as it is asked; only what is safe is asked again."""
    asked: list[bytes] = []

    async def hangs_up(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            line = await read_request(reader)
            if b"/first" not in line:
                asked.append(line)
                if len(asked) == 1:
                    return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with (
        scripted(hangs_up) as port,
        sharing(port) as multiplexer,
        ClientSession() as session,
    ):
        if served_before:
            async with session.get(url(multiplexer, "/first")) as response:
                assert response.status == 200
        async with session.request(method, url(multiplexer, "/race")) as response:
            assert response.status == status
        async with session.get(url(multiplexer, "/first")) as response:
            assert response.status == 200
    assert asked == [f"{method} /race HTTP/1.1".encode()] * seen


async def test_get_is_asked_again_only_once() -> None:
    asked = 0

    async def always_hangs_up(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal asked
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await read_request(reader)
        asked += 1

    async with (
        scripted(always_hangs_up) as port,
        sharing(port) as multiplexer,
        ClientSession() as session,
    ):
        async with session.get(url(multiplexer)) as response:
            assert response.status == 200
        async with session.get(url(multiplexer)) as response:
            assert response.status == 200
        assert asked == 1
        async with session.get(url(multiplexer)) as response:
            assert response.status == 200
        assert asked == 2


async def test_probe_of_a_quiet_device() -> None:
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            line = await read_request(reader)
            lines.put_nowait(line)
            status = b"405 Method Not Allowed" if b"OPTIONS" in line else b"200 OK"
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status)

    async with (
        scripted(old) as port,
        sharing(port, health_check_interval=0.05, timeout=0.2),
    ):
        assert await lines.get() == b"OPTIONS * HTTP/1.1"
        assert await lines.get() == b"HEAD / HTTP/1.1"
        assert await lines.get() == b"HEAD / HTTP/1.1"


async def test_own_request(device: Device) -> None:
    async with sharing(device.port) as multiplexer:
        response = await multiplexer.request(
            b"GET /value/7 HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        assert response.startswith(b"HTTP/1.1 200 OK\r\n")
        assert response.endswith(b'{"n": 7}')
        with pytest.raises(ValueError, match="Missing mandatory Host"):
            await multiplexer.request(b"GET / HTTP/1.1\r\n\r\n")


# ---- curl -------------------------------------------------------------------------


@needs_curl
async def test_curl_holds_its_body_back(device: Device, tmp_path: Path) -> None:
    body = tmp_path / "body"
    await asyncio.to_thread(body.write_bytes, b"x" * 2_000_000)
    async with sharing(device.port) as multiplexer:
        status, out, err = await curl(
            *("--header", "Expect: 100-continue", "--expect100-timeout", "20"),
            *("--max-time", "15", "--data-binary", f"@{body}"),
            url(multiplexer, "/echo"),
        )
    assert status == 0
    assert "HTTP/1.1 100 Continue" in err
    assert len(out) == 2_000_000
    assert "Expect" not in device.requests[0].headers


@needs_curl
async def test_curl_is_refused_before_it_sends(device: Device, tmp_path: Path) -> None:
    body = tmp_path / "body"
    await asyncio.to_thread(body.write_bytes, b"x" * 2_000_000)
    async with sharing(device.port, max_body=1_000_000) as multiplexer:
        status, out, err = await curl(
            *("--header", "Expect: 100-continue", "--expect100-timeout", "20"),
            *("--max-time", "15", "--data-binary", f"@{body}"),
            url(multiplexer, "/echo"),
        )
    assert status == 0
    assert "HTTP/1.1 413 " in err
    assert "longer than 1000000 bytes" in out


@needs_curl
async def test_curl_in_many_ways(device: Device) -> None:
    async with sharing(device.port) as multiplexer:
        address = url(multiplexer, "/value/1")
        twice = await curl(address, url(multiplexer, "/stream"))
        assert twice[0] == 0
        assert twice[1].startswith('{"n": 1}0 1 2 ')
        assert "Re-using existing connection" in twice[2]
        head = await curl("--head", address)
        assert head[0] == 0
        assert "Content-Length: 8" in head[1]
        old = await curl("--http1.0", url(multiplexer, "/stream"))
        assert old[0] == 0
        assert old[1].endswith("18 19 ")
        chunked = ("--header", "Transfer-Encoding: chunked", "--data", "abc")
        posted = await curl(*chunked, url(multiplexer, "/echo"))
        assert posted[:2] == (0, "abc")
        proxied = await curl("--noproxy", "", "--proxy", url(multiplexer), address)
        assert proxied[:2] == (0, '{"n": 1}')
        offered = await curl("--http2", address)
        assert offered[:2] == (0, '{"n": 1}')
    assert device.accepted == 1
