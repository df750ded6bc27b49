"""Measures Modbus/TCP multiplexers side by side; README.md says how to read it.

The device, the clients and one multiplexer at a time share one core. Rounds are
interleaved: in each, every target runs every case once, in an order that changes, so
that what a busy machine does hits all of them alike. What counts are ratios within a
round. report.py makes tables and plots of what comes of it.
"""

import argparse
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
import json
import os
from pathlib import Path
import platform
import random
import re
import shlex
import socket
import subprocess
import sys
from tempfile import TemporaryDirectory
import time
from typing import Any, NamedTuple, Self

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.home_assistant import entry, home_assistant  # noqa: E402

BENCHMARKS = ROOT / "benchmarks"
VENV = ROOT / ".venv-benchmarks" / "bin"
COMPILED = ROOT / ".compiled"
HASS = ROOT / ".venv-ha-newest" / "bin" / "hass"
PYTHON = shlex.quote(sys.executable)
PEERS = f"{PYTHON} {BENCHMARKS}/peers.py"
ON_ASYNCIO = (
    f'{PYTHON} -c \'import runpy, sys; sys.modules["uvloop"] = None; '
    'runpy.run_module("tcp_multiplexer", run_name="__main__", alter_sys=True)\''
)
ON_UVLOOP = f"{PYTHON} -m tcp_multiplexer"
VERSION = re.compile(r"\((pure Python|compiled), (asyncio|uvloop)\)")
MOST_CLIENTS = 8000
"""One address gets a quarter of these, and all clients have the same."""
SERVE = (
    " server -p modbus -l 127.0.0.1:{listen} -t 127.0.0.1:{target} "
    f"--max-clients {MOST_CLIENTS}"
)

PIPELINED, POOLED = "64 in flight", "4 connections"
"""What some cases ask for besides: only of those that can."""


class Case(NamedTuple):
    """What clients do."""

    name: str
    clients: int
    unit: int = 1
    """Of the device: 2 takes 5 ms."""
    rate: float = 0
    """Requests a second of all clients; 0: each asks again when it is answered."""
    asks: str = ""
    """What of the multiplexer it needs."""


class Target(NamedTuple):
    """What is measured."""

    name: str
    command: str = ""
    more: dict[str, str] = {}  # noqa: RUF012 - never changed
    """Flags by what a case asks for."""
    compiled: bool = False

    def can(self, case: Case) -> bool:
        """Return whether a case can be run, and says something."""
        if not self.command and not self.more:  # The device alone
            return not case.asks and case.unit == 1 and case.clients <= 64
        return not case.asks or case.asks in self.more


_FLAGS = {PIPELINED: " --max-in-flight 64", POOLED: " --max-connections 4"}
DIRECT = Target("no multiplexer")
MODBUS_PROXY = Target(
    "modbus-proxy",
    f"{VENV}/modbus-proxy --timeout 10 -b tcp://127.0.0.1:{{listen}} "
    "--modbus tcp://127.0.0.1:{target}",
    {PIPELINED: "", POOLED: ""},  # It has neither: as it comes, to compare with.
)
FORWARDER = Target(
    "bare forwarder",
    f"{PYTHON} {BENCHMARKS}/forwarder.py {{listen}} {{target}}",
    {PIPELINED: " --pipeline"},
)
OURS = (
    Target("pure", f"{ON_ASYNCIO}{SERVE}", _FLAGS),
    Target("pure, uvloop", f"{ON_UVLOOP}{SERVE}", _FLAGS),
    Target("compiled", f"{ON_ASYNCIO}{SERVE}", _FLAGS, compiled=True),
    Target("compiled, uvloop", f"{ON_UVLOOP}{SERVE}", _FLAGS, compiled=True),
)
HOME_ASSISTANT = Target("in Home Assistant", more={PIPELINED: "", POOLED: ""})


CASES = (
    Case("1 client", 1),
    Case("1 client, 5 ms", 1, unit=2),
    Case("8 clients", 8),
    Case("8 clients, 5 ms", 8, unit=2),
    Case("200 requests/s", 8, rate=200),
    Case("64 clients", 64),
    Case("64 clients, 5 ms", 64, unit=2),
    Case("250 clients", 250),
    Case("500 clients", 500),
    Case("1,000 clients", 1000),
    Case("64 clients, 64 in flight", 64, asks=PIPELINED),
    Case("8 clients, 5 ms, 4 connections", 8, unit=2, asks=POOLED),
)
HOLDS = {
    "idle": {},
    "200 requests/s": {"ask": 8, "unit": 1, "rate": 200},
    "64 clients": {"ask": 64, "unit": 1},
}
"""What is asked while Home Assistant's event loop is watched."""
IDLE_CLIENTS = 8
IDLE_SECONDS = 35.0
"""Longer than the interval of health checks."""


# ---- processes -----------------------------------------------------------------------


@contextmanager
def process(command: str, *, compiled: bool = False) -> Generator[int]:
    """Run a program; give its pid, and end it."""
    running = subprocess.Popen(
        shlex.split(command), stderr=subprocess.DEVNULL, env=environment(compiled)
    )
    try:
        yield running.pid
    finally:
        running.terminate()
        running.wait(10)


def environment(compiled: bool) -> dict[str, str]:
    """Return the environment in which this program is the compiled one, or not."""
    return os.environ | {"PYTHONPATH": str(COMPILED) if compiled else ""}


class Clients:
    """The clients, in a process of their own."""

    def __init__(self, port: int, cores: Iterable[int] | None = None) -> None:
        """Have none yet; they run on `cores`, or where this process does."""
        self._process = subprocess.Popen(
            shlex.split(f"{PEERS} clients {port}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if cores is not None:
            place(self._process.pid, cores)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def do(self, **what: object) -> dict[str, Any]:
        """Let them do something (see peers.py), and return what came of it."""
        self.start(**what)
        return self.result()

    def start(self, **what: object) -> None:
        """Let them begin to do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(what)}\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Wait until they have done it, and return what came of it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("script/benchmark: the clients failed (see above)")
        result: dict[str, Any] = json.loads(line)
        return result


def free_port() -> int:
    """Give a port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def cpu_seconds(pid: int) -> float:
    """Give the processor time of a process and its threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def status(pid: int, field: str) -> int:
    """Sum up a field of the status of a process's threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/status")
    return sum(
        int(re.findall(rf"^{field}:\s+(\d+)", task.read_text(), re.MULTILINE)[0])
        for task in tasks
    )


def memory_kib(pid: int) -> int:
    """Give the resident memory of a process."""
    found = re.findall(
        r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
    )
    return int(found[0])


# ---- measuring -----------------------------------------------------------------------


class Running(NamedTuple):
    """A multiplexer that runs."""

    pid: int
    """0: there is none."""
    port: int


class Bench:
    """A device, and what is measured before it."""

    def __init__(self, device: int, seconds: float) -> None:
        """Measure with a device on this port, a case for so many seconds."""
        self._device = device
        self._seconds = seconds
        self.home: dict[str, Running] = {}
        """The ways into a Home Assistant, by what a case asks for."""

    @contextmanager
    def started(self, target: Target, asks: str = "") -> Generator[Running]:
        """Start a target, unless it runs all the time."""
        if target is DIRECT:
            yield Running(0, self._device)
        elif target is HOME_ASSISTANT:
            yield self.home[asks]
        else:
            listen = free_port()
            command = target.command + target.more.get(asks, "")
            command = command.format(listen=listen, target=self._device)
            with process(command, compiled=target.compiled) as pid:
                yield Running(pid, listen)

    def measure(
        self, target: Target, cases: list[Case]
    ) -> Generator[tuple[str, dict[str, float]]]:
        """Run cases that ask for the same, with ever more clients."""
        with ExitStack() as stack:
            pid, port = stack.enter_context(self.started(target, cases[0].asks))
            clients = stack.enter_context(Clients(port))
            clients.do(connect=cases[0].clients)
            clients.do(ask=cases[0].clients, unit=1, seconds=self._seconds / 4)
            for case in cases:
                clients.do(connect=case.clients)
                before = cpu_seconds(pid) if pid else 0
                result = clients.do(
                    ask=case.clients,
                    unit=case.unit,
                    seconds=self._seconds * (2 if case.rate else 1),
                    rate=case.rate,
                )
                if pid:
                    cpu = cpu_seconds(pid) - before
                    result["cpu_us"] = cpu / result["responses"] * 1e6
                    result["memory_kib"] = memory_kib(pid)
                yield case.name, result

    def idle(self, targets: Iterable[Target]) -> dict[str, dict[str, float]]:
        """See what targets do while nobody asks, all at the same time."""
        with ExitStack() as stack:
            pids = {}
            for target in targets:
                pid, port = stack.enter_context(self.started(target))
                stack.enter_context(Clients(port)).do(connect=IDLE_CLIENTS)
                pids[target.name] = pid
            time.sleep(2)
            before = {
                name: (status(pid, "voluntary_ctxt_switches"), cpu_seconds(pid))
                for name, pid in pids.items()
            }
            time.sleep(IDLE_SECONDS)
            return {
                name: {
                    "wakeups": (status(pids[name], "voluntary_ctxt_switches") - woken)
                    / IDLE_SECONDS,
                    "cpu_ms": (cpu_seconds(pids[name]) - cpu) / IDLE_SECONDS * 1e3,
                }
                for name, (woken, cpu) in before.items()
            }

    def holds(
        self, watch: int, peers: int, cores: set[int]
    ) -> Generator[tuple[str, float]]:
        """Load Home Assistant; give how long its loop is held.

        The process `peers`, which has the device, and the clients are on other cores
        meanwhile, or the loop would seem to be held whenever it is their turn.
        """
        here = os.sched_getaffinity(0)
        with ExitStack() as stack:
            stack.callback(place, peers, here)
            place(peers, cores)
            clients = stack.enter_context(Clients(self.home[""].port, cores))
            clients.do(connect=max(load.get("ask", 0) for load in HOLDS.values()))
            for name, load in HOLDS.items():
                longest_hold(watch)
                if load:
                    clients.do(**load, seconds=2 * self._seconds)
                else:
                    time.sleep(2 * self._seconds)
                yield name, longest_hold(watch)


def place(pid: int, cores: Iterable[int]) -> None:
    """Let a process and its threads run on these cores."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def longest_hold(port: int) -> float:
    """Ask for the longest hold since it was asked for, in milliseconds."""
    with socket.create_connection(("127.0.0.1", port)) as watch:
        return float(watch.makefile().read()) * 1e3


@contextmanager
def in_home_assistant(device: int) -> Generator[tuple[dict[str, Running], int]]:
    """Run a Home Assistant; give the ways into it, and where its loop is watched."""
    options: dict[str, dict[str, int]] = {
        "": {},
        PIPELINED: {"max_in_flight": 64},
        POOLED: {"max_connections": 4},
    }
    ports, watch = {asks: free_port() for asks in options}, free_port()
    entries = [
        entry(
            number,
            {"port": device, "listen_port": ports[asks]},
            {"max_clients": MOST_CLIENTS} | more,
        )
        for number, (asks, more) in enumerate(options.items())
    ]
    yaml = f"loop_watch:\n  port: {watch}\n"
    with (
        TemporaryDirectory() as folder,
        home_assistant(HASS, Path(folder) / "config", entries, yaml) as running,
    ):
        for port in (watch, *ports.values()):
            wait_for(port)
        time.sleep(5)  # It has started, but does what it does only afterwards.
        yield {asks: Running(running.pid, port) for asks, port in ports.items()}, watch


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    for _ in range(600):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError("a program did not start within two minutes")


# ---- all of it -----------------------------------------------------------------------


def machine() -> dict[str, str]:
    """Say on what it is measured, without a name."""
    cpus = re.findall(
        r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE
    )
    with_uvloop = (sys.executable, "-c", "import uvloop; print(uvloop.__version__)")
    uvloop = subprocess.run(with_uvloop, capture_output=True, text=True, check=False)
    pinned = (BENCHMARKS / "requirements.txt").read_text()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": f"{cpus[0] if cpus else platform.machine()}, {len(cpus)} cores",
        "system": ".".join(platform.release().split(".")[:2]),
        "python": platform.python_version(),
        "uvloop": uvloop.stdout.strip(),
        "modbus-proxy": re.findall(r"^modbus-proxy==(.*)$", pinned, re.MULTILINE)[0],
    }


def busy_share(seconds: float) -> float:
    """Return the share of the machine's processor time that others take now."""

    def now() -> tuple[int, int]:
        fields = [int(f) for f in Path("/proc/stat").read_text().split()[1:9]]
        return sum(fields), fields[3] + fields[4]  # idle, and waiting for a disk

    total, idle = now()
    time.sleep(seconds)
    later, idle_later = now()
    return 1 - (idle_later - idle) / (later - total)


def available(home: bool, also: list[str]) -> list[Target]:
    """Return what can be measured here, with what was asked for besides."""
    targets = [DIRECT, FORWARDER, MODBUS_PROXY]
    for target in OURS:
        command = target.command.removesuffix(SERVE) + " version"
        done = subprocess.run(
            shlex.split(command),
            capture_output=True,
            text=True,
            check=True,
            env=environment(target.compiled),
        )
        found = VERSION.search(done.stdout)
        assert found is not None, done.stdout
        kind, loop = found.groups()
        wanted = target.name.partition(",")[0].replace("pure", "pure Python")
        if (kind, loop == "uvloop") == (wanted, "uvloop" in target.name):
            targets.append(target)
        else:
            say(f"without '{target.name}': here it would be {kind} on {loop}")
    if home:
        targets.append(HOME_ASSISTANT)
    for named in also:
        name, _, command = named.partition("=")
        targets.append(Target(name, command, {PIPELINED: "", POOLED: ""}))
    return targets


def say(text: str) -> None:
    """Tell how it goes."""
    print(f"script/benchmark: {text}", file=sys.stderr)


def grouped(cases: Iterable[Case]) -> list[list[Case]]:
    """Return cases together that one start of a target can run."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.asks, []).append(case)
    return list(groups.values())


def run(given: argparse.Namespace, device: Running, others: set[int]) -> dict[str, Any]:
    """Measure what was asked for."""
    targets = available(given.home_assistant, given.also)
    cases = [case for case in CASES if given.cases in case.name]
    runs: dict[str, dict[str, list[dict[str, float]]]] = {
        case.name: {target.name: [] for target in targets if target.can(case)}
        for case in cases
    }
    busy = busy_share(2)
    results: dict[str, Any] = {
        "machine": machine(),
        "busy": busy,
        "seconds": given.seconds,
        "runs": runs,
    }
    with ExitStack() as stack:
        bench = Bench(device.port, given.seconds)
        if given.home_assistant:
            bench.home, watch = stack.enter_context(in_home_assistant(device.port))
            held: dict[str, list[float]] = {name: [] for name in HOLDS}
            results["holds"] = held
        if not given.cases:
            results["idle"] = bench.idle(t for t in targets if t is not DIRECT)
        for number in range(1, given.rounds + 1):
            say(f"round {number}")
            for group in grouped(cases):
                for target in random.sample(targets, len(targets)):
                    if able := [case for case in group if target.can(case)]:
                        for name, result in bench.measure(target, able):
                            runs[name][target.name].append(result)
            if given.home_assistant:
                for name, longest in bench.holds(watch, device.pid, others):
                    held[name].append(longest)
            results["rounds"] = number
            if given.save:
                given.save.write_text(json.dumps(results))
    return results


def main() -> None:
    """Run what was asked for, and show what came of it."""
    parser = argparse.ArgumentParser(
        prog="script/benchmark",
        description="Measure Modbus/TCP multiplexers side by side.",
    )
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument(
        "--seconds", type=float, default=1, help="that a case takes (default 1)"
    )
    parser.add_argument(
        "--cases", default="", metavar="TEXT", help="those whose names contain this"
    )
    parser.add_argument(
        "--home-assistant",
        action="store_true",
        help="measure the integration in a running Home Assistant, too",
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="measure another program; {listen} and {target} stand for the ports of "
        "127.0.0.1 where it listens and where the device is; may be repeated",
    )
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FILE",
        help="keep what was measured, as JSON, after each round",
    )
    parser.add_argument(
        "--docs",
        action="store_true",
        help="write docs/benchmark.md and its plots, beside printing the tables",
    )
    given = parser.parse_args()
    cores = os.sched_getaffinity(0)
    core = max(cores)
    os.sched_setaffinity(0, {core})  # children inherit that
    # Compiling its modules leaves a process with memory that hides what clients take.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    device = free_port()
    with process(f"{PEERS} device {device}") as pid:
        wait_for(device)
        results = run(given, Running(pid, device), cores - {core} or cores)
    with TemporaryDirectory() as folder:
        file = given.save or Path(folder) / "results.json"
        file.write_text(json.dumps(results))
        report = (VENV / "python", BENCHMARKS / "report.py", file)
        subprocess.run((*report, *(["--docs"] if given.docs else [])), check=True)


if __name__ == "__main__":
    main()
