"""Measures Modbus/TCP multiplexers side by side; README.md says how to read it.

Each run starts a device, a multiplexer and clients of its own, as processes on one
core. Rounds are interleaved: in each, every target runs every case once, in an order
that changes, so that what a busy machine does hits all of them alike. What counts are
ratios within a round.
"""

import argparse
from collections.abc import Generator
from contextlib import contextmanager
import json
import os
from pathlib import Path
import random
import shlex
import socket
from statistics import median
import subprocess
import sys
import time

HERE = Path(__file__).resolve().parent
PYTHON = shlex.quote(sys.executable)
PEERS = f"{PYTHON} {HERE}/peers.py"
FORWARDER = f"{PYTHON} {HERE}/forwarder.py {{listen}} {{device}}"
OURS = (
    f"{PYTHON} -m tcp_multiplexer server -p modbus -l 127.0.0.1:{{listen}} "
    "-t 127.0.0.1:{device}"
)
TARGETS = {
    "modbus-proxy": f"{HERE.parent}/.venv-benchmarks/bin/modbus-proxy --timeout 5 "
    "-b tcp://127.0.0.1:{listen} --modbus tcp://127.0.0.1:{device}",
    "tcp-multiplexer": OURS,
    "tcp-multiplexer, 16 in flight": f"{OURS} --max-in-flight 16",
    "tcp-multiplexer, 4 connections": f"{OURS} --max-connections 4",
    "bare forwarder": FORWARDER,
    "bare forwarder, pipelining": f"{FORWARDER} --pipeline",
}
REFERENCE = "modbus-proxy"

ONE_BY_ONE = (REFERENCE, "tcp-multiplexer", "bare forwarder")
PIPELINED = (REFERENCE, "tcp-multiplexer, 16 in flight", "bare forwarder, pipelining")
POOLED = (REFERENCE, "tcp-multiplexer", "tcp-multiplexer, 4 connections")
# Clients, seconds that the device takes for a response, targets
CASES: dict[str, tuple[int, float, tuple[str, ...]]] = {
    "1 client": (1, 0, ONE_BY_ONE),
    "8 clients": (8, 0, ONE_BY_ONE),
    "64 clients": (64, 0, ONE_BY_ONE),
    "64 clients, pipelined": (64, 0, PIPELINED),
    "8 clients, device 20 ms": (8, 0.02, POOLED),
}


@contextmanager
def process(command: str) -> Generator[int]:
    """Run a program; give its pid, and end it."""
    running = subprocess.Popen(shlex.split(command), stderr=subprocess.DEVNULL)
    try:
        yield running.pid
    finally:
        running.terminate()
        running.wait(10)


def free_port() -> int:
    """Give a port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    for _ in range(500):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError("a program did not start within 10 s")


def cpu_seconds(pid: int) -> float:
    """Give the processor time of a process and its threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def load(port: int, count: int, seconds: float) -> dict[str, float]:
    """Let clients ask for some seconds."""
    command = shlex.split(f"{PEERS} clients {port} {count} {seconds}")
    result: dict[str, float] = json.loads(subprocess.check_output(command))
    return result


def measure(target: str, count: int, delay: float, seconds: float) -> dict[str, float]:
    """Do one run."""
    device, listen = free_port(), free_port()
    with process(f"{PEERS} device {device} {delay}"):
        wait_for(device)
        with process(TARGETS[target].format(listen=listen, device=device)) as pid:
            wait_for(listen)
            load(listen, count, seconds / 4)  # warm up
            before = cpu_seconds(pid)
            result = load(listen, count, seconds)
            cpu = cpu_seconds(pid) - before
    return result | {"cpu_us": cpu / result["responses"] * 1e6}


def table(targets: dict[str, list[dict[str, float]]]) -> list[str]:
    """Show medians over the rounds, and ratios to the reference within each round."""
    lines = [
        "| target | responses/s | ratio | CPU µs | ratio | ms | 99 % ms | wrong |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for target, runs in targets.items():
        cells = [target]
        for key, power in (("per_second", 1), ("cpu_us", -1)):
            pairs = zip(runs, targets[REFERENCE], strict=True)
            ratios = [(run[key] / other[key]) ** power for run, other in pairs]
            cells.append(f"{median(run[key] for run in runs):.0f}")
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            cells.append(f"{median(ratios):.2f} ({spread})")
        cells += [
            f"{median(r[key] for r in runs):.2f}" for key in ("median_ms", "p99_ms")
        ]
        cells.append(f"{sum(run['wrong'] for run in runs):.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Run what was asked for, and print tables."""
    parser = argparse.ArgumentParser(
        prog="script/benchmark",
        description="Measure Modbus/TCP multiplexers side by side.",
    )
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument("--seconds", type=float, default=2, help="a run (default 2)")
    parser.add_argument(
        "--cases", default="", metavar="TEXT", help="those whose names contain this"
    )
    given = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # children inherit that
    cases = {name: case for name, case in CASES.items() if given.cases in name}
    results: dict[str, dict[str, list[dict[str, float]]]] = {
        name: {target: [] for target in targets}
        for name, (*_, targets) in cases.items()
    }
    for number in range(1, given.rounds + 1):
        for name, (count, delay, targets) in cases.items():
            for target in random.sample(targets, len(targets)):
                result = measure(target, count, delay, given.seconds)
                results[name][target].append(result)
                print(f"{number}: {name}: {target}: {result}", file=sys.stderr)
    for name, measured in results.items():
        print(f"\n### {name}\n", *table(measured), sep="\n")


if __name__ == "__main__":
    main()
