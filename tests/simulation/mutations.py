"""Takes one mend after the other out of the engine, and sees that lives notice.

    python -m tests.simulation.mutations            all of them
    python -m tests.simulation.mutations cache      those with this word

A mutation replaces a few lines in a copy of the engine, in which lives are then lived
until one fails. Prints what was broken, and by which life that was seen. Exits with 1
if something was not.
"""

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
    kinds: tuple[str, ...]
    """Kinds of lives that can see it."""


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
        ("modbus",),
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
        ("lenient",),
    ),
    Mutation(
        "tells RTU clients exceptions that are too long",
        "protocols/modbus/rtu.py",
        "            response = response[: _EXCEPTION_LENGTH - 2]",
        "            response = response[:]",
        ("modbus",),
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
        "        if not (self.pending or self.in_flight or self._line or waits):\n            self._memory",
        "        if self.held and not waits:\n            self._memory",
        ("rtu", "modbus"),
    ),
    Mutation(
        "looks again and again whether a client may go on",
        "downstream/client.py",
        "        if not self._must_wait():\n            self._loop.call_soon(self._go_on)\n\n    def _go_on",
        "        self._loop.call_soon(self._go_on)\n\n    def _go_on",
        ("modbus", "echo"),
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
        "            len(head) == MIN_FRAME\n            and head[7] & EXCEPTION_BIT != 0\n            and head[4:6]",
        "            len(head) > MIN_FRAME\n            and head[7] & EXCEPTION_BIT != 0\n            and head[4:6]",
        ("modbus",),
    ),
)


def seen(mutation: Mutation) -> str:
    """Live lives with a mutation; tell which one failed, and why; empty if none did."""
    with TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("custom_components", "tests", "docs"):
            shutil.copytree(ROOT / part, copy / part)
        path = copy / ENGINE / mutation.file
        path.write_text(path.read_text().replace(mutation.old, mutation.new, 1))
        for kind in mutation.kinds:
            for seed in map(str, range(LIVES)):
                life = ("-m", "tests.simulation", "1", seed, "--kind", kind)
                lived = subprocess.run(  # noqa: S603 - our own program
                    (sys.executable, *life),
                    cwd=copy,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if lived.returncode:
                    return f"{kind} {seed}: {_reason(lived.stdout)}"
    return ""


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
