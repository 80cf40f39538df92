"""Method minus full-data training, with intervals: over models, and for each model over its benchmarks."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from sstoken.report.figures import style
from sstoken.report.figures.style import Drawn, LeftOut, legend_below, panels, whiskers
from sstoken.report.numbers import row_difference
from sstoken.report.results import AVERAGE, Results

TITLE = "Method minus full-data training"


def draw(results: Results) -> list[Drawn | LeftOut]:
    table = results.against("full")
    methods = [m for m in results.facts.methods if m in set(table["method"])]
    models = [m for m in results.facts.models if m in set(table["model"])]
    if not methods:
        return [LeftOut("forest", TITLE, "no method can be compared with full yet")]
    return [_averages(table, models, methods), *(_benchmarks(table, model, methods) for model in models)]


def _averages(table: pd.DataFrame, models: list[str], methods: list[str]) -> Drawn:
    table = table[table["benchmark"] == AVERAGE]
    figure, (axis,) = panels(1, height=0.75 + 0.16 * len(methods))
    step = 0.6 / max(len(models), 1)
    words = []
    for place, model in enumerate(models):
        rows = table[table["model"] == model].set_index("method")
        shift = (place - (len(models) - 1) / 2) * step
        _points(
            axis,
            rows,
            methods,
            shift,
            style.COLOURS[place % len(style.COLOURS)],
            style.MARKERS[place % len(style.MARKERS)],
            model,
        )
        words += [f"{model}, {m}: {row_difference(rows.loc[m])}" for m in methods if m in rows.index]
    _finish(axis, methods)
    axis.set_xlabel("average score minus full's, percent points", color=style.INK)
    legend_below(figure, [axis])
    caption = (
        "Difference of the average score to full-data training with its 95 % interval, a marker a model. Filled: "
        "significant after Holm's correction; hollow: not."
    )
    return Drawn("forest", TITLE, caption, f"Forest plot. {'; '.join(words)}.", figure)


def _benchmarks(table: pd.DataFrame, model: str, methods: list[str]) -> Drawn:
    table = table[table["model"] == model]
    benchmarks = [AVERAGE, *(b for b in dict.fromkeys(table["benchmark"]) if b != AVERAGE)]
    figure, axes = panels(len(benchmarks), height=0.42 + 0.105 * len(methods), columns=3, sharey=True)
    for place, (axis, benchmark) in enumerate(zip(axes, benchmarks, strict=True)):
        rows = table[table["benchmark"] == benchmark].set_index("method")
        _points(axis, rows, methods, 0, style.COLOURS[0], "o", None)
        _finish(axis, methods, invert=place == 0, ticks=3)
        axis.set_title(benchmark, fontweight="bold" if benchmark == AVERAGE else "normal")
    figure.supxlabel("score minus full's, percent points", fontsize=6.5)
    real = table[table["significant"] & (table["benchmark"] != AVERAGE)]
    alt = (
        f"Forest plots of {model}, a panel a benchmark: of {len(table[table['benchmark'] != AVERAGE])} differences "
        f"{int((real['estimate'] > 0).sum())} are significant gains and {int((real['estimate'] < 0).sum())} losses."
    )
    caption = (
        f"{model}: difference to full-data training on each benchmark, 95 % intervals. Filled: significant after Holm's "
        "correction. Each panel has its own scale."
    )
    return Drawn(f"forest-{model}", f"{TITLE}, by benchmark: {model}", caption, alt, figure)


def _points(axis: Axes, rows: pd.DataFrame, methods: list[str], shift: float, colour: str, marker: str, label) -> None:
    for place, method in enumerate(methods):
        if method not in rows.index:
            continue
        row = rows.loc[method]
        face = colour if bool(row["significant"]) else style.PAPER
        look = {"color": colour, "marker": marker, "markerfacecolor": face, "markeredgewidth": 0.8, "elinewidth": 0.8}
        axis.errorbar(row["estimate"], place + shift, xerr=whiskers(row), markersize=3, linestyle="none", **look)
    if label:
        axis.plot([], [], color=colour, marker=marker, linestyle="none", markersize=3, label=label)


def _finish(axis: Axes, methods: list[str], *, invert: bool = True, ticks: int = 6) -> None:
    axis.axvline(0, color=style.QUIET, lw=0.7, zorder=0)
    axis.set_yticks(range(len(methods)), methods)
    axis.tick_params(axis="y", length=0)
    if invert:
        axis.set_ylim(len(methods) - 0.4, -0.6)
    axis.spines["left"].set_visible(False)
    axis.locator_params(axis="x", nbins=ticks)
