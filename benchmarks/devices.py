"""Measure several devices in one process: what they cost, and what one does to others.

    benchmarks/devices.py               20 devices, 10 clients each, 2,000 requests/s
    benchmarks/devices.py --seconds 20 --rounds 5 --devices 5 ...

The program runs as its users run it (`tcp-multiplexer run`), and so do devices and
clients, in a process of their own each. Every answer is checked: what a device says
depends on the device. The cases, in turn in each round:

    one       one device with all the clients
    all       as many devices as are asked for, with the same load in all
    silent    likewise, and one of the devices accepts and never answers
    flood     likewise, and one sends frames that nobody asked for, as fast as it can
    reload    as all, and one device changes at SIGHUP, twice a second

Response times are of clients of the devices that are well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from functools import partial
import json
import os
from pathlib import Path
import signal
import socket
from statistics import median
import struct
import subprocess
import sys
import tempfile
from time import perf_counter
from typing import override

ROOT = Path(__file__).resolve().parent.parent
CASES = ("one", "all", "silent", "flood", "reload")
PROGRAM = (sys.executable, "-m", "tcp_multiplexer")
LATE_SECONDS = 3.0
"""A request that has no answer by then counts as lost."""
TICKS = os.sysconf("SC_CLK_TCK")


# ---- the devices, in a process of their own ------------------------------------------


class Link(asyncio.Protocol):
    """A connection to a device that answers reads with its own number."""

    transport: asyncio.Transport

    def __init__(self, number: int, manner: str) -> None:
        """Be the device of this number; `manner` is silent, flood or well."""
        self._number = number
        self._manner = manner
        self._full = False
        self._buffer = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to flood, if that is its manner."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._manner == "flood":
            self.resume_writing()

    @override
    def pause_writing(self) -> None:
        """Wait until what was sent is read."""
        self._full = True

    @override
    def resume_writing(self) -> None:
        """Flood until nothing is read any more."""
        self._full = False
        while not self._full and not self.transport.is_closing():
            frame = struct.pack(">HHHBBBH", 0x7777, 0, 5, 1, 3, 2, 0)
            self.transport.write(frame * 500)

    @override
    def data_received(self, data: bytes) -> None:
        """Answer the reads of function 3 that are complete."""
        if self._manner != "well":
            return
        self._buffer += data
        while len(self._buffer) >= 12:
            request, self._buffer = self._buffer[:12], self._buffer[12:]
            _, count = struct.unpack_from(">HH", request, 8)
            body = struct.pack(">BB", 3, 2 * count)
            body += struct.pack(">H", self._number) * count
            self.transport.write(
                request[:2] + struct.pack(">HHB", 0, len(body) + 1, request[6]) + body
            )


async def devices(manners: list[str]) -> None:
    """Have devices until the end of the process; print their ports."""
    loop = asyncio.get_running_loop()
    ports = []
    for number, manner in enumerate(manners):
        server = await loop.create_server(partial(Link, number, manner), "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
    print(json.dumps(ports), flush=True)
    await loop.create_future()


# ---- the clients, likewise -----------------------------------------------------------


class Poller(asyncio.Protocol):
    """A client that asks at a steady rate, whenever the last answer comes."""

    transport: asyncio.Transport

    def __init__(self, number: int, times: list[float]) -> None:
        """Expect the answers of the device of this number."""
        self._number = number
        self._times = times
        self._asked: dict[int, float] = {}
        self._buffer = b""
        self._transaction = 0
        self.wrong = 0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the connection."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self) -> None:
        """Send a request of an address that nobody else asks for."""
        self._transaction = self._transaction % 0xFFFF + 1
        self._asked[self._transaction] = perf_counter()
        address = (id(self) >> 4) + self._transaction & 0x7FFF
        self.transport.write(
            struct.pack(">HHHBBHH", self._transaction, 0, 6, 1, 3, address, 10)
        )

    @override
    def data_received(self, data: bytes) -> None:
        """Check the answers, and keep how long they took."""
        self._buffer += data
        now = perf_counter()
        while len(self._buffer) >= 6:
            end = 6 + int.from_bytes(self._buffer[4:6])
            if len(self._buffer) < end:
                return
            frame, self._buffer = self._buffer[:end], self._buffer[end:]
            since = self._asked.pop(int.from_bytes(frame[:2]), None)
            right = struct.pack(">BB", 3, 20) + struct.pack(">H", self._number) * 10
            if since is None or frame[7:] != right:
                self.wrong += 1
            else:
                self._times.append(now - since)

    @property
    def lost(self) -> int:
        """How many requests have no answer though it is late."""
        late = perf_counter() - LATE_SECONDS
        return sum(since < late for since in self._asked.values())


async def clients(places: list[tuple[int, int]], rate: float, seconds: float) -> None:
    """Ask for a while; print how that went. Places are numbers of devices and ports."""
    loop = asyncio.get_running_loop()
    times: list[float] = []
    pollers = [
        (
            await loop.create_connection(
                partial(Poller, number, times), "127.0.0.1", port
            )
        )[1]
        for number, port in places
    ]
    begin = loop.time() + 0.2
    for turn in range(int(rate * seconds)):
        await asyncio.sleep(begin + turn / rate - loop.time())
        pollers[turn % len(pollers)].ask()
    await asyncio.sleep(LATE_SECONDS + 0.5)
    times.sort()
    figures = {
        "answers": len(times),
        "wrong": sum(poller.wrong for poller in pollers),
        "lost": sum(poller.lost for poller in pollers),
        "median": times[len(times) // 2] * 1e3,
        "p99": times[int(len(times) * 0.99)] * 1e3,
    }
    print(json.dumps(figures), flush=True)


# ---- the measurement -----------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def write_file(path: Path, ports: list[int], local: list[int], timeout: float) -> None:
    """Write the configuration; only the last device has this timeout."""
    text = ""
    for number, (port, own) in enumerate(zip(ports, local, strict=True)):
        text += (
            f'[devices.d{number}]\nhost = "127.0.0.1"\nport = {port}\n'
            f'listen_host = "127.0.0.1"\nlisten_port = {own}\nmax_in_flight = 1\n'
        )
    # A setting that is not live: the device is started anew.
    text += f"quiet = {timeout}\n"
    path.write_text(text)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def measure(case: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one case; return its figures."""
    count = 1 if case == "one" else options.devices
    manners = ["well"] * count
    if case in {"silent", "flood"}:
        manners[-1] = case
    myself = (sys.executable, __file__)
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            (*myself, "--as-devices", json.dumps(manners)), stdout=subprocess.PIPE
        ) as peers,
    ):
        file = Path(folder) / "devices.toml"
        assert peers.stdout is not None
        ports = json.loads(peers.stdout.readline())
        local = free_ports(count)
        write_file(file, ports, local, 1)
        with subprocess.Popen(
            (*PROGRAM, "run", str(file)), stderr=subprocess.PIPE
        ) as program:
            assert program.stderr is not None
            for _ in range(count):
                program.stderr.readline()
            os.set_blocking(program.stderr.fileno(), False)
            # The last device is the one that something is wrong with, or that changes.
            well = count if case in {"one", "all"} else count - 1
            each = options.devices * options.clients // count
            places = [(n, local[n]) for _ in range(each) for n in range(well)]
            rate = options.rate * (well / count)
            before = cpu_seconds(program.pid)
            with subprocess.Popen(
                (*myself, "--as-clients", json.dumps([places, rate, options.seconds])),
                stdout=subprocess.PIPE,
            ) as pollers:
                if case in {"silent", "flood"}:
                    provoke(local[-1])
                turn = 1
                while case == "reload" and pollers.poll() is None:
                    turn += 1
                    write_file(file, ports, local, 1 + turn % 2)
                    program.send_signal(signal.SIGHUP)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        pollers.wait(0.5)
                assert pollers.stdout is not None
                figures: dict[str, float] = json.loads(pollers.stdout.readline())
            figures["cpu"] = cpu_seconds(program.pid) - before
            figures["cpu_each"] = figures["cpu"] / max(1, figures["answers"]) * 1e6
            program.terminate()
        peers.terminate()
    return figures


def provoke(port: int) -> None:
    """Ask the faulty device something, and do not wait for the answer."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 0, 10))


def main() -> None:
    """Measure, or be one of the peers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--clients", type=int, default=10, help="for each device")
    parser.add_argument("--rate", type=float, default=2000, help="requests/s in all")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--as-devices", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--as-clients", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_devices:
        asyncio.run(devices(options.as_devices))
    elif options.as_clients:
        asyncio.run(clients(*options.as_clients))
    else:
        results: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
        for _ in range(options.rounds):
            for case in options.cases:
                results[case].append(measure(case, options))
        print("case     answers  wrong  lost  median ms  99 % ms  cpu us/request")
        for case in options.cases:
            of = {
                key: median(figures[key] for figures in results[case])
                for key in results[case][0]
            }
            wrong, lost = (
                sum(figures[key] for figures in results[case])
                for key in ("wrong", "lost")
            )
            print(
                f"{case:8} {of['answers']:7.0f} {wrong:6.0f} {lost:5.0f} "
                f"{of['median']:10.2f} {of['p99']:8.2f} {of['cpu_each']:15.1f}"
            )


if __name__ == "__main__":
    main()
