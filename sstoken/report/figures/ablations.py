"""The papers' ablations, a figure each: γ (3a), ρ by method (3b), attention layer, history, attention-only start."""

from __future__ import annotations

import pandas as pd

from sstoken.experiment.conditions import is_setting
from sstoken.report.figures.style import INK, QUIET, Drawn, LeftOut, Look, legend_below, panels, whiskers
from sstoken.report.numbers import number
from sstoken.report.results import Results

SYMBOLS = {"loss_weight": "loss weight γ", "keep_ratio": "keep ratio ρ"}


def draw(results: Results) -> list[Drawn | LeftOut]:
    if not results.facts.ablations:
        return [LeftOut("ablations", "Ablations", "this configuration asks for none")]
    # settings of data and training are compared with full at the same value: sstoken.report.figures.when
    asked = [(a["name"], a["option"]) for a in results.facts.ablations if not is_setting(a["option"])]
    return [_ablation(results, name, option) for name, option in asked]


def _ablation(results: Results, name: str, option: str) -> Drawn | LeftOut:
    axis_title = SYMBOLS.get(option.rpartition(".")[2], option.replace("_", " "))
    title = f"Ablation: {axis_title}"
    table, models = results.ablation(name, "estimate")
    if not models:
        return LeftOut(f"ablation-{name}", title, "none of its runs is there yet")
    numbers = pd.to_numeric(table["value"], errors="coerce")
    numeric = bool(numbers.notna().all())
    names = list(dict.fromkeys(table["value"]))
    table = table.assign(x=numbers if numeric else table["value"].map(names.index))
    look = Look(results.facts)
    figure, axes = panels(len(models), height=2.0)
    for axis, model in zip(axes, models, strict=True):
        mine = table[table["model"] == model]
        methods = list(dict.fromkeys(mine["method"]))
        for place, method in enumerate(methods):
            rows = mine[mine["method"] == method].sort_values("x")
            # side by side where intervals would hide each other
            shift = (place - (len(methods) - 1) / 2) * 0.012 * max(table["x"].max() - table["x"].min(), 1e-9)
            style = look(method) | ({} if numeric else {"linestyle": "none"})
            axis.errorbar(rows["x"] + shift, rows["estimate"], yerr=whiskers(rows), elinewidth=0.6, **style)
        if (full := results.average(model, "full")) is not None:
            axis.axhline(full["estimate"], color=QUIET, lw=0.7, ls=(0, (4, 2)), label="all tokens (full)")
        if numeric:
            axis.set_xticks(sorted(set(table["x"])), [f"{x:g}" for x in sorted(set(table["x"]))])
        else:
            axis.set_xticks(range(len(names)), names, rotation=20 if max(map(len, names)) > 8 else 0)
            axis.margins(x=0.2)
        axis.set_title(model)
        axis.set_xlabel(axis_title)
    axes[0].set_ylabel("average score, %", color=INK)
    legend_below(figure, axes)
    best = table.loc[table.groupby(["model", "method"], sort=False)["estimate"].idxmax()]
    words = [f"{r.model}, {r.method}: highest at {r.value} ({number(r.estimate, 1)})" for r in best.itertuples()]
    caption = f"Average score (95 % interval) over {axis_title}; everything else as in the main table."
    return Drawn(f"ablation-{name}", title, caption, f"Average score over {axis_title}. {'; '.join(words)}.", figure)
