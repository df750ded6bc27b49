"""`tcp-multiplexer run`: several devices in one process, and changes while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
import json
from pathlib import Path
import re
import signal
import socket
import sys

import pytest

from tests.waiting import PATIENCE, until
from tests.wire import read, values

from .devices import Asked, Client, Device, Responder, ignore, running
from .program import MODULE, Program, output, started

type Run = Callable[..., Awaitable[Program]]


@pytest.fixture(name="file")
def file_(tmp_path: Path) -> Path:
    """Give the place of a configuration."""
    return tmp_path / "devices.toml"


@asynccontextmanager
async def several(count: int) -> AsyncGenerator[list[Device]]:
    """Have several devices switched on."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running()) for _ in range(count)]


def table(name: str, device: Device, port: int = 0, more: str = "") -> str:
    """Give the table of a device."""
    return (
        f'[devices.{name}]\nhost = "127.0.0.1"\nport = {device.port}\n'
        f'listen_host = "127.0.0.1"\nlisten_port = {port}\n{more}\n'
    )


def put(file: Path, content: str) -> None:
    """Write a configuration."""
    file.write_text(content)


def free_ports(count: int) -> list[int]:
    """Give ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def always(value: int) -> Responder:
    """Answer every read with values that begin with this one."""
    return lambda asked: asked.link.transport.write(asked.frame(values(value)))


async def ask(client: Client, device: Device, address: int) -> None:
    """See that a client gets the values of its own device."""
    assert await client.ask(read(address, 2)) == device.answer(1, read(address, 2))


async def reload(running: Program, pattern: str) -> None:
    """Have the configuration read again, and wait for what is said of that."""
    running.lines.clear()
    running.process.send_signal(signal.SIGHUP)
    await running.logs(pattern)


IN_FORCE = r"INFO .*devices\.toml is in force"


async def test_each_device_has_its_clients_and_its_name_in_the_log(file: Path) -> None:
    async with several(2) as devices:
        devices[1].respond = always(7)
        names = ("inverter", "heat pump")
        put(
            file,
            "[defaults]\nallowed_functions = [3]\n"
            + table(names[0], devices[0])
            + table(f'"{names[1]}"', devices[1]),
        )
        async with started("run", str(file), "-d") as running:
            for name, device in zip(names, devices, strict=True):
                client = await Client.connect(await running.port(name))
                await client.ask(read(107))
                assert [asked.pdu for asked in device.requests] == [read(107)]
                client.close()
                await running.logs(rf"{name}: Client .* disconnected")
            assert await running.stop() < 2
    for line in running.lines[:-1]:
        assert re.match(r"\S+ \S+ [A-Z]+ (inverter|heat pump): ", line), line
    assert "INFO Stopped by SIGTERM" in running.lines[-1]
    for name, answer in zip(
        names, ("03 04 04 53 04 54", "03 04 03 ef 03 f0"), strict=True
    ):
        assert running.logged(
            rf"DEBUG {name}: 127.*answered.*; 01 03 .* -> 01 {answer}"
        )


async def test_report_names_the_devices(file: Path) -> None:
    async with several(2) as (one, other):
        put(file, table("one", one) + table("other", other))
        async with started("run", str(file)) as running:
            await running.port("one")
            await running.port("other")
            running.process.send_signal(signal.SIGUSR1)
            assert running.process.stdout is not None
            told = json.loads(await running.process.stdout.readline())
            await running.stop()
    assert {name: state["requests"] for name, state in told.items()} == {
        "one": 0,
        "other": 0,
    }


async def test_what_changes_is_applied_and_the_others_are_left_alone(
    file: Path,
) -> None:
    async with several(4) as (live, moved, kept, new):
        put(file, table("live", live) + table("moved", moved) + table("kept", kept))
        async with started("run", str(file), "-v") as running:
            ports = {
                name: await running.port(name) for name in ("live", "moved", "kept")
            }
            clients = {name: await Client.connect(port) for name, port in ports.items()}
            for name, device in (("live", live), ("moved", moved), ("kept", kept)):
                await ask(clients[name], device, 1)
            put(
                file,
                table("live", live, more="allowed_functions = [4]")
                + table("moved", moved, more='matching = "lenient"')
                + table("kept", kept)
                + table("new", new),
            )
            await reload(running, IN_FORCE)
            assert running.logged("INFO live: Changed: allowed_functions")
            assert running.logged("INFO Stopped: moved")
            assert not running.logged("kept")
            # Its client is still there, and is judged by the new rule.
            assert await clients["live"].ask(read(1)) == b"\x83\x01"
            await ask(clients["kept"], kept, 2)
            assert await clients["moved"].closed()
            for name, device in (("moved", moved), ("new", new)):
                client = await Client.connect(await running.port(name))
                await ask(client, device, 3)
                client.close()
            assert len(kept.links) == 1
            put(file, table("kept", kept))
            await reload(running, IN_FORCE)
            assert running.logged("INFO Stopped: live, moved, new")
            await until(lambda: not new.open_links)
            await ask(clients["kept"], kept, 4)
            assert await running.stop() < 2
            for client in clients.values():
                client.close()


async def test_wrong_file_changes_nothing(file: Path) -> None:
    async with several(2) as (one, other):
        put(file, table("one", one))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            busy = taken.getsockname()[1]
            async with started("run", str(file)) as running:
                client = await Client.connect(await running.port("one"))
                for content, reason in (
                    ("[devices.", "is not TOML"),
                    (
                        table("one", one, more="timeout = 0\nquiet = -1"),
                        (
                            r":6: \[devices.one\] timeout: must be .*\n"
                            r".*:7: \[devices.one\] quiet: .*; nothing is changed"
                        ),
                    ),
                    (
                        table("one", one, more="allowed_functions = [4]")
                        + table("other", other, busy),
                        (
                            r"\[devices.other\] cannot listen: .*address already in use"
                            r".*; choose another port with listen_port"
                        ),
                    ),
                ):
                    put(file, content)
                    await reload(running, rf"ERROR .*{reason}")
                    await ask(client, one, 1)
                assert not other.links
                put(file, table("one", one) + table("other", other))
                await reload(running, IN_FORCE)
                await running.port("other")
                client.close()
                assert await running.stop() < 2


async def test_devices_exchange_their_ports(file: Path) -> None:
    ports = free_ports(2)
    async with several(2) as (one, other):
        one.respond = always(1)
        other.respond = always(2)
        put(file, table("one", one, ports[0]) + table("other", other, ports[1]))
        async with started("run", str(file)) as running:
            await running.port("one")
            await running.port("other")
            put(file, table("one", one, ports[1]) + table("other", other, ports[0]))
            await reload(running, IN_FORCE)
            for port, value in zip(ports, (2, 1), strict=True):
                client = await Client.connect(port)
                assert await client.ask(read(1)) == values(value)
                client.close()
            await running.stop()


async def test_twenty_devices_of_which_three_are_faulty_and_one_changes(
    file: Path,
) -> None:
    """One is silent, one floods, one changes and back: nobody else notices."""

    async def flood(asked: Asked) -> None:
        while asked.link.open and not asked.link.transport.is_closing():
            if asked.link.transport.get_write_buffer_size() < 1 << 16:
                asked.link.transport.write(asked.frame() * 100)
            await asyncio.sleep(0)

    async def poll(number: int, done: asyncio.Event) -> int:
        name, device = f"d{number}", devices[number]
        client = await Client.connect(ports[name])
        count = 0
        while not done.is_set():
            await ask(client, device, 100 * number + count % 50)
            count += 1
            await asyncio.sleep(0.01)
        client.close()
        return count

    def content(more: str = "") -> str:
        return "".join(
            table(f"d{number}", device, more=more if number == 2 else "")
            for number, device in enumerate(devices)
        )

    async with several(20) as devices, asyncio.TaskGroup() as tasks:
        devices[0].respond = ignore
        devices[1].respond = lambda asked: tasks.create_task(flood(asked))
        put(file, content())
        async with started("run", str(file)) as running:
            ports = {f"d{n}": await running.port(f"d{n}") for n in range(20)}
            faulty = [await Client.connect(ports[f"d{n}"]) for n in range(2)]
            for client in faulty:
                client.send(read(1))
            done = asyncio.Event()
            polls = [tasks.create_task(poll(n, done)) for n in range(3, 20)]
            for more in ('matching = "lenient"', ""):
                await until(lambda: all(len(d.requests) > 20 for d in devices[3:]))
                put(file, content(more))
                await reload(running, IN_FORCE)
            asked = [len(device.requests) for device in devices]
            await until(
                lambda: all(
                    len(device.requests) > before + 20
                    for device, before in zip(devices[3:], asked[3:], strict=True)
                )
            )
            done.set()
            counts = await asyncio.gather(*polls)
            assert [len(device.requests) for device in devices[3:]] == counts
            assert all(len(device.links) == 1 for device in devices[3:])
            assert len(devices[2].links) == 3
            for client in faulty:
                client.close()
            assert await running.stop() < 2


async def test_why_it_does_not_start(file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        device = Device()
        device.port = 1
        content = "".join(
            table(name, device, port).replace("127.0.0.1", host)
            for name, host in (("one", "127.0.0.1"), ("other", "192.0.2.1"))
        )
        put(file, content + table("good", device))
        status, out, err = await output(sys.executable, *MODULE, "run", str(file))
    assert (status, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("tcp-mult")]
    assert len(lines) == 2
    begin = f"tcp-multiplexer run: {file}: [devices."
    for line, name in zip(lines, ("one", "other"), strict=True):
        assert line.startswith(f"{begin}{name}] cannot listen: ")
        assert line.endswith("; choose another port with listen_port")


async def test_check(file: Path) -> None:
    device = Device()
    device.port = 502
    put(file, table("inverter", device, 5020, "more_listeners = [{ port = 5021 }]"))
    status, out, err = await output(sys.executable, *MODULE, "check", str(file))
    assert (status, err) == (0, "")
    assert out == ("inverter: 127.0.0.1:5020, *:5021; modbus goes to 127.0.0.1:502\n")
    put(file, table("inverter", device, more="timeout = 0"))
    status, out, err = await output(sys.executable, *MODULE, "check", str(file))
    assert (status, out) == (2, "")
    assert err == (
        f"tcp-multiplexer check: {file}:6: [devices.inverter] timeout: must be between "
        "0.1 and 3600, is 0\n"
    )


# ---- systemd ---------------------------------------------------------------------


@asynccontextmanager
async def manager(path: str) -> AsyncGenerator[asyncio.Queue[bytes]]:
    """Be a service manager; give what is sent to it."""
    told: asyncio.Queue[bytes] = asyncio.Queue()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(receiver, lambda: told.put_nowait(receiver.recv(4096)))
        try:
            yield told
        finally:
            loop.remove_reader(receiver)


async def next_but_alive(told: asyncio.Queue[bytes]) -> bytes:
    """Give the next message, except that the program lives."""
    async with asyncio.timeout(PATIENCE):
        while (message := await told.get()) == b"WATCHDOG=1":
            pass
    return message


@pytest.mark.parametrize("abstract", [False, True])
async def test_service_manager_is_told(
    file: Path, tmp_path: Path, abstract: bool
) -> None:
    path = f"\0{tmp_path}" if abstract else str(tmp_path / "notify")
    async with several(1) as (device,), manager(path) as told:
        put(file, table("one", device))
        async with started(
            *("run", str(file)),
            NOTIFY_SOCKET=path.replace("\0", "@"),
            WATCHDOG_USEC="200000",
        ) as running:
            assert await next_but_alive(told) == b"READY=1"
            await running.port("one")
            async with asyncio.timeout(PATIENCE):
                for _ in range(3):
                    assert await told.get() == b"WATCHDOG=1"
            running.process.send_signal(signal.SIGHUP)
            message = await next_but_alive(told)
            assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", message)
            assert await next_but_alive(told) == b"READY=1"
            running.process.send_signal(signal.SIGTERM)
            assert await next_but_alive(told) == b"STOPPING=1"
            assert await running.end() == 0
    assert told.empty()


async def test_watchdog_of_another_process(file: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    async with several(1) as (device,), manager(path) as told:
        put(file, table("one", device))
        async with started(
            *("run", str(file)),
            NOTIFY_SOCKET=path,
            WATCHDOG_USEC="1000",
            WATCHDOG_PID="1",
        ) as running:
            async with asyncio.timeout(PATIENCE):
                assert await told.get() == b"READY=1"
            client = await Client.connect(await running.port("one"))
            await ask(client, device, 1)
            client.close()
            await running.stop()
            assert told.get_nowait() == b"STOPPING=1"


async def test_nobody_hears_it(file: Path, tmp_path: Path) -> None:
    async with several(1) as (device,):
        put(file, table("one", device))
        async with started(
            "run", str(file), NOTIFY_SOCKET=str(tmp_path / "nobody")
        ) as running:
            await running.port("one")
            await running.stop()
