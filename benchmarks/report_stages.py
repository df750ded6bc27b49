"""Makes tables and a plot of what stages.py has measured.

report_stages.py RESULTS           prints tables
report_stages.py RESULTS --docs    and writes docs/profile.md and its plot
"""

import argparse
from collections import Counter
import json
from pathlib import Path
from statistics import median
import sys
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.drawing import STAGES, Drawing  # noqa: E402
from benchmarks.report import QUIET, busy  # noqa: E402

PAGE = ROOT / "docs" / "profile.md"
PLOT = ROOT / "docs" / "images" / "profile.svg"
GENERATED = "<!-- Below: made by benchmarks/stages.py --docs -->\n"
FUNCTIONS = 10
"""So many of a build are named."""


def stages(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return what each stage costs, in microseconds, by build."""
    costs = {}
    for name, runs in results["totals"].items():
        engine = results["engines"][name.partition(",")[0]]
        counted: Counter[str] = Counter()
        for stage, _, count in engine["samples"]:
            counted[stage] += count
        total = median(run["cost"] for run in runs)
        own = {
            stage: counted[stage] / counted.total() * engine["cost"] for stage in STAGES
        }
        ticks = sum(run["ticks"] for run in runs)
        own["kernel"] = total * sum(run["kernel_ticks"] for run in runs) / ticks
        own["event loop"] = total - own["kernel"] - engine["cost"]
        costs[name] = own
    return costs


def text(results: dict[str, Any], *, plots: bool) -> str:
    """Return all of it as Markdown."""
    machine, costs = results["machine"], stages(results)
    about = (
        f"Measured on {machine['date']}: {machine['processor']}, of which one is used; "
        f"Linux {machine['system']}, Python {machine['python']}, "
        f"uvloop {machine['uvloop']}."
    )
    lines = [
        about,
        *busy(results["busy"]),
        *("", "## Stages, µs a request", ""),
    ]
    if plots:
        lines += ["![What each stage of a request costs](images/profile.svg)", ""]
    lines += [
        f"| | {' | '.join(costs)} |",
        f"| --- |{' --: |' * len(costs)}",
    ]
    for stage in STAGES:
        cells = [
            f"{cost[stage]:.1f} ({cost[stage] / sum(cost.values()):.0%})"
            for cost in costs.values()
        ]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    totals = []
    for name in costs:
        figures = [run["cost"] for run in results["totals"][name]]
        totals.append(
            f"**{median(figures):.1f}** ({min(figures):.1f} to {max(figures):.1f})"
        )
    lines.append(f"| all | {' | '.join(totals)} |")
    for name, engine in results["engines"].items():
        count = sum(n for *_, n in engine["samples"])
        lines += [
            *("", f"## The engine, {name}: functions that cost most", ""),
            f"Of {engine['cost']:.2f} µs, in {count:,} samples:",
            *("", "| function | stage | share |", "| --- | --- | --: |"),
        ]
        lines += [
            f"| `{function}` | {stage} | {n / count:.1%} |"
            for stage, function, n in engine["samples"][:FUNCTIONS]
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Show results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    results = json.loads(given.results.read_text())
    print(text(results, plots=False), end="")
    if given.docs:
        with Drawing(PLOT, 2.8, doubtful=results["busy"] > QUIET) as drawing:
            drawing.stacks("processor time of a request, µs", stages(results))
        head = PAGE.read_text().partition(GENERATED)[0]
        PAGE.write_text(f"{head}{GENERATED}\n{text(results, plots=True)}")


if __name__ == "__main__":
    main()
