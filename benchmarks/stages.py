"""Says what each stage of a request costs: kernel, event loop, and parts of the engine.

    benchmarks/stages.py            prints a table
    benchmarks/stages.py --docs     and writes docs/profile.md and its plot

`script/benchmark` has to have run once: it prepares what this needs. Three measurements
are put together:

* what a request costs in all, and how much of that the kernel counts as its own, with a
  device and clients as in the benchmark;
* what it costs in the engine alone, between transports that are fake (engine.py);
* which part of the engine that is. py-spy samples the engine alone, native frames
  included; the innermost frame of the engine counts, so that what the interpreter and
  the C library do counts for the one that calls them.

What is left is the event loop's, and what the engine is slower by where the kernel and
others have been in the caches meanwhile.

py-spy has to be allowed to look: as root, or with kernel.yama.ptrace_scope=0.
"""

import argparse
import asyncio
from collections import Counter
import gc
from importlib import import_module
import json
import os
from pathlib import Path
import re
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import engine  # noqa: E402
from benchmarks.benchmark import (  # noqa: E402
    OURS,
    PEERS,
    VENV,
    Bench,
    Clients,
    Target,
    available,
    busy_share,
    cpu_seconds,
    environment,
    free_port,
    machine,
    process,
    wait_for,
)

ENGINE = ROOT / "custom_components" / "tcp_multiplexer" / "multiplexer"
CLIENTS = 8
RATE = 400
"""Samples a second."""
MODULES = {
    path.stem: path.relative_to(ENGINE).parts
    for path in sorted(ENGINE.rglob("*.py"), reverse=True)
    if path.name != "__init__.py"
}
"""Where modules are; of those of one name, the one that comes first."""
FRAME = re.compile(
    r"^(\S+) \((?:.*/(?:custom_components/tcp_multiplexer/multiplexer|"
    r"\.compiled/tcp_multiplexer)/(\S+)\.py)?"
)
COMPILED_FRAME = re.compile(r"^CPy(?:Def|Py)_(\w+?)___(\w+)$")


def stage_of(frames: list[str]) -> tuple[str, str] | None:
    """Return the stage that a sample was taken in, and the function; None: outside."""
    for frame in reversed(frames):
        match = FRAME.match(frame)
        if match is None:
            continue
        name, file = match.groups()
        if file:
            return part_of(tuple(f"{file}.py".split("/"))), name
        if compiled := COMPILED_FRAME.match(name):
            module, function = compiled.groups()
            if module in MODULES:
                function = re.sub(r"___+", ".", function).strip(".")
                return part_of(MODULES[module]), function
        if "/benchmarks/" in frame:
            return None  # what plays the transports
    return None


def part_of(path: tuple[str, ...]) -> str:
    """Return the stage that a module of the engine is."""
    match path:
        case ("dispatch", "queue.py"):
            return "queue"
        case ("dispatch", "recorder.py") | ("observe", *_):
            return "recorder"
        case ("downstream" | "upstream", *_):
            return "connections"
        case ("protocols", *_):
            return "codec"
    return "dispatcher"


def sampled(pid: int, seconds: int, folder: Path) -> Counter[tuple[str, str]]:
    """Sample a process, and count its samples by stage and function."""
    file = folder / "samples"
    command = (VENV / "py-spy", "record", "--native", "--full-filenames")
    how = ("--rate", str(RATE), "--duration", str(seconds), "--format", "raw")
    subprocess.run(
        (*command, *how, "--output", file, "--pid", str(pid)),
        check=True,
        capture_output=True,
    )
    found: Counter[tuple[str, str]] = Counter()
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        if where := stage_of(stack.split(";")):
            found[where] += int(count)
    return found


def ticks(pid: int) -> tuple[int, int]:
    """Return the time that a process has been in the kernel, and outside."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[12]), int(fields[11])


def run_engine() -> None:
    """Print the microseconds that a request costs in the engine alone; then go on."""
    module = import_module("tcp_multiplexer")
    with asyncio.Runner(loop_factory=engine.Loop) as runner:
        print(runner.run(engine.measure(module, CLIENTS)) * 1e6, flush=True)
    # Below a coroutine, py-spy does not find Python's frames among native ones.
    with asyncio.Runner(loop_factory=engine.Loop) as runner:
        loop, answered = runner.run(engine.connected(module, CLIENTS))
        gc.enable()
        while True:
            engine.exchange(loop, answered)


def alone(target: Target, seconds: int, folder: Path) -> dict[str, Any]:
    """Measure and sample the engine of a target alone."""
    with subprocess.Popen(
        (sys.executable, __file__, "--engine"),
        stdout=subprocess.PIPE,
        text=True,
        env=environment(target.compiled),
    ) as running:
        assert running.stdout is not None
        cost = float(running.stdout.readline())
        samples = sampled(running.pid, seconds, folder)
        running.terminate()
    return {"cost": cost, "samples": [[*w, n] for w, n in samples.most_common()]}


def in_all(bench: Bench, target: Target, seconds: float) -> dict[str, float]:
    """Measure what a request costs in all, and what of that is the kernel's."""
    with bench.started(target) as (pid, port), Clients(port) as clients:
        clients.do(connect=CLIENTS)
        clients.do(ask=CLIENTS, unit=1, seconds=0.3)
        before, (kernel, others) = cpu_seconds(pid), ticks(pid)
        done = clients.do(ask=CLIENTS, unit=1, seconds=seconds)
        cost = (cpu_seconds(pid) - before) / done["responses"]
        now = ticks(pid)
    return {
        "cost": cost * 1e6,
        "kernel_ticks": now[0] - kernel,
        "ticks": sum(now) - kernel - others,
    }


def measure(rounds: int, seconds: int) -> dict[str, Any]:
    """Measure all builds of this program in turn."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    targets = [t for t in available(home=False, also=[]) if t in OURS]
    busy = busy_share(2)
    totals: dict[str, list[dict[str, float]]] = {t.name: [] for t in targets}
    device = free_port()
    with process(f"{PEERS} device {device}"):
        wait_for(device)
        bench = Bench(device, seconds)
        for _ in range(rounds):
            for target in targets:
                totals[target.name].append(in_all(bench, target, seconds))
    os.sched_setaffinity(0, cores)
    with TemporaryDirectory() as folder:
        engines = {
            target.name.partition(",")[0]: alone(target, rounds * seconds, Path(folder))
            for target in targets
            if "," not in target.name
        }
    return {"machine": machine(), "busy": busy, "totals": totals, "engines": engines}


def main() -> None:
    """Measure, and show what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument(
        "--seconds", type=int, default=2, help="of a measurement (default 2)"
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="keep what was measured, as JSON"
    )
    parser.add_argument(
        "--docs",
        action="store_true",
        help="write docs/profile.md and its plot, beside printing the tables",
    )
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.engine:
        run_engine()
    results = measure(given.rounds, given.seconds)
    with TemporaryDirectory() as folder:
        file = given.save or Path(folder) / "results.json"
        file.write_text(json.dumps(results))
        report = (VENV / "python", ROOT / "benchmarks" / "report_stages.py", file)
        subprocess.run((*report, *(["--docs"] if given.docs else [])), check=True)


if __name__ == "__main__":
    main()
