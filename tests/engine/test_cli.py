"""The command line as its users run it: a process, real peers, signals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
import json
import os
from pathlib import Path
import re
import signal
import socket
import sys

from aiohttp import ClientSession, web
import iso8583
from iso8583.specs import default_ascii
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
import pytest

from custom_components.tcp_multiplexer import multiplexer as engine
from custom_components.tcp_multiplexer.multiplexer import PROFILES
from tests.solarman import SERIAL, logger_stick, searchable
from tests.waiting import PATIENCE, until

from .devices import Device
from .program import MODULE, output, program

# A name server that does not answer: Python waits for threads that ask one.
STUCK_RESOLVER = """
import socket, sys, time

def getaddrinfo(host, *rest, ask=socket.getaddrinfo, **options):
    if host == "stuck.invalid":
        time.sleep(60)
    return ask(host, *rest, **options)

socket.getaddrinfo = getaddrinfo
from tcp_multiplexer.command_line.main import main
sys.exit(main())
"""


# A search for logger sticks that stays on this machine
SEARCHING = """
from functools import partial
import sys
from tcp_multiplexer.command_line import devices, main

devices.find_logger_serial = partial(
    devices.find_logger_serial,
    broadcast="127.0.0.1",
    port=int(sys.argv.pop(1)),
    seconds=0.5,
)
sys.exit(main.main())
"""


# A fault that nobody should ever see: a request that is never done with.
STUCK_LOOP = """
import logging
import sys
from tcp_multiplexer.command_line.main import main

class Stuck(logging.Handler):
    def emit(self, record):
        if "asks first" in record.getMessage():
            print("stuck", file=sys.stderr, flush=True)
            while True:
                pass

logging.getLogger("tcp_multiplexer").addHandler(Stuck())
sys.exit(main())
"""


# ---- what is not the server ------------------------------------------------------


async def test_what_runs_here_is_what_is_tested() -> None:
    code = "import tcp_multiplexer; print(tcp_multiplexer.__file__)"
    _, out, _ = await output(sys.executable, "-c", code)
    expected = Path(engine.__file__).parent.resolve()
    assert Path(out.strip()).parent.resolve() == expected


async def test_list() -> None:
    status, out, err = await output(sys.executable, *MODULE, "list")
    assert (status, err) == (0, "")
    names, profiles, usage = out.split("\n\n")
    assert set(names.split("\n")) == {
        "* echo",
        "* http",
        "* iso8583",
        "* modbus",
        "* mpu",
    }
    heading, *described = profiles.split("\n")
    assert heading == "device profiles:"
    listed = [line for line in described if line.startswith("* ")]
    assert listed == [f"* {name}: {each.title}" for name, each in PROFILES.items()]
    notes = " ".join(line.strip() for line in described if not line.startswith("* "))
    assert notes == " ".join(each.notes for each in PROFILES.values() if each.notes)
    assert usage == "usage for example: tcp-multiplexer server -p echo\n"


async def test_version_from_the_console_script() -> None:
    script = Path(sys.executable).with_name("tcp-multiplexer")
    status, out, err = await output(str(script), "version")
    assert (status, err) == (0, "")
    variant = r"\((pure Python|compiled), (asyncio|uvloop)\)"
    assert re.fullmatch(rf"tcp-multiplexer \d+\.\d+\.\d+ {variant}\n", out)


async def test_help_reads_well() -> None:
    status, out, _ = await output(sys.executable, *MODULE, "--help")
    assert status == 0
    assert all(command in out for command in ("server", "list", "version"))
    status, out, _ = await output(sys.executable, *MODULE, "server", "--help")
    assert status == 0
    assert "-p, --protocol, --applicationProtocol NAME" in out
    assert max(map(len, out.splitlines())) <= 80


# ---- why it does not start -------------------------------------------------------


async def told(*arguments: str) -> str:
    """Give the one line that the server ends with."""
    status, out, err = await output(sys.executable, *MODULE, "server", *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    return err


async def test_unknown_protocol() -> None:
    assert "unknown protocol 'smtp'" in await told("-p", "smtp")


async def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = await told("-l", f"127.0.0.1:{port}")
    assert "address already in use" in line
    assert str(port) in line
    assert "choose another port with -l" in line


UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()


@pytest.mark.skipif(
    os.geteuid() == 0 or int(UNPRIVILEGED) <= 1, reason="this user may use any port"
)
async def test_port_not_permitted() -> None:
    assert "permission denied" in await told("-l", "127.0.0.1:1")


async def test_address_of_another_machine() -> None:
    assert "192.0.2.1" in await told("-l", "192.0.2.1:0")


async def test_useless_certificate() -> None:
    line = await told("--tls", "--tls-ca", __file__)
    assert "the CA certificate cannot be used" in line


# ---- every protocol, end to end --------------------------------------------------


async def test_modbus_with_pymodbus_on_both_sides() -> None:
    """Several clients read and write one device that sees a single connection."""
    connections: list[bool] = []
    registers = SimData(0, count=100, values=0, datatype=DataType.REGISTERS)
    device = ModbusTcpServer(
        SimDevice(1, [registers]),
        address=("127.0.0.1", 0),
        trace_connect=connections.append,
    )
    await device.serve_forever(background=True)
    assert isinstance(device.transport, asyncio.Server)
    port = device.transport.sockets[0].getsockname()[1]

    async def use(number: int, multiplexer: int) -> None:
        async with AsyncModbusTcpClient("127.0.0.1", port=multiplexer) as client:
            for value in range(10):
                await client.write_register(number, 1000 * number + value)
                read = await client.read_holding_registers(number, count=1)
                assert read.registers == [1000 * number + value]
            refused = await client.read_holding_registers(5000)
            assert refused.isError()

    try:
        async with program("-p", "modbus", "-t", f"127.0.0.1:{port}", "-d") as running:
            multiplexer = await running.port()
            await asyncio.gather(*(use(number, multiplexer) for number in range(8)))
            assert connections == [True]
            await running.stop()
            # What was exchanged, in words and in bytes.
            assert running.logged("unit 1 write single register 7 value 7009")
            assert running.logged("01 06 00 07 1b 61 -> 01 06 00 07 1b 61")
    finally:
        await device.shutdown()


async def test_http_with_aiohttp_on_both_sides() -> None:
    served: list[web.BaseRequest] = []

    async def serve(request: web.BaseRequest) -> web.Response:
        served.append(request)
        return web.Response(text=f"{request.path} {await request.text()}")

    server = web.Server(serve)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]

    async def use(number: int, multiplexer: int) -> None:
        url = f"http://127.0.0.1:{multiplexer}/{number}"
        async with ClientSession() as session:
            for value in range(10):
                async with session.post(url, data=str(value)) as response:
                    assert response.status == 200
                    assert await response.text() == f"/{number} {value}"

    try:
        async with program("-p", "http", "-t", f"127.0.0.1:{port}") as running:
            multiplexer = await running.port()
            await asyncio.gather(*(use(number, multiplexer) for number in range(4)))
            assert len(server.connections) == 1
            assert len(served) == 40
            await running.stop()
    finally:
        listener.close()
        await server.shutdown()


type Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(talk: Talk) -> AsyncGenerator[tuple[int, list[object]]]:
    """Run a device that talks so; give its port, and the connections it had."""
    had: list[object] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        had.append(writer.get_extra_info("peername"))
        with suppress(EOFError, ConnectionError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], had
    finally:
        server.close()
        await server.wait_closed()


def iso_message(**fields: str) -> bytes:
    """Write an ISO 8583 message; `t` is its type."""
    numbered = {name.removeprefix("f"): value for name, value in fields.items()}
    return bytes(iso8583.encode(numbered, default_ascii)[0])


def with_length(protocol: str, body: bytes) -> bytes:
    """Put the protocol's length header before a body."""
    size = len(body)
    return (b"%04d" % size if protocol == "mpu" else size.to_bytes(2)) + body


async def iso_read(protocol: str, reader: asyncio.StreamReader) -> bytes:
    """Read a body by its length header."""
    header = await reader.readexactly(4 if protocol == "mpu" else 2)
    size = int(header) if protocol == "mpu" else int.from_bytes(header)
    return await reader.readexactly(size)


@pytest.mark.parametrize("protocol", ["iso8583", "mpu"])
async def test_payments_with_pyiso8583_on_both_sides(protocol: str) -> None:
    async def authorise(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            asked, _ = iso8583.decode(await iso_read(protocol, reader), default_ascii)
            answer = iso_message(t="0210", f11=asked["11"], f41=asked["41"], f39="00")
            writer.write(with_length(protocol, answer))

    async def use(number: int, multiplexer: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", multiplexer)
        terminal = f"TERM{number:04d}"
        for value in range(10):
            request = iso_message(
                t="0200", f3="000000", f11=f"{value:06d}", f41=terminal
            )
            if value == 0:
                writer.write(with_length(protocol, b""))
            writer.write(with_length(protocol, request))
            if value == 0:
                assert await iso_read(protocol, reader) == b""
            answer, _ = iso8583.decode(await iso_read(protocol, reader), default_ascii)
            assert (answer["t"], answer["11"]) == ("0210", f"{value:06d}")
            assert answer["41"] == terminal
        writer.close()

    async with (
        serving(authorise) as (port, connections),
        program("-p", protocol, "-t", f"127.0.0.1:{port}") as running,
    ):
        multiplexer = await running.port()
        await asyncio.gather(*(use(number, multiplexer) for number in range(4)))
        assert len(connections) == 1
        await running.stop()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes."""
    while data := await reader.read(65536):
        writer.write(data)


async def test_echo_for_clients_that_half_close() -> None:
    """As `printf '...' | nc` does: all is said, then all is heard."""

    async def use(number: int, multiplexer: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", multiplexer)
        lines = b"".join(b"%d %d\n" % (number, value) for value in range(5))
        writer.write(lines + b"a tail that is no line")
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == lines
        writer.close()

    async with (
        serving(echo) as (port, connections),
        program("-t", f"127.0.0.1:{port}") as running,
    ):
        multiplexer = await running.port()
        await asyncio.gather(*(use(number, multiplexer) for number in range(4)))
        assert len(connections) == 1
        await running.stop()


# ---- stopping --------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_stop_under_traffic(number: signal.Signals) -> None:
    """A client that asks, one that does not listen, one that waits, one that idles."""
    lines = b"x" * 1000 + b"\n"

    async def ask(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(lines * 100)
            await writer.drain()

    async with (
        serving(echo) as (port, _),
        program("-t", f"127.0.0.1:{port}", "--max-connections", "2") as running,
    ):
        multiplexer = await running.port()
        clients = [
            await asyncio.open_connection("127.0.0.1", multiplexer) for _ in range(4)
        ]
        (reader, talker), (_, deaf), (_, unfinished), _ = clients
        tasks = [asyncio.create_task(ask(writer)) for writer in (talker, deaf)]
        unfinished.write(b"a line that does not end")
        await reader.readexactly(100_000)
        assert await running.stop(number) < 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, writer in clients:
            writer.close()


async def test_stop_while_the_device_is_silent(device: Device) -> None:
    device.hold()
    async with program("-p=modbus", "-t", f"127.0.0.1:{device.port}", "-v") as running:
        _, writer = await asyncio.open_connection("127.0.0.1", await running.port())
        writer.write(b"\0\1\0\0\0\6\1\3\0\0\0\1" * 3)
        await device.has_been_asked(1)
        assert await running.stop() < 2
        assert running.logged("Stopped by SIGTERM")
        writer.close()


async def test_stop_while_a_name_is_being_resolved() -> None:
    async with program("-t", "stuck.invalid:1", how=("-c", STUCK_RESOLVER)) as running:
        await running.port()
        assert await running.stop() < 2


async def test_stop_while_the_event_loop_is_stuck() -> None:
    async with program("-v", "-t", "127.0.0.1:1", how=("-c", STUCK_LOOP)) as running:
        port = await running.port()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello\n")
        await writer.drain()
        await running.logs("stuck")
        assert await running.stop() < 2
        writer.close()


async def test_second_signal_ends_it_at_once() -> None:
    async with program("-t", "stuck.invalid:1", how=("-c", STUCK_RESOLVER)) as running:
        port = await running.port()
        running.process.send_signal(signal.SIGTERM)
        # The first one has been heard once nobody listens any more.
        await until(lambda: not _listens(port))
        running.process.send_signal(signal.SIGTERM)
        assert await running.end() == -signal.SIGTERM


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


# ---- what is logged --------------------------------------------------------------


async def use_and_leave(port: int) -> None:
    """Be a client with one Modbus request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\0\1\0\0\0\6\1\3\0\0\0\1")
    await reader.readexactly(9)
    writer.close()
    await writer.wait_closed()


async def test_without_flags_only_the_start_and_warnings_are_logged(
    device: Device,
) -> None:
    async with program("-p=modbus", "-t", f"127.0.0.1:{device.port}") as running:
        port = await running.port()
        await use_and_leave(port)
        await running.stop()
    (line,) = running.lines
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO Listening on "
        rf"127\.0\.0\.1:{port}; modbus goes to 127\.0\.0\.1:{device.port}\n",
        line,
    )


async def test_outage_is_a_warning(device: Device) -> None:
    target = f"127.0.0.1:{device.port}"
    await device.stop()
    async with program(
        *("-p=modbus", "-t", target, "--reconnect-backoff", "100ms")
    ) as running:
        port = await running.port()
        await running.logs(rf"WARNING {target} is unavailable: .+")
        await device.start()
        await until(lambda: device.links)
        await use_and_leave(port)
        await running.logs(rf"WARNING {target} is back")
        await running.stop()
    assert len(running.lines) == 3


async def test_verbose_logs_connections_and_health(device: Device) -> None:
    target = f"127.0.0.1:{device.port}"
    async with program("-p=modbus", "-t", target, "-v") as running:
        await use_and_leave(await running.port())
        await running.logs("Client .* disconnected")
        await device.stop()
        await running.logs(f"{target} is unreachable")
        await running.stop()
    assert running.logged(rf"INFO Connected to {target}")
    assert running.logged(rf"INFO {target} is healthy")
    assert running.logged(
        r"INFO Client 127\.0\.0\.1:\d+ connected, and asks first: "
        r"unit 1 read holding registers 0 count 1\n"
    )
    assert running.logged(r"INFO Client 127\.0\.0\.1:\d+ disconnected\n")
    assert running.logged(rf"INFO Disconnected from {target}: ")
    assert running.logged(rf"INFO Could not connect to {target}: ")
    assert not running.logged("DEBUG")


async def test_debug_logs_every_exchange(device: Device) -> None:
    async with program("-p=modbus", "-t", f"127.0.0.1:{device.port}", "-d") as running:
        await use_and_leave(await running.port())
        await running.logs("Client .* disconnected")
        await running.stop()
    assert running.logged(
        r"DEBUG 127\.0\.0\.1:\d+: .*, answered, waited .* ms, took .* ms; "
        r"01 03 00 00 00 01 -> 01 03 02 03 e8\n"
    )


async def test_debug_logs_no_response_where_there_is_none(device: Device) -> None:
    async with program(
        *("-p=modbus", "-t", f"127.0.0.1:{device.port}", "-d"),
        "--allowed-functions=4",
    ) as running:
        await use_and_leave(await running.port())
        await running.logs("Client .* disconnected")
        await running.stop()
    assert running.logged(r"DEBUG .*, refused, .* ms; 01 03 00 00 00 01\n")


async def test_report_tells_what_passed(device: Device) -> None:
    async with (
        program("-p", "modbus", "-t", f"127.0.0.1:{device.port}") as running,
        AsyncModbusTcpClient("127.0.0.1", port=await running.port()) as client,
    ):
        await client.read_holding_registers(107, count=2)
        running.process.send_signal(signal.SIGUSR1)
        assert running.process.stdout is not None
        told = json.loads(await running.process.stdout.readline())
        assert (told["health"], told["requests"]) == ("healthy", 1)
        assert told["units"]["1"]["functions"] == {"3": 1}
        assert [client["address"] for client in told["clients"]] == ["127.0.0.1"]
        (exchange,) = told["trace"]
        assert exchange["request"] == "01 03 00 6b 00 02"
        assert "read holding registers 107 count 2" in exchange["description"]
        assert await running.stop() < 2


async def test_refused_client_is_told_about_once(device: Device) -> None:
    async with program(
        *("-p=modbus", "-t", f"127.0.0.1:{device.port}"),
        *("--allowed-networks", "192.0.2.0/24"),
    ) as running:
        port = await running.port()
        for _ in range(3):
            with suppress(ConnectionError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                assert await reader.read() == b""
                writer.close()
        await running.stop()
    (line,) = running.lines[1:]
    assert "WARNING Client 127.0.0.1 refused: not allowed" in line
    assert "--allowed-networks" in line


@pytest.mark.parametrize("tells", [True, False])
async def test_logger_stick_is_searched(tells: bool) -> None:
    answers = [b"127.0.0.1,34EAE7D9EC04,%d" % SERIAL] if tells else []
    async with (
        logger_stick() as stick,
        searchable(*answers) as (search_port, _),
        program(
            *("--profile", "deye_logger", "--timeout", "1"),
            *("-t", f"127.0.0.1:{stick.port}"),
            how=("-c", SEARCHING, str(search_port)),
        ) as running,
    ):
        client = AsyncModbusTcpClient("127.0.0.1", port=await running.port(), retries=0)
        assert await client.connect()
        response = await client.read_holding_registers(7, count=1)
        client.close()
        await running.stop()
    if tells:
        assert response.registers == [1007]
        assert running.logged(f"serial number is {SERIAL}")
    else:  # and it is silent to any other
        assert response.exception_code == 0x0B
        assert running.logged("does not tell its serial number; give it with --logger")
