"""The one look of all figures: column width, fonts, a marker and a colour a method; files with the same bytes each time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sstoken.records.files import atomic_write
from sstoken.report.results import Facts

WIDTH = 3.3  # inches: a column of the usual two-column paper
INK = "#1c1c1c"  # of axes and text; the page replaces it with its own ink
PAPER = "#ffffff"
QUIET = "#8a8a8a"

# Okabe and Ito's colours, told apart by colour-blind readers; in grey the markers tell
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*"]
LINES = ["-", "--", "-.", ":"]

SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 6.5,
    "axes.titlesize": 6.5,
    "axes.labelsize": 6.5,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "legend.handletextpad": 0.4,
    "legend.columnspacing": 1.0,
    "legend.labelspacing": 0.3,
    "axes.linewidth": 0.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 0.9,
    "lines.markersize": 3.6,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "figure.dpi": 300,  # laid out with the text metrics that are saved
    "savefig.dpi": 300,
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Drawn:
    """A figure and its words. name: of its files. alt: what it shows, for those who do not see it."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure | None


@dataclass(frozen=True)
class LeftOut:
    """A figure that cannot be drawn, and why."""

    name: str
    title: str
    why: str


class Look:
    """A method's marker, colour and line: its place among the grid's methods decides, so all figures agree."""

    def __init__(self, facts: Facts):
        self.facts = facts
        self.order = [*facts.contenders, *(m for m in facts.methods if m not in facts.contenders)]

    def __call__(self, method: str) -> dict:
        """Keyword arguments of ``plot`` and ``errorbar``; the bounds are hollow."""
        place = self.order.index(method) if method in self.order else len(self.order)
        colour = COLOURS[place % len(COLOURS)]
        hollow = method in self.facts.bounds or method in self.facts.untrained
        return {
            "color": QUIET if hollow else colour,
            "marker": MARKERS[place % len(MARKERS)],
            "markerfacecolor": PAPER if hollow else colour,
            "markeredgecolor": QUIET if hollow else colour,
            "markeredgewidth": 0.8,
            "linestyle": LINES[place % len(LINES)],
            "label": method,
        }

    def point(self, method: str) -> dict:
        return self(method) | {"linestyle": "none", "elinewidth": 0.7}


def styled():
    """Context in which every figure is drawn."""
    return matplotlib.rc_context(SETTINGS)


def panels(count: int, *, height: float, columns: int = 2, **options) -> tuple[Figure, list[Axes]]:
    """A column-wide figure with ``count`` panels, at most ``columns`` beside each other. height: inches a row."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, rows * height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.04, hspace=0.04)
    axes = figure.subplots(rows, columns, squeeze=False, **options).flatten()
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, list(axes[:count])


def whiskers(row: pd.Series | pd.DataFrame) -> list:
    """Distances from the estimate to both ends of its interval, as ``errorbar`` wants them."""
    low, high = row["estimate"] - row["low"], row["high"] - row["estimate"]
    return [[low], [high]] if isinstance(row, pd.Series) else [low.to_numpy(), high.to_numpy()]


def legend_below(figure: Figure, axes: list[Axes], columns: int = 2) -> None:
    """One legend for all panels, each entry once, under them."""
    entries = {label: handle for a in axes for handle, label in zip(*a.get_legend_handles_labels(), strict=True)}
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


def save(drawn: Drawn, folder: Path) -> None:
    """``<name>.svg``, ``.pdf`` and ``.png``, without dates or random ids."""
    figure = drawn.figure
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # laid out once, alike in all formats; an engine, even an idle one, would draw twice
    empty = {
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "png": {"Software": None},
    }
    for suffix, metadata in empty.items():
        salted = matplotlib.rc_context(SETTINGS | {"svg.hashsalt": drawn.name})
        with salted, atomic_write(folder / f"{drawn.name}.{suffix}") as temporary:
            figure.savefig(temporary, format=suffix, metadata=metadata)
