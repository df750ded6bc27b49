"""One target, fuzzed by libFuzzer through Atheris, in a process of its own.

Started as `python -m tests.fuzz.target [--blind] codecs|engine ARGUMENTS OF LIBFUZZER
...`; with `--blind`, it changes the tapes that it is given without seeing what they
reach, which is several times as fast.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
import resource
import sys
import time
from typing import Final

import atheris

ENGINE: Final = "custom_components.tcp_multiplexer.multiplexer"
ITSELF: Final = "tests.fuzz."
FIRST: Final = 50_000
"""Executions after which everything was loaded and met once."""


def memory() -> float:
    """Return the memory, in MiB, that this process really holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / (1 << 20)


class Counted:
    """A target that says now and then how far it is, and how large it has become."""

    def __init__(self, play: Callable[[bytes], None]) -> None:
        """Begin with no execution."""
        self._play = play
        self._count = 0
        self._next = FIRST
        self._begin = time.monotonic()

    def __call__(self, data: bytes) -> None:
        """Play one tape."""
        self._play(data)
        self._count += 1
        if self._count == self._next:
            self._next *= 2
            seconds = time.monotonic() - self._begin
            rate = self._count / seconds
            print(
                f"{self._count:,} executions, {rate:,.0f}/s, {memory():.1f} MiB",
                flush=True,
            )


def main() -> None:
    """Fuzz until libFuzzer has enough; it ends the process."""
    blind = sys.argv[1] == "--blind"
    name, *arguments = sys.argv[1 + blind :]
    with nullcontext() if blind else atheris.instrument_imports(include=[ENGINE]):
        if name == "codecs":
            from .codecs import play  # noqa: PLC0415 - only now it is instrumented
        else:
            from .engine import play  # noqa: PLC0415
    atheris.Setup([name, *arguments], Counted(play))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
