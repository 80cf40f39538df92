"""Planted noise by kind: how well each method's scores tell it from clean tokens, and how much of it is kept."""

from __future__ import annotations

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes

from sstoken.report.figures.style import Drawn, LeftOut, panels
from sstoken.report.results import Results

TITLE = "Noise recovered, by kind"
# neither is the style's ink or paper, which the page turns round in the dark: a cell keeps its own colours
DARK, LIGHT = "#101010", "#fdfdfd"
TOP = 1.15  # the value of the darkest shade


def draw(results: Results) -> list[Drawn | LeftOut]:
    table = results.selection[results.selection["phase"] == "all"]
    models = [m for m in results.facts.models if m in set(table["model"])]
    if not models:
        return [LeftOut("noise", TITLE, "the data does not say which tokens are noise")]
    return [_model(results, model, table[table["model"] == model]) for model in models]


def _model(results: Results, model: str, table: pd.DataFrame) -> Drawn:
    methods = [m for m in results.facts.methods if m in set(table["method"])]
    kinds = list(dict.fromkeys(["all", *table["kind"]]))
    figure, axes = panels(2, height=0.55 + 0.135 * len(methods), columns=1)
    # kinds counted alike, and without tokens that are always clean where these are known
    auc = table["auc_open"].fillna(table["auc"])
    table = table.assign(auc=auc.where(table["kind"] != "all", table["auc_kinds"].fillna(auc)))
    for axis, column, title in zip(
        axes, ["auc", "kept"], ["AUC by kind (all: mean of the kinds)", "noise kept, %"], strict=True
    ):
        values = table.pivot(index="method", columns="kind", values=column).reindex(index=methods, columns=kinds)
        _cells(axis, values, percent=column == "kept")
        axis.set_title(title, loc="left")
    axes[0].tick_params(labelbottom=False)
    scored = table[(table["kind"] == "all") & table["auc"].notna() & table["method"].isin(results.facts.contenders)]
    best = scored.loc[scored["auc"].idxmax()] if not scored.empty else None
    words = f" Highest mean AUC of the kinds: {best['method']}, {best['auc']:.2f}." if best is not None else ""
    caption = (
        f"{model}. Above: the chance that a clean token scores higher than a noise token of the kind in its sample; below 0.5 "
        "noise is preferred; empty where a method gives all tokens one score. all: the mean of the kinds, each counted alike. "
        "Below: the share of noise tokens that were trained on."
    )
    alt = f"Two number grids, methods by kinds of noise, on {model}.{words}"
    return Drawn(f"noise-{model}", f"{TITLE}: {model}", caption, alt, figure)


def _cells(axis: Axes, values: pd.DataFrame, *, percent: bool) -> None:
    """Numbers on shaded cells: the figure reads without its colours."""
    shades = colormaps["Blues"]
    axis.pcolormesh(values.to_numpy(dtype=float), cmap=shades, vmin=0, vmax=TOP, edgecolor="white", linewidth=0.8)
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            value = values.iat[row, column]
            if pd.notna(value):
                text = f"{100 * value:.0f}" if percent else f"{value:.2f}"
                colour = LIGHT if _luminance(shades(value / TOP)) < 0.18 else DARK
                axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontsize=5.8)
    axis.set_yticks([y + 0.5 for y in range(len(values))], values.index)
    axis.set_xticks(
        [x + 0.5 for x in range(values.shape[1])],
        [k.replace("_", " ") for k in values.columns],
        rotation=25,
        ha="right",
    )
    axis.invert_yaxis()
    axis.tick_params(length=0)
    axis.tick_params(axis="x", pad=1)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _luminance(colour: tuple[float, ...]) -> float:
    """WCAG's relative luminance: below 0.18 white text is the better read."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
