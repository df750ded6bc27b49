# ruff: noqa: T201 - a program prints
"""Lives many lives, on all cores: `python -m tests.simulation N [first-seed]`.

Prints each seed that fails, with what it broke, what came just before, and the command
that replays it. Exits with 1 if any did.

With `--digest` it prints how each life went instead, in a few digits: a change that
only moves code leaves all of them as they were.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor, as_completed
import os
import sys
import time

from . import alone  # noqa: F401 - before what imports the engine
from .draws import KINDS, kind_of
from .life import Report, live


def main() -> int:
    """Read the arguments, live the lives, say how they went."""
    parser = argparse.ArgumentParser(
        prog="script/simulate",
        description="Run the engine in simulated worlds, each drawn from one seed.",
    )
    parser.add_argument("count", type=int, nargs="?", default=40, help="how many seeds")
    parser.add_argument("first", type=int, nargs="?", default=0, help="the first one")
    parser.add_argument(
        "--kind", choices=KINDS, help="the kind of lives (default: all)"
    )
    parser.add_argument("--log", action="store_true", help="print all that passed")
    parser.add_argument(
        "--digest",
        action="store_true",
        help="print a digest of each life",
    )
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.count)
    began = time.perf_counter()
    if options.digest:
        return print_digests(seeds)
    if options.count == 1:
        kind = options.kind or kind_of(options.first)
        reports = [live(options.first, kind, keep=options.log)]
        for report in reports:
            show(report)
    else:
        reports = live_all(seeds, options.kind)
    failed = sorted(report.seed for report in reports if report.error)
    exchanges = sum(report.exchanges for report in reports)
    took = time.perf_counter() - began
    print(
        f"{len(reports)} seeds, {exchanges} exchanges, {took:.0f} s, "
        f"{len(failed)} failed: {failed}"
    )
    return 1 if failed else 0


def print_digests(seeds: range) -> int:
    """Print the digest of each life; return 1 if one went wrong."""
    kinds = [kind_of(seed) for seed in seeds]
    with ProcessPoolExecutor(os.process_cpu_count()) as pool:
        reports = list(pool.map(live, seeds, kinds))
    for kind, report in zip(kinds, reports, strict=True):
        error = report.error.strip().rpartition("\n")[2]
        print(kind, report.seed, report.digest, error)
    return 1 if any(report.error for report in reports) else 0


def live_all(seeds: range, kind: str | None) -> list[Report]:
    """Live the lives of `seeds` on all cores; show those that fail.

    They are of one kind, or each of its own.
    """
    reports = []
    with ProcessPoolExecutor(os.process_cpu_count()) as pool:
        lives = [pool.submit(live, seed, kind or kind_of(seed)) for seed in seeds]
        for life in as_completed(lives):
            report = life.result()
            reports.append(report)
            if report.error:
                show(report)
    return reports


def show(report: Report) -> None:
    """Print how a life went."""
    if report.error:
        print(*report.log, report.error, sep="\n")
        print(f"replay: {report.replay}", flush=True)
    else:
        print(*report.log, f"seed {report.seed}: {report.digest}", sep="\n")


if __name__ == "__main__":
    sys.exit(main())
