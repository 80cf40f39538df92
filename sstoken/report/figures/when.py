"""When does it help?  Each method minus full-data training at the same value of an ablation, one line a method."""

from __future__ import annotations

import pandas as pd

from sstoken.experiment.conditions import is_setting
from sstoken.report.figures.style import INK, QUIET, Drawn, LeftOut, Look, legend_below, panels
from sstoken.report.numbers import plain, signed
from sstoken.report.results import Results

SYMBOLS = {"keep_ratio": "keep ratio ρ", "epochs": "passes over the data"}


def draw(results: Results) -> list[Drawn | LeftOut]:
    """Of every setting that is varied, and of every method's option that is varied for several methods."""
    table = results.ablations
    asked = [(a["name"], a["option"]) for a in results.facts.ablations]
    several = table.groupby("ablation")["method"].nunique() > 1
    return [_figure(results, *one) for one in asked if is_setting(one[1]) or several.get(one[0], False)]


def _figure(results: Results, name: str, option: str) -> Drawn | LeftOut:
    title = f"When does it help? Over {name}"
    table, models = results.ablation(name, "minus_full")
    if not models:
        return LeftOut(f"when-{name}", title, "none of its runs is there yet with full beside it")
    table, ticks, axis_title, log = _places(table, option)
    look = Look(results.facts)
    figure, axes = panels(len(models), height=2.1, columns=1, sharex=True)
    for axis, model in zip(axes, models, strict=True):
        mine = table[table["model"] == model]
        methods = [m for m in look.order if m in set(mine["method"])]
        methods += [m for m in dict.fromkeys(mine["method"]) if m not in methods]
        for place, method in enumerate(methods):
            rows = mine[mine["method"] == method].sort_values("x")
            # side by side where intervals would hide each other
            shift = (place - (len(methods) - 1) / 2) * 0.012
            x = rows["x"] * 2 ** (6 * shift) if log else rows["x"] + shift * max(max(ticks) - min(ticks), 1e-9)
            gap = rows["minus_full"]
            ends = [(gap - rows["minus_full_low"]).fillna(0), (rows["minus_full_high"] - gap).fillna(0)]
            style = look(method) | ({"linestyle": "none"} if isinstance(ticks, dict) else {})
            axis.errorbar(x, gap, yerr=ends, elinewidth=0.5, markersize=3, **style)
        axis.axhline(0, color=QUIET, lw=0.7, zorder=0)
        if log:
            axis.set_xscale("log")
        axis.set_xticks(
            list(ticks), [ticks[x] for x in ticks] if isinstance(ticks, dict) else [f"{x:g}" for x in ticks]
        )
        axis.minorticks_off()
        axis.set_title(model)
        axis.set_ylabel("minus full, points", color=INK)
    axes[-1].set_xlabel(axis_title)
    legend_below(figure, axes, columns=3)
    best = table.loc[table.groupby(["model", "value"], sort=False)["minus_full"].idxmax()]
    words = [f"{r.model}, {r.value}: {r.method} highest ({signed(r.minus_full, 1)})" for r in best.itertuples()]
    caption = (
        "Average score minus that of full-data training at the same value, percent points, with the 95 % interval, paired by "
        "question and seed. Above the line: better than training on everything."
    )
    return Drawn(f"when-{name}", title, caption, f"Method minus full over {name}. {'; '.join(words)}.", figure)


def _places(table: pd.DataFrame, option: str) -> tuple[pd.DataFrame, dict | list, str, bool]:
    """(the table with its places ``x``, the ticks: a list of numbers or {place: word}, the axis' title, logarithmic or not)."""
    numbers = pd.to_numeric(table["value"], errors="coerce")
    if numbers.isna().any():
        names = list(dict.fromkeys(table["value"]))
        ticks = {place: name.replace("_", " ") for place, name in enumerate(names)}
        return (
            table.assign(x=table["value"].map(names.index)),
            ticks,
            option.rpartition(".")[2].replace("_", " "),
            False,
        )
    table = table.assign(value=numbers.map(plain))
    noise = 100 * table.groupby("value", sort=False)["noise"].transform("mean")
    if is_setting(option) and noise.notna().all() and noise.round(1).nunique() == table["value"].nunique() > 1:
        return table.assign(x=noise), sorted(set(noise.round(0))), "noise, % of the response tokens", False
    last = option.rpartition(".")[2]
    log = bool(numbers.min() > 0 and numbers.max() / numbers.min() >= 8)
    return table.assign(x=numbers), sorted(set(numbers)), SYMBOLS.get(last, last.replace("_", " ")), log
