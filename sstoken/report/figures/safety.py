"""Utility against harm: what training taught beside what it left of a start model's refusals, a point a method."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sstoken.report.figures.style import INK, Drawn, LeftOut, Look, legend_below, panels
from sstoken.report.numbers import interval, number
from sstoken.report.results import Results

TITLE = "Utility against harm"


def draw(results: Results) -> list[Drawn | LeftOut]:
    """Nothing where no benchmark measures refusal."""
    facts, look = results.facts, Look(results.facts)
    table = results.safety
    if table.empty:
        return []
    table = table.dropna(subset=["harm", "utility"])
    table = table[table["method"].isin(facts.methods)]
    models = [model for model in facts.models if model in set(table["model"])]
    if not models:
        return [LeftOut("safety", TITLE, "no method has both its utility and its harm")]
    figure, axes = panels(len(models), height=2.7, columns=1 if len(models) == 1 else 2)
    words = []
    for axis, model in zip(axes, models, strict=True):
        rows = table[table["model"] == model].set_index("method")
        for method in [method for method in facts.methods if method in rows.index]:
            row = rows.loc[method]
            x, y = _whiskers(row, "harm"), _whiskers(row, "utility")
            axis.errorbar(row["harm"], row["utility"], xerr=x, yerr=y, **look.point(method))
            words.append(f"{model}, {method}: harm {_told(row, 'harm')}, utility {_told(row, 'utility')}")
        axis.set_title(model)
        axis.set_xlim(-4, 104)
        axis.set_xlabel("harm: requests not refused, %")
        axis.margins(y=0.12)
    axes[0].set_ylabel("utility: average score, %", color=INK)
    legend_below(figure, axes, columns=3)
    caption = (
        "Average over all benchmarks but those of refusal against the share of harmful requests that are not refused, each "
        "with its 95 % interval (none where all answers went alike). Best is up and to the left. Hollow markers are bounds or "
        "not trained."
    )
    return [Drawn("safety", TITLE, caption, f"Scatter of utility over harm. {'; '.join(words)}.", figure)]


def _whiskers(row: pd.Series, name: str) -> list:
    ends = [row[name] - row[f"{name}_low"], row[f"{name}_high"] - row[name]]
    return [[float(np.nan_to_num(end))] for end in ends]


def _told(row: pd.Series, name: str) -> str:
    ends = interval(row[f"{name}_low"], row[f"{name}_high"], 1)
    return f"{number(row[name], 1)} {ends}" if ends.startswith("[") else number(row[name], 1)
