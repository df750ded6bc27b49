"""What the command line tells those who watch it: metrics and health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
import socket
import struct
import sys
import time

from aiohttp import ClientSession
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
import pytest

from custom_components.tcp_multiplexer.multiplexer.command_line.metrics import (
    State,
    render,
)
from tests.waiting import PATIENCE, until
from tests.wire import exception, read

from .conftest import Connect, Multiplex
from .devices import Client, Device, ignore
from .program import MODULE, Program, output, program, started

TEXT = "text/plain"
METRICS = ("--metrics", "127.0.0.1:0")

type Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    """Parse metrics as Prometheus does: by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    """Give the value of a metric."""
    return found[f"tcp_multiplexer_{name}", tuple(sorted(labels.items()))]


async def monitored(running: Program) -> str:
    """Give the URL at which a program can be watched."""
    return f"http://127.0.0.1:{(await running.logs(r'Metrics on .*:(\d+)'))[1]}"


@asynccontextmanager
async def watched(
    device: Device, *flags: str
) -> AsyncGenerator[tuple[Program, ClientSession]]:
    """Run a server with metrics; give it, and a session with them."""
    target = f"127.0.0.1:{device.port}"
    async with program("-p=modbus", "-t", target, *METRICS, *flags) as running:
        async with ClientSession(await monitored(running)) as session:
            yield running, session
        assert await running.stop() < 2


async def status(session: ClientSession, path: str) -> tuple[int, str]:
    """Give the answer to a GET."""
    async with session.get(path) as response:
        return response.status, await response.text()


async def test_metrics_of_a_server(device: Device) -> None:
    async with watched(device, "--max-clients=1") as (running, session):
        client = await Client.connect(await running.port())
        for address in range(3):
            await client.ask(read(address))
        device.script.append(lambda a: a.link.transport.write(a.frame(exception(3, 2))))
        await client.ask(read(9))
        refused = await Client.connect(await running.port())
        assert await refused.closed()
        refused.close()
        code, text = await status(session, "/metrics")
        assert code == 200
        found = samples(text)
        here = f"127.0.0.1:{device.port}"
        assert value(found, "requests_total", device=here, outcome="answered") == 3
        assert value(found, "requests_total", device=here, outcome="exception") == 1
        assert value(found, "requests_total", device=here, outcome="no_response") == 0
        assert value(found, "requests_received_total", device=here) == 4
        assert value(found, "health", device=here, health="healthy") == 1
        assert value(found, "health", device=here, health="idle") == 0
        assert value(found, "upstream_connections", device=here) == 1
        assert value(found, "clients", device=here) == 1
        assert value(found, "clients_refused_total", device=here) == 1
        assert value(found, "queue_depth", device=here) == 0
        assert value(found, "response_seconds_count", device=here) == 4
        assert value(found, "response_seconds_bucket", device=here, le="+Inf") == 4
        assert 0 < value(found, "response_seconds_sum", device=here) < 60
        labels = {"device": here, "client": "127.0.0.1"}
        assert value(found, "client_requests_total", **labels) == 4
        assert value(found, "client_connections", **labels) == 1
        assert value(found, "client_bytes_total", direction="in", **labels) == 48
        assert ("process_cpu_seconds_total", ()) in found
        # What a client has asked stays when it is gone.
        client.close()
        async with asyncio.timeout(20):
            while True:
                found = samples((await status(session, "/metrics"))[1])
                if value(found, "client_connections", **labels) == 0:
                    break
        assert value(found, "client_requests_total", **labels) == 4


async def test_format_that_is_asked_for(device: Device) -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    async with (
        watched(device) as (_, session),
        session.get("/metrics", headers=accept) as response,
    ):
        assert response.content_type == "application/openmetrics-text"
        text = await response.text()
        families = list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
        assert "tcp_multiplexer_requests" in {family.name for family in families}


async def test_health_of_a_server(device: Device) -> None:
    where = f"127.0.0.1:{device.port}"
    async with watched(device, "--reconnect-backoff=100ms") as (running, session):
        await running.port()

        async def tells(expected: tuple[int, str]) -> None:
            async with asyncio.timeout(20):
                while True:
                    code, text = await status(session, "/health")
                    if (code, text[: len(expected[1])]) == expected:
                        break

        await tells((200, f"{where}: listens; the device is healthy\n"))
        await device.stop()
        await tells((503, f"{where}: listens; the device is unreachable ("))
        await device.start()
        await tells((200, f"{where}: listens; the device is healthy\n"))


async def test_device_that_is_left_alone_is_well(device: Device) -> None:
    async with watched(device, "--connect-on-demand") as (_, session):
        code, text = await status(session, "/health")
        assert (code, text.split("; ")[1]) == (200, "the device is idle\n")


async def test_several_devices(device: Device, tmp_path: Path) -> None:
    file = tmp_path / "devices.toml"
    gone = Device()
    await gone.start()
    await gone.stop()
    table = '[devices.{}]\nhost = "127.0.0.1"\nport = {}\nlisten_port = 0\n'
    file.write_text(
        table.format("here", device.port)
        + "listen_host = '127.0.0.1'\n"
        + table.format('"far away"', gone.port)
    )
    async with started("run", str(file), *METRICS) as running:
        async with ClientSession(await monitored(running)) as session:
            client = await Client.connect(await running.port("here"))
            await client.ask(read(1))
            client.close()
            await running.logs("far away: .* is unavailable")
            code, text = await status(session, "/health")
            assert code == 503
            assert "here: listens; the device is healthy\n" in text
            assert "far away: listens; the device is unreachable (" in text
            assert (await status(session, "/health/here"))[0] == 200
            assert (await status(session, "/health/far%20away"))[0] == 503
            assert (await status(session, "/health/nobody"))[0] == 404
            found = samples((await status(session, "/metrics"))[1])
            assert value(found, "requests_received_total", device="here") == 1
            assert value(found, "requests_received_total", device="far away") == 0
            # A reload keeps counting.
            file.write_text(table.format("new", device.port))
            running.process.send_signal(1)
            await running.logs("is in force")
            text = (await status(session, "/metrics"))[1]
            assert 'device="new"' in text
            assert 'device="here"' not in text
        await running.stop()


async def test_what_else_may_be_asked(device: Device) -> None:
    async with watched(device) as (running, session):
        assert (await status(session, "/"))[0] == 404
        async with session.head("/health") as response:
            assert (response.status, await response.read()) == (200, b"")
        async with session.post("/metrics", data=b"x") as response:
            assert response.status == 405
        port = int((await monitored(running)).rpartition(":")[2])

        async def raw(data: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            writer.write_eof()
            answer = await reader.read()
            writer.close()
            return answer

        assert (await raw(b"\0\1\0\0\0\6\1\3\0\0\0\1")).startswith(b"HTTP/1.1 400 ")
        assert (await raw(b"GET /" + b"x" * (64 << 10))).startswith(b"HTTP/1.1 431 ")
        assert (await raw(b"GET / HTTP/1.1\r\n")).startswith(b"HTTP/1.1 400 ")
        assert await raw(b"") == b""
        assert (await status(session, "/health"))[0] == 200


def reset_as_soon_as_answered(port: int, request: bytes) -> None:
    """Ask, and reset the connection while the answer is still being sent."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        at_once = struct.pack("ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        sock.sendall(request)
        sock.setblocking(False)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with suppress(BlockingIOError):
                sock.recv(1)
                return


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_client_that_resets_leaves_nothing_in_the_log(
    device: Device, method: str
) -> None:
    request = f"{method} /health HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    async with watched(device) as (running, session):
        port = int((await monitored(running)).rpartition(":")[2])
        for _ in range(400):
            await asyncio.to_thread(reset_as_soon_as_answered, port, request)
        assert (await status(session, "/health"))[0] == 200
        assert not running.logged("Unhandled|Traceback|ERROR")


async def test_it_is_not_asked_too_much(device: Device) -> None:
    """Connections that say nothing are few, and do not keep it from stopping."""
    async with watched(device) as (running, _):
        port = int((await monitored(running)).rpartition(":")[2])
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(33)]
        assert await idle[-1][0].read() == b""
        client = await Client.connect(await running.port())
        await client.ask(read(1))
        client.close()
        for _, writer in idle:
            writer.close()


async def test_port_that_is_taken(device: Device) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, err = await output(
            *(sys.executable, *MODULE, "server", "-l=127.0.0.1:0", "--metrics", where)
        )
    assert code == 2
    assert "server: --metrics: cannot listen: " in err


async def test_library_that_is_missing() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from tcp_multiplexer.command_line.main import main; sys.exit(main())"
    )
    status, _, err = await output(
        *(sys.executable, "-c", code, "server", "-l=127.0.0.1:0", "--metrics=0")
    )
    assert status == 2
    assert "pip install 'tcp-multiplexer[metrics]'" in err


# ---- counting in detail ----------------------------------------------------------


async def test_clients_beyond_fifty_are_counted_together(
    multiplex: Multiplex, device: Device
) -> None:
    multiplexer = await multiplex(detailed=True)
    port = multiplexer.snapshot().listen_addresses[0][1]
    staying = []
    for number in range(1, 56):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, local_addr=(f"127.0.0.{number}", 0)
        )
        client = Client(reader, writer)
        for address in range(1 + number % 2):
            await client.ask(read(address))
        staying.append(client)
        if number % 3:
            staying.pop().close()
    await until(lambda: len(multiplexer.snapshot().clients) == 55 // 3)
    detail = multiplexer.detail()
    assert detail is not None
    assert len(detail.clients) == 51
    for where, counts in detail.clients.items():
        if where is not None:
            number = int(where.rpartition(".")[2])
            assert counts.requests == 1 + number % 2
            assert counts.connections == (number % 3 == 0)
    # Those that left had their names before those that stay were looked at.
    others = detail.clients[None]
    assert others.connections == 5
    total = sum(1 + number % 2 for number in range(1, 56))
    assert sum(counts.requests for counts in detail.clients.values()) == total
    assert sum(detail.buckets) == multiplexer.snapshot().responses
    text, _ = render([State("a", multiplexer.snapshot(), detail)], TEXT)
    found = samples(text.decode())
    assert (
        value(found, "client_requests_total", device="a", client="other")
        == others.requests
    )
    multiplexer.reset_statistics()
    detail = multiplexer.detail()
    assert detail is not None
    assert sum(detail.buckets) == 0
    assert {counts.requests for counts in detail.clients.values()} == {0}
    for client in staying:
        client.close()


async def test_times_are_told_by_buckets(
    multiplex: Multiplex, connect: Connect, device: Device
) -> None:
    multiplexer = await multiplex(detailed=True, timeout=0.3)
    client = await connect(multiplexer)
    await client.ask(read(1))
    device.hold()
    client.send(read(2))
    await device.holds(1)
    await asyncio.sleep(0.1)
    device.release()
    await client.receive()
    device.script.append(ignore)
    await client.ask(read(3))
    detail = multiplexer.detail()
    assert detail is not None
    # What got no response is not among them.
    assert sum(detail.buckets) == 2
    slow = sum(detail.buckets[5:])  # more than 0.1 s
    assert slow >= 1
    assert 0.1 < detail.seconds < 0.6


async def test_nothing_is_counted_in_detail_unless_asked(multiplex: Multiplex) -> None:
    assert (await multiplex()).detail() is None
