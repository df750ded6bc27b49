"""Takes one mend after the other out of the engine, and sees that lives notice.

    python -m tests.simulation.mutations            all of them
    python -m tests.simulation.mutations cache      those with this word

A mutation replaces a few lines in a copy of the engine. There, scenes are played that
are about just this, or lives are lived, until one fails. Prints what was broken, and by
which scene or life that was seen. Exits with 1 if something was not.
"""

from __future__ import annotations

from pathlib import Path
import re
import shutil
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
ENGINE = Path("custom_components/tcp_multiplexer/multiplexer")
LIVES = 12
"""So many lives of each kind may go by before a mutation counts as not seen."""


class Mutation(NamedTuple):
    """A mend that is taken out."""

    what: str
    """What the engine then does."""
    file: str
    old: str
    new: str
    kinds: tuple[str, ...] = ()
    """Kinds of lives that can see it."""
    scenes: str = ""
    """The module of scenes that can."""


MUTATIONS = (
    Mutation(
        "sends to a line on which an answer may come late",
        "dispatch/connections.py",
        "        until = exchange.sent + self._units.timeout + upstream.quiet\n",
        "        until = exchange.sent\n",
        ("rtu", "lenient"),
    ),
    Mutation(
        "takes the confirmation of another write",
        "protocols/modbus/pdu.py",
        "    return not payload[2:end].startswith(response[2:end])",
        "    return False",
        ("rtu", "lenient", "modbus"),
    ),
    Mutation(
        "sends beside what is in flight after a pause is called off",
        "upstream/pool.py",
        "                self._connections.refresh(upstream, self._loop.time())\n",
        "                self._connections.freed(upstream, self._loop.time())\n",
        ("rtu", "http", "echo"),
    ),
    Mutation(
        "reads on from a client over its bound",
        "downstream/client.py",
        "        if room < self._read_at_once:\n            self._stop_reading()",
        "        if room < 0 and not self._read_at_once:\n            self._stop_reading()",
        ("modbus",),
    ),
    Mutation(
        "lets the timeout run from when there is room",
        "downstream/client.py",
        "        deadline = completed + ",
        "        deadline = now + ",
        ("modbus",),
    ),
    Mutation(
        "answers on who does not read",
        "downstream/client.py",
        "        self.held = True\n",
        "        self.held = False\n",
        scenes="test_contract",
    ),
    Mutation(
        "lets writes pass that are denied",
        "dispatch/policy.py",
        "        if not self._write_rules or request.writes is None:\n",
        "        if not self._write_rules or request.writes is not None:\n",
        ("modbus",),
    ),
    Mutation(
        "allows writes that lie partly outside of what is allowed",
        "write_rules.py",
        "            return self.contains(written)\n        return (",
        "            pass\n        return (",
        ("modbus", "rtu", "lenient"),
    ),
    Mutation(
        "confirms what was written before something else",
        "dispatch/coalescing.py",
        "                self.last_writes.forget(scope)\n",
        "                pass\n",
        ("modbus", "rtu", "lenient"),
    ),
    Mutation(
        "confirms what was written before the connection was lost",
        "dispatch/dispatcher.py",
        "        self._last_writes.clear()\n",
        "",
        ("modbus", "rtu", "lenient"),
    ),
    Mutation(
        "goes on with rules that were changed",
        "dispatch/dispatcher.py",
        "        self.guard.apply(settings)\n",
        "        self.guard.update()\n",
        ("modbus",),
    ),
    Mutation(
        "keeps in the cache what was written since",
        "dispatch/coalescing.py",
        "            self.cache.clear_scope(scope)\n",
        "            pass\n",
        ("modbus",),
    ),
    Mutation(
        "cuts the wrong piece out of a response",
        "protocols/modbus/extent.py",
        "        skip, count = part.first - self.first, part.end - part.first\n",
        "        skip, count = 0, part.end - part.first\n",
        ("modbus",),
    ),
    Mutation(
        "puts the parts of a read together in another order",
        "dispatch/split.py",
        "        return whole.join(self._responses)\n",
        "        return whole.join(self._responses[::-1])\n",
        ("modbus",),
    ),
    Mutation(
        "takes an older identifier where the device echoes",
        "protocols/modbus/lenient.py",
        "        if self._known.manner is not Manner.ECHOES or number == current:\n",
        '        if number != b"":\n',
        scenes="test_contract",
    ),
    Mutation(
        "lets in one client too many",
        "downstream/listener.py",
        "        if len(self.clients) >= most:",
        "        if len(self.clients) > most:",
        ("modbus", "echo"),
    ),
    Mutation(
        "lets clients in for whom no socket is left",
        "sockets.py",
        "    return sock.fileno() >= limit - min(MOST_FREE_DESCRIPTORS, limit // 4)",
        "    return sock.fileno() >= limit",
        ("echo",),
    ),
    Mutation(
        "keeps clients that have said all",
        "downstream/client.py",
        "        if not (self.pending or self.in_flight or waits):\n            self._memory",
        "        if self.held and not waits:\n            self._memory",
        ("rtu", "modbus"),
    ),
    Mutation(
        "looks again and again whether a client may go on",
        "downstream/client.py",
        "        if not self._must_wait():\n            self._loop.call_soon(self._go_on)\n\n    def _go_on(self) -> None:\n        if self._stalled and not self._must_wait():",
        "        self._loop.call_soon(self._go_on)\n\n    def _go_on(self) -> None:\n        if self._stalled:",
        scenes="test_contract",
    ),
    Mutation(
        "opens a breaker by one silence",
        "dispatch/breakers.py",
        "SILENT_TO_OPEN = 2\n",
        "SILENT_TO_OPEN = 1\n",
        scenes="test_patience",
    ),
    Mutation(
        "opens a breaker by the third silence only",
        "dispatch/breakers.py",
        "SILENT_TO_OPEN = 2\n",
        "SILENT_TO_OPEN = 3\n",
        scenes="test_patience",
    ),
    Mutation(
        "tries a silent unit as often as ever",
        "dispatch/breakers.py",
        "min(2 * self.interval, _LONGEST_INTERVAL)",
        "min(self.interval, _LONGEST_INTERVAL)",
        scenes="test_patience",
    ),
    Mutation(
        "tries a silent unit ever more seldom",
        "dispatch/breakers.py",
        "_LONGEST_INTERVAL = 60.0\n",
        "_LONGEST_INTERVAL = 70.0\n",
        scenes="test_patience",
    ),
    Mutation(
        "keeps a breaker open over a late response",
        "dispatch/units.py",
        "        self.breakers.lives(unit)\n        opens = self",
        "        opens = self",
        scenes="test_patience",
    ),
    Mutation(
        "renews a connection for one timeout",
        "dispatch/expiry.py",
        "_TIMEOUTS_TO_RENEW = 2\n",
        "_TIMEOUTS_TO_RENEW = 1\n",
        scenes="test_patience",
    ),
    Mutation(
        "renews a connection for the third timeout only",
        "dispatch/expiry.py",
        "_TIMEOUTS_TO_RENEW = 2\n",
        "_TIMEOUTS_TO_RENEW = 3\n",
        scenes="test_patience",
    ),
    Mutation(
        "counts timeouts that had no fair chance",
        "dispatch/units.py",
        "        return took >= needed - 1e-6\n",
        "        return took <= allowed\n",
        scenes="test_patience",
    ),
    Mutation(
        "has patience for more than half the timeout",
        "dispatch/patience.py",
        "        return exchange.sent + min(patience, self.timeout / 2)\n",
        "        return exchange.sent + max(patience, self.timeout * 0.7)\n",
        scenes="test_patience",
    ),
    Mutation(
        "has no patience with what is fast",
        "dispatch/patience.py",
        "\nSHORTEST = 1.03\n",
        "\nSHORTEST = 0.9\n",
        scenes="test_patience",
    ),
    Mutation(
        "forgets too soon what a device may be busy with",
        "dispatch/line.py",
        "_LONGEST_BUSY = 30.0\n",
        "_LONGEST_BUSY = 3.0\n",
        scenes="test_patience",
    ),
    Mutation(
        "remembers too long what a device may be busy with",
        "dispatch/line.py",
        "_LONGEST_BUSY = 30.0\n",
        "_LONGEST_BUSY = 300.0\n",
        scenes="test_patience",
    ),
    Mutation(
        "forgets what was pipelined behind what is overdue",
        "dispatch/patience.py",
        "            if len(upstream.in_flight) > 1:\n",
        "            if len(upstream.in_flight) > 1000:\n",
        scenes="test_patience",
    ),
    Mutation(
        "takes nothing for busy with what it was asked before",
        "dispatch/line.py",
        "        return any(other.asked.unit != unit for other in before)\n",
        "        return bool(before and unit is before)\n",
        scenes="test_patience",
    ),
    Mutation(
        "looks no further behind what was turned down",
        "dispatch/dispatcher.py",
        "            if exchange is not None or not turned_down:\n",
        "            if exchange is not None or turned_down is not queue:\n",
        scenes="test_patience",
    ),
    Mutation(
        "sends nothing where the timeout is shorter than a slow response",
        "dispatch/connections.py",
        "        return left < min(SLOW, self._units.timeout / 2) and",
        "        return left < SLOW and",
        scenes="test_patience",
    ),
    Mutation(
        "asks a unit no more that was slower than half the timeout",
        "dispatch/units.py",
        "min(self.times.usual(unit), self.timeout / 2)",
        "self.times.usual(unit)",
        scenes="test_patience",
    ),
    Mutation(
        "discards nothing",
        "dispatch/connections.py",
        "        if self._discards_first and not upstream.sent:\n",
        "        if self._discards_first and upstream.sent:\n",
        ("modbus",),
    ),
    Mutation(
        "sends beside what it discards",
        "dispatch/first_read.py",
        "        self._carrier.alone = True\n",
        "        self._carrier.alone = False\n",
        ("modbus",),
    ),
    Mutation(
        "leads others with what it discards",
        "dispatch/first_read.py",
        "        self._carrier.alone = False\n\n    @override\n    def failed",
        "        self._carrier.alone = True\n\n    @override\n    def failed",
        ("modbus",),
    ),
    Mutation(
        "asks the periodic request too often",
        "upstream/periodic.py",
        "        self._due = now + settings.periodic_interval\n",
        "        self._due = now + settings.periodic_interval / 2\n",
        ("modbus",),
    ),
    Mutation(
        "answers the periodic request out of the cache",
        "upstream/periodic.py",
        "submit(exchange, alone=True)",
        "submit(exchange)",
        ("modbus",),
    ),
    Mutation(
        "forgets the periodic request over a pause that was called off",
        "upstream/pool.py",
        "        if self.willing:\n            self._timer.set(self._next_moment())",
        "        if self._stopped:\n            self._timer.set(self._next_moment())",
        ("lenient",),
    ),
    Mutation(
        "waits for the rest of exceptions of odd length",
        "protocols/modbus/matching.py",
        "        if len(data) < at + MIN_FRAME or",
        "        if len(data) < at + 2 * MIN_FRAME or",
        ("modbus",),
    ),
)


def seen(mutation: Mutation) -> str:
    """Tell which scene or life failed with a mutation, and why; empty if none did."""
    with TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("custom_components", "tests", "docs", "script"):
            shutil.copytree(ROOT / part, copy / part)
        shutil.copy(ROOT / "pyproject.toml", copy)
        path = copy / ENGINE / mutation.file
        path.write_text(path.read_text().replace(mutation.old, mutation.new, 1))
        if mutation.scenes:
            scenes = f"tests/simulation/{mutation.scenes}.py"
            how = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", scenes)
            played = _run(copy, *how)
            if played.returncode:
                failed = re.findall(
                    r"^(?:FAILED|ERROR) (\S+)", played.stdout, re.MULTILINE
                )
                return failed[0].rpartition("::")[2] if failed else played.stdout[-80:]
        for kind in mutation.kinds:
            for seed in map(str, range(LIVES)):
                life = ("-m", "tests.simulation", "1", seed, "--kind", kind)
                lived = _run(copy, *life)
                if lived.returncode:
                    return f"{kind} {seed}: {_reason(lived.stdout)}"
    return ""


def _run(folder: Path, *how: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a copy."""
    return subprocess.run(  # noqa: S603 - our own program
        (sys.executable, *how),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def _reason(told: str) -> str:
    """Give the line of a report that says what was broken."""
    lines = [line for line in told.splitlines() if re.match(r"[\w.]+: ", line)]
    lines = [line for line in lines if not line.startswith(("asyncio", "replay"))]
    return lines[-1][:120] if lines else "?"


def main() -> int:
    """Try the mutations; return how many were not seen."""
    missed = 0
    for mutation in MUTATIONS:
        if all(word in mutation.what for word in sys.argv[1:]):
            by = seen(mutation)
            missed += not by
            print(f"{mutation.what}\n    {by or 'NOT SEEN'}", flush=True)  # noqa: T201 - a program prints
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main())
