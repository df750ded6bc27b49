"""Makes tables and plots of what benchmark.py has measured.

    report.py RESULTS           prints tables
    report.py RESULTS --docs    and writes docs/benchmark.md and its plots

Figures are medians over the rounds, with the lowest and the highest behind them; ratios
and differences are taken within each round first.
"""

import argparse
from collections.abc import Callable, Iterator
import json
from pathlib import Path
from statistics import median
import sys
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.drawing import COLOURS, Drawing  # noqa: E402

PAGE = ROOT / "docs" / "benchmark.md"
IMAGES = ROOT / "docs" / "images"
GENERATED = "<!-- Below: made by script/benchmark --docs -->\n"
REFERENCE, DIRECT = "modbus-proxy", "no multiplexer"
HOME = "in Home Assistant"
QUIET = 0.05
"""The share of the machine that other work may take."""

AT_ONCE = ("1 client", "8 clients", "64 clients", "64 clients, 64 in flight")
SLOW = (
    "1 client, 5 ms",
    "8 clients, 5 ms",
    "64 clients, 5 ms",
    "8 clients, 5 ms, 4 connections",
)
GROWING = {
    "1 client": 1,
    "8 clients": 8,
    "64 clients": 64,
    "250 clients": 250,
    "500 clients": 500,
    "1,000 clients": 1000,
}
STEADY = "200 requests/s"

type Figures = list[float]
"""One of each round."""


class Results:
    """What was measured."""

    def __init__(self, file: Path) -> None:
        """Read a file of benchmark.py."""
        self.all: dict[str, Any] = json.loads(file.read_text())
        self._runs: dict[str, dict[str, list[dict[str, float]]]] = self.all["runs"]

    def targets(self, *but: str) -> list[str]:
        """Return the names of the targets in any case."""
        names = [name for runs in self._runs.values() for name in runs]
        return [name for name in dict.fromkeys(names) if name not in but]

    def has(self, case: str, target: str, key: str = "responses") -> bool:
        """Return whether this was measured."""
        return key in self._runs.get(case, {}).get(target, [{}])[0]

    def figures(self, case: str, target: str, key: str) -> Figures:
        """Return what was measured in each round."""
        return [run[key] for run in self._runs[case][target]]

    def ratios(self, case: str, target: str, key: str) -> Figures:
        """Return the same as ratios to the reference in the same round."""
        others = self.figures(case, REFERENCE, key)
        own = self.figures(case, target, key)
        return [a / b for a, b in zip(own, others, strict=True)]

    def added_ms(self, target: str, key: str = "median_ms") -> Figures:
        """Return by how much later responses come than without a multiplexer."""
        without = self.figures(STEADY, DIRECT, key)
        own = self.figures(STEADY, target, key)
        return [a - b for a, b in zip(own, without, strict=True)]

    def client_kib(self, target: str, case: str) -> Figures:
        """Return the memory that each client more takes."""
        alone = self.figures("1 client", target, "memory_kib")
        many = self.figures(case, target, "memory_kib")
        if target == HOME:  # It runs all the time: what is freed is taken again.
            alone, many = alone[:1], many[:1]
        return [(b - a) / (GROWING[case] - 1) for a, b in zip(alone, many, strict=True)]

    def total(self, key: str) -> int:
        """Sum up over all there is."""
        return round(
            sum(
                run[key]
                for targets in self._runs.values()
                for runs in targets.values()
                for run in runs
            )
        )


# ---- tables --------------------------------------------------------------------------


def cell(figures: Figures, digits: int = 0) -> str:
    """Show a median and its range."""
    shown = [f"{value:,.{digits}f}" for value in (min(figures), max(figures))]
    middle = f"{median(figures):,.{digits}f}"
    return f"**{middle}** ({shown[0]} to {shown[1]})" if len(figures) > 1 else middle


def table(
    head: str, columns: dict[str, Callable[[str], str]], rows: list[str]
) -> list[str]:
    """Make a table; a cell is what its column makes of the row's target."""
    lines = [f"| {head} | {' | '.join(columns)} |"]
    lines.append("| --- |" + " --: |" * len(columns))
    for row in rows:
        cells = [make(row) for make in columns.values()]
        if any(c != "-" for c in cells):
            lines.append(f"| {row} | {' | '.join(cells)} |")
    return lines


def by_case(
    results: Results, cases: tuple[str, ...], show: Callable[[str, str], str], key: str
) -> list[str]:
    """Make a table with a column for each case."""

    def column(case: str) -> Callable[[str], str]:
        return lambda target: (
            show(case, target) if results.has(case, target, key) else "-"
        )

    targets = results.targets()
    columns = {
        case: column(case)
        for case in cases
        if any(results.has(case, target) for target in targets)
    }
    return table("", columns, targets) if columns else []


def throughput(results: Results, cases: tuple[str, ...]) -> list[str]:
    """Show responses a second, and the ratio to the reference."""

    def show(case: str, target: str) -> str:
        middle = median(results.figures(case, target, "per_second"))
        if not results.has(case, REFERENCE) or target == DIRECT:
            return f"{middle:,.0f}"
        ratio = cell(results.ratios(case, target, "per_second"), 2)
        return f"{middle:,.0f} · {ratio}"

    return by_case(results, cases, show, "per_second")


def processor(results: Results, cases: tuple[str, ...]) -> list[str]:
    """Show the processor time of a request."""

    def show(case: str, target: str) -> str:
        return cell(results.figures(case, target, "cpu_us"), 1)

    return by_case(results, cases, show, "cpu_us")


def steady(results: Results) -> list[str]:
    """Show what a steady load costs, and what is added to response times."""
    if not results.has(STEADY, DIRECT):
        return []

    def added(key: str) -> Callable[[str], str]:
        def show(target: str) -> str:
            figures = results.added_ms(target, key)
            return "-" if target == DIRECT else cell([f * 1e3 for f in figures])

        return show

    return table(
        "",
        {
            "response time, median, µs": lambda t: cell(
                [f * 1e3 for f in results.figures(STEADY, t, "median_ms")]
            ),
            "added, median, µs": added("median_ms"),
            "added, 99 %, µs": added("p99_ms"),
            "processor time a request, µs": lambda t: (
                cell(results.figures(STEADY, t, "cpu_us"))
                if results.has(STEADY, t, "cpu_us")
                else "-"
            ),
        },
        results.targets(),
    )


def memory(results: Results) -> list[str]:
    """Show the memory of the process, and what each client adds."""
    cases = ("1 client", "500 clients", "1,000 clients")
    targets = [t for t in results.targets() if results.has(cases[0], t, "memory_kib")]
    if not targets or not all(results.has(case, targets[0]) for case in cases):
        return []
    return table(
        "",
        {
            "with 1 client, MiB": lambda t: cell(
                [f / 1024 for f in results.figures(cases[0], t, "memory_kib")], 1
            ),
            "each of 500 adds, KiB": lambda t: cell(results.client_kib(t, cases[1]), 2),
            "each of 1,000 adds, KiB": lambda t: cell(
                results.client_kib(t, cases[2]), 2
            ),
        },
        targets,
    )


def sections(results: Results) -> Iterator[tuple[str, str, list[str]]]:
    """Give what there is to show: a heading, a plot of it or nothing, and a table."""
    yield (
        "Responses a second",
        "throughput",
        throughput(results, AT_ONCE),
    )
    yield "Processor time of a request, µs", "cost", processor(results, tuple(GROWING))
    yield (
        "At 200 requests a second",
        "steady",
        steady(results),
    )
    yield (
        "With a device that takes 5 ms: responses a second",
        "",
        throughput(results, SLOW),
    )
    yield (
        "With a device that takes 5 ms: processor time of a request, µs",
        "",
        (processor(results, SLOW)),
    )
    yield "Memory", "memory", memory(results)
    idle: dict[str, dict[str, float]] = results.all.get("idle", {})
    yield (
        "Idle, with 8 clients connected",
        "",
        table(
            "",
            {
                "wake-ups a minute": lambda t: f"{idle[t]['wakeups'] * 60:.0f}",
                "processor time a minute, ms": lambda t: (
                    f"{idle[t]['cpu_ms'] * 60:.1f}"
                ),
            },
            list(idle),
        )
        if idle
        else [],
    )
    holds: dict[str, Figures] = results.all.get("holds", {})
    yield (
        "Longest hold of Home Assistant's event loop, ms",
        "",
        table("load", {"ms": lambda load: cell(holds[load], 2)}, list(holds))
        if holds
        else [],
    )


ALT = {
    "throughput": "Responses a second of each program, by number of clients",
    "cost": "Processor time of a request of each program, from 1 to 1,000 clients",
    "steady": "What each program adds to the response time at 200 requests a second",
    "memory": "What each client adds to the memory of each program",
}


def busy(share: float) -> list[str]:
    """Say so if the machine had other things to do."""
    warning = (
        f"**The machine was busy with other work, for {share:.0%} of its processor time "
        "when this began:** all figures are worse for that, and ratios less certain."
    )
    return ["", warning] if share > QUIET else []


def text(results: Results, *, plots: bool) -> str:
    """Return all of it as Markdown."""
    machine: dict[str, str] = results.all["machine"]
    wrong, responses = results.total("wrong"), results.total("responses")
    about = (
        f"Measured on {machine['date']}: {machine['processor']}, of which one is used; "
        f"Linux {machine['system']}, Python {machine['python']}, "
        f"uvloop {machine['uvloop']}, modbus-proxy {machine['modbus-proxy']}; "
        f"{results.all['rounds']} rounds. "
        f"Of {responses:,} responses, {wrong:,} were wrong."
    )
    lines = [about]
    lines += busy(results.all["busy"])
    for heading, plot, rows in sections(results):
        if rows:
            lines += ["", f"## {heading}", ""]
            if plot and plots:
                lines += [f"![{ALT[plot]}](images/benchmark-{plot}.svg)", ""]
            lines += rows
    return "\n".join(lines) + "\n"


# ---- plots ---------------------------------------------------------------------------


def spread(figures: Figures) -> tuple[float, float, float]:
    """Return lowest, median and highest."""
    return min(figures), median(figures), max(figures)


def plot(results: Results) -> None:
    """Draw the plots of the documentation."""
    targets = [t for t in results.targets(DIRECT) if t in COLOURS]
    doubtful = results.all["busy"] > QUIET
    with Drawing(IMAGES / "benchmark-cost.svg", 3.6, doubtful=doubtful) as drawing:
        drawing.lines(
            "processor time of a request, µs",
            "clients",
            {
                target: {
                    GROWING[case]: spread(results.figures(case, target, "cpu_us"))
                    for case in GROWING
                }
                for target in targets
            },
        )
    with Drawing(
        IMAGES / "benchmark-throughput.svg", 3.4, doubtful=doubtful
    ) as drawing:
        drawing.bars(
            "responses a second",
            {
                case.replace(", ", "\n"): {
                    target: spread(results.figures(case, target, "per_second"))
                    for target in targets
                    if results.has(case, target)
                }
                for case in AT_ONCE
            },
        )
    with Drawing(
        IMAGES / "benchmark-steady.svg", 2.4, panels=2, doubtful=doubtful
    ) as drawing:
        drawing.ranks(
            "added to the response time, median, µs",
            {t: spread([f * 1e3 for f in results.added_ms(t)]) for t in targets},
        )
        drawing.ranks(
            "processor time of a request, µs",
            {t: spread(results.figures(STEADY, t, "cpu_us")) for t in targets},
        )
    with Drawing(
        IMAGES / "benchmark-memory.svg", 2.4, panels=2, doubtful=doubtful
    ) as drawing:
        for case in ("500 clients", "1,000 clients"):
            drawing.ranks(
                f"memory of each of {case}, KiB",
                {t: spread(results.client_kib(t, case)) for t in targets},
            )


def main() -> None:
    """Show results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    results = Results(given.results)
    print(text(results, plots=False), end="")
    if given.docs:
        plot(results)
        head = PAGE.read_text().partition(GENERATED)[0]
        PAGE.write_text(f"{head}{GENERATED}\n{text(results, plots=True)}")


if __name__ == "__main__":
    main()
