"""Time the engine alone: codecs, queue and dispatcher between transports that are fake.

No socket, no kernel, no other process: what is left is what a request costs in the
engine itself, to about one per cent where sockets would blur it by ten.

    benchmarks/engine.py                   microseconds a request, 1, 8 and 64 clients
    benchmarks/engine.py --against FOLDER  the same beside another checkout

With `--against`, each round runs the other checkout, this one, and the other once more
as a control: a ratio means nothing that the control's own does not stay well within.
"""

import argparse
import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
import gc
import importlib.util
from pathlib import Path
from statistics import median
import subprocess
import sys
from time import process_time
from typing import Any, override

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = (1, 8, 64)
CHUNKS = 100
"""The best of so many is the figure: whatever disturbs a chunk only makes it slower."""
REQUESTS = 400
"""Exchanges in a chunk."""
READ = b"\0\1\0\0\0\6\1\3\0%c\0\x0a"
ANSWER = b"\0\0\0\x17\1\3\x14" + bytes(20)

type Case = Callable[[Any], Coroutine[Any, Any, float]]
"""Measures an engine; returns the seconds of processor time that an exchange takes."""


class Transport(asyncio.Transport):
    """Takes what is written, for whoever plays the other end."""

    def __init__(self, written: deque[Any], item: object = None) -> None:
        """Put `item`, or else the bytes themselves, into `written` at each write."""
        super().__init__({"peername": ("192.168.1.2", 50000)})
        self._written = written
        self._item = item

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._written.append(self._item or data)

    @override
    def is_closing(self) -> bool:
        return False

    @override
    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Never be full."""

    @override
    def abort(self) -> None:
        pass

    close = abort


class Loop(asyncio.SelectorEventLoop):
    """A loop whose connections are fake."""

    accept: Any = None
    """Makes the protocol of one more client."""
    device: Any = None
    """The protocol of the upstream connection."""
    responses: Any = None
    """Counts the responses so far."""

    def __init__(self) -> None:
        """Begin with no connection."""
        super().__init__()
        self.asked: deque[bytes] = deque()
        """What was sent to the device and not answered."""

    @override
    async def create_server(  # type: ignore[override]
        self, factory: Any, *_: Any, **__: Any
    ) -> Any:
        self.accept = factory
        return Server()

    @override
    async def sock_connect(self, sock: Any, address: Any) -> None:
        """Connect to nothing."""

    @override
    async def create_connection(  # type: ignore[override]
        self, factory: Any, *_: Any, sock: Any = None, **__: Any
    ) -> Any:
        if sock is not None:
            sock.close()
        self.device = factory()
        transport = Transport(self.asked)
        self.device.connection_made(transport)
        return transport, self.device


class Server:
    """A server without sockets."""

    sockets = ()


async def start(engine: Any, **settings: Any) -> Loop:
    """Return the loop with a multiplexer on it that is connected to its device."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    multiplexer = engine.Multiplexer(engine.Settings(host="127.0.0.1", **settings))
    await multiplexer.start()
    for _ in range(50):  # turns of the loop: more than opening a connection takes
        await asyncio.sleep(0)
    assert multiplexer.snapshot().connections
    loop.responses = lambda: multiplexer.snapshot().responses
    return loop


async def connected(engine: Any, clients: int) -> tuple[Loop, deque[Any]]:
    """Connect a device and clients, each of which has asked; return what was answered.

    That is of each answer who got it, and what that client asks the next time.
    """
    loop = await start(engine)
    answered: deque[Any] = deque()
    for number in range(clients):
        client = loop.accept()
        read = READ % number  # each its own, or they would share a response
        client.connection_made(Transport(answered, (client, read)))
        client.data_received(read)
    return loop, answered


def exchange(loop: Loop, answered: deque[Any]) -> None:
    """Let the device answer, and whoever is answered ask again, for a chunk."""
    for _ in range(REQUESTS):
        loop.device.data_received(loop.asked.popleft()[:2] + ANSWER)
        client, read = answered.popleft()
        client.data_received(read)


async def measure(engine: Any, clients: int) -> float:
    """Return the seconds of processor time that an exchange takes, at best."""
    loop, answered = await connected(engine, clients)
    best = float("inf")
    gc.disable()
    for _ in range(CHUNKS):
        before = process_time()
        exchange(loop, answered)
        best = min(best, process_time() - before)
        gc.collect()
        await asyncio.sleep(0)
    assert len(loop.asked) == 1
    assert loop.responses() == CHUNKS * REQUESTS
    return best / REQUESTS


def load(checkout: Path) -> Any:
    """Import the engine of a checkout."""
    folder = checkout / "custom_components" / "tcp_multiplexer" / "multiplexer"
    spec = importlib.util.spec_from_file_location("engine", folder / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    engine = importlib.util.module_from_spec(spec)
    sys.modules["engine"] = engine
    spec.loader.exec_module(engine)
    return engine


class Benchmark:
    """Cases that are measured on a checkout, or on two beside each other."""

    def __init__(self, program: str, cases: Mapping[str, Case]) -> None:
        """Take cases by their titles, and the file of the program that has them."""
        self._program = program
        self._cases = cases

    def _run(self, checkout: Path) -> None:
        """Measure the engine of a checkout; print a figure for each case."""
        engine = load(checkout)
        for case in self._cases.values():
            with asyncio.Runner(loop_factory=Loop) as runner:
                print(runner.run(case(engine)))

    def _figures(self, checkout: Path) -> list[float]:
        """Return the figures of a checkout, in microseconds, from another process."""
        command = (sys.executable, self._program, "--run", str(checkout))
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [float(line) * 1e6 for line in done.stdout.split()]

    def _compare(self, other: Path, rounds: int) -> None:
        """Print this checkout beside another, by the medians of the rounds' ratios."""
        took: dict[str, list[list[float]]] = {"other": [], "this": [], "control": []}
        for _ in range(rounds):
            for name, checkout in (
                ("other", other),
                ("this", ROOT),
                ("control", other),
            ):
                took[name].append(self._figures(checkout))
        width = max(map(len, self._cases))
        print(f"{'':{width}}  other us  this us  this/other  control/other")
        for at, title in enumerate(self._cases):
            before, now, control = ([run[at] for run in took[name]] for name in took)
            ratio = median(b / a for a, b in zip(before, now, strict=True))
            noise = median(b / a for a, b in zip(before, control, strict=True))
            print(
                f"{title:>{width}}  {median(before):8.2f}  {median(now):7.2f}"
                f"  {ratio:10.3f}  {noise:13.3f}"
            )

    def main(self, description: str | None) -> None:
        """Read the arguments and print the figures."""
        title = (description or "").partition("\n")[0]
        parser = argparse.ArgumentParser(description=title)
        parser.add_argument("--against", type=Path, metavar="FOLDER")
        parser.add_argument("--rounds", type=int, default=5)
        parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
        options = parser.parse_args()
        if options.run is not None:
            self._run(options.run)
        elif options.against is not None:
            self._compare(options.against.resolve(), options.rounds)
        else:
            for case, took in zip(self._cases, self._figures(ROOT), strict=True):
                print(f"{case}: {took:.2f} us a request")


if __name__ == "__main__":
    cases = {
        f"{number} clients": partial(measure, clients=number) for number in CLIENTS
    }
    Benchmark(__file__, cases).main(__doc__)
