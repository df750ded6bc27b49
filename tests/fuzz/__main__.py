"""Fuzz all targets, each in a process of its own: see `script/fuzz`."""

import argparse
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
import re
import subprocess
import sys
from typing import Final

from . import codecs, engine
from .corpus import keep, kept
from .reach import Reach

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / ".fuzz"
"""Where libFuzzer keeps what it learns, and what it finds."""
TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "codecs": codecs.play,
    "engine": engine.play,
}
LONGEST: Final = 128
"""Bytes of a tape at most."""
HANG_SECONDS: Final = 20
MEMORY_MEGABYTES: Final = 1024


def fuzz(target: str, seconds: int, runs: int, *, blind: bool) -> bool:
    """Fuzz a target, seeing what is reached or not; say whether nothing was found."""
    corpus = FOLDER / target
    corpus.mkdir(parents=True, exist_ok=True)
    for tape in kept(target):
        (corpus / sha256(tape).hexdigest()[:16]).write_bytes(tape)
    before = set(FOLDER.iterdir())
    process = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.target"),
            *(["--blind"] if blind else []),
            *(target, str(corpus)),
            *(f"-max_total_time={seconds}", f"-runs={runs}", f"-max_len={LONGEST}"),
            *(f"-timeout={HANG_SECONDS}", f"-rss_limit_mb={MEMORY_MEGABYTES}"),
            *(f"-artifact_prefix={FOLDER}/{target}-", "-print_final_stats=1"),
        ],
        cwd=ROOT,
        check=False,
        stderr=subprocess.PIPE,
        text=True,
    )
    counted = re.search(r"number_of_executed_units: (\d+)", process.stderr)
    if process.returncode == 0 and counted:
        print(f"{target}: {int(counted[1]):,} executions, nothing found", flush=True)
        return True
    print(process.stderr[-8000:], file=sys.stderr)
    for path in set(FOLDER.iterdir()) - before:
        print(f"{target}: found by the tape {path.read_bytes().hex()}", file=sys.stderr)
    return False


def keep_useful(target: str) -> None:
    """Keep of all that libFuzzer has learned what reaches more than the rest."""
    found = [path.read_bytes() for path in (FOLDER / target).iterdir()]
    tapes = sorted({*found, *kept(target)}, key=lambda tape: (len(tape), tape))
    useful = Reach().useful(TARGETS[target], tapes)
    keep(target, useful)
    print(f"{target}: {len(useful)} of {len(tapes)} tapes are kept")


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="script/fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="in all (60)")
    parser.add_argument("--runs", type=int, default=-1, help="end after so many")
    parser.add_argument("--target", choices=TARGETS, help="only this one")
    parser.add_argument(
        "--blind", action="store_true", help="do not see what tapes reach: faster"
    )
    parser.add_argument("--play", metavar="TAPE", help="play one, in hexadecimal")
    parser.add_argument("--keep", action="store_true", help="renew the corpus")
    arguments = parser.parse_args()
    targets = [arguments.target] if arguments.target else list(TARGETS)
    if arguments.play is not None:
        if not arguments.target:
            parser.error("--play needs --target")
        TARGETS[arguments.target](bytes.fromhex(arguments.play))
        return 0
    if arguments.keep:
        for target in targets:
            keep_useful(target)
        return 0
    seconds = max(1, arguments.seconds // len(targets))
    fine = [
        fuzz(target, seconds, arguments.runs, blind=arguments.blind)
        for target in targets
    ]
    return not all(fine)


if __name__ == "__main__":
    sys.exit(main())
