"""Draws plots that are small, always the same, and legible on light and dark pages."""

from pathlib import Path
from typing import Any, Self

import matplotlib as mpl
from matplotlib.figure import Figure

INK = "#808890"
"""For what is no data: seen on white as on black, as are all colours."""
COLOURS = {
    "modbus-proxy": "#d1662b",
    "pure": "#7fa8d9",
    "pure, uvloop": "#4a86cf",
    "compiled": "#45b08c",
    "compiled, uvloop": "#1f9d55",
    "in Home Assistant": "#b074d6",
    "bare forwarder": "#9aa0a6",
}

STAGES = {
    "kernel": "#7d8790",
    "event loop": "#d1662b",
    "connections": "#4a86cf",
    "codec": "#1f9d55",
    "queue": "#c99a1e",
    "dispatcher": "#b074d6",
    "recorder": "#d6517d",
}

type Spread = tuple[float, float, float]
"""Lowest, median and highest."""

mpl.rcParams.update(
    {
        "svg.hashsalt": "tcp_multiplexer",
        "svg.fonttype": "none",  # text stays text
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "grid.color": INK,
        "grid.alpha": 0.3,
        "grid.linewidth": 0.6,
    }
)


class Drawing:
    """A plot, or several beside each other; it is written at the end of the `with`."""

    def __init__(
        self, file: Path, height: float, *, panels: int = 1, doubtful: bool = False
    ) -> None:
        """Make a file of this height, in inches; say if its figures are doubtful."""
        self._file = file
        self._figure = Figure(figsize=(7.2, height), layout="constrained")
        if doubtful:
            self._figure.suptitle(
                "The machine was busy with other work: worse than it is",
                color="#d1662b",
                fontsize=9,
            )
        self._panels: list[Any] = list(
            self._figure.subplots(1, panels, squeeze=False)[0]
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._figure.savefig(
                self._file,
                transparent=True,
                metadata={"Date": None, "Creator": None},
            )

    def lines(self, title: str, label: str, data: dict[str, dict[int, Spread]]) -> None:
        """Draw a line for each target, with its range, over a logarithmic axis."""
        axes = self._panels.pop(0)
        for name, points in data.items():
            colour = COLOURS[name]
            x = list(points)
            low, middle, high = zip(*points.values(), strict=True)
            axes.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
            dashes = "--" if name == "bare forwarder" else "-"
            axes.plot(x, middle, dashes, color=colour, marker="o", markersize=3)
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{n:,}" for n in x])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel(label)
        axes.set_title(title, loc="left", fontsize=9)
        axes.grid(axis="y")
        self._name_lines(axes, data)

    def _name_lines(self, axes: Any, data: dict[str, dict[int, Spread]]) -> None:
        """Name each line at its right end, no two over each other."""
        top = axes.get_ylim()[1]
        at = -top
        ends = {name: list(points.values())[-1][1] for name, points in data.items()}
        for name in sorted(ends, key=ends.__getitem__):
            at = max(ends[name], at + top * 0.06)
            axes.annotate(
                name,
                (max(data[name]), at),
                xytext=(8, 0),
                textcoords="offset points",
                verticalalignment="center",
                color=COLOURS[name],
                annotation_clip=False,
            )

    def bars(self, title: str, data: dict[str, dict[str, Spread]]) -> None:
        """Draw groups of bars, with their ranges."""
        axes = self._panels.pop(0)
        names = list(dict.fromkeys(name for group in data.values() for name in group))
        width = 0.86 / len(names)
        for place, name in enumerate(names):
            groups = [at for at, group in enumerate(data.values()) if name in group]
            spreads = [group[name] for group in data.values() if name in group]
            low, middle, high = zip(*spreads, strict=True)
            axes.bar(
                [at + (place - (len(names) - 1) / 2) * width for at in groups],
                middle,
                width * 0.9,
                color=COLOURS[name],
                label=name,
                yerr=errors(low, middle, high),
                error_kw={"ecolor": INK, "elinewidth": 1},
            )
        axes.set_xticks(range(len(data)), data)
        axes.yaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
        axes.tick_params(axis="x", length=0)
        axes.set_title(title, loc="left", fontsize=9)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        self._figure.legend(fontsize=8, ncols=4, loc="outside lower center")

    def ranks(self, title: str, data: dict[str, Spread]) -> None:
        """Draw a bar below the other, with figures and ranges."""
        axes = self._panels.pop(0)
        low, middle, high = zip(*data.values(), strict=True)
        names = list(data)
        bars = axes.barh(
            names,
            middle,
            0.7,
            color=[COLOURS[name] for name in names],
            xerr=errors(low, middle, high),
            error_kw={"ecolor": INK, "elinewidth": 1},
        )
        digits = 0 if max(middle) >= 20 else 2
        for bar, value, end in zip(bars, middle, high, strict=True):
            axes.annotate(
                f"{value:,.{digits}f}",
                (max(end, 0), bar.get_y() + bar.get_height() / 2),
                xytext=(5, 0),
                textcoords="offset points",
                verticalalignment="center",
                fontsize=8,
            )
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_title(title, loc="left", fontsize=9)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_axisbelow(True)

    def stacks(self, title: str, data: dict[str, dict[str, float]]) -> None:
        """Draw what adds up to each bar, with the larger figures."""
        axes = self._panels.pop(0)
        names = list(data)
        at = dict.fromkeys(names, 0.0)
        most = max(sum(parts.values()) for parts in data.values())
        for stage, colour in STAGES.items():
            widths = [data[name][stage] for name in names]
            bars = axes.barh(
                names, widths, 0.7, left=list(at.values()), color=colour, label=stage
            )
            for bar, name, width in zip(bars, names, widths, strict=True):
                if width > most / 30:
                    axes.annotate(
                        f"{width:.1f}",
                        (at[name] + width / 2, bar.get_y() + bar.get_height() / 2),
                        color="white",
                        fontsize=8,
                        horizontalalignment="center",
                        verticalalignment="center",
                    )
                at[name] += width
        axes.invert_yaxis()
        axes.set_title(title, loc="left", fontsize=9)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        self._figure.legend(fontsize=8, ncols=7, loc="outside lower center")


def errors(
    low: tuple[float, ...], middle: tuple[float, ...], high: tuple[float, ...]
) -> list[list[float]]:
    """Return how far ranges reach to both sides."""
    return [
        [b - a for a, b in zip(low, middle, strict=True)],
        [b - a for a, b in zip(middle, high, strict=True)],
    ]
