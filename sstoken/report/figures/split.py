"""The split experiment's figure: answers right against bytes sent, and retention over K."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sstoken.report.figures.style import COLOURS, INK, MARKERS, QUIET, Drawn, legend_below, panels, save, styled


def draw(frame: pd.DataFrame, folder: Path) -> None:
    """``split.svg``, ``.pdf`` and ``.png``: means over seeds, bars from the lowest seed to the highest."""
    with styled():
        figure, (left, right) = panels(2, height=2.0)
        part = frame[~frame["choice"].isin(["none", "all"])]
        means = frame.groupby(["keep", "choice"])["right"].agg(["mean", "min", "max"]).mul(100).reset_index()
        sent = part.groupby("keep")["bytes"].mean()
        for place, choice in enumerate(part["choice"].unique()):
            rows = means[means["choice"] == choice]
            bars = [rows["mean"] - rows["min"], rows["max"] - rows["mean"]]
            style = {"color": COLOURS[place], "marker": MARKERS[place], "elinewidth": 0.7, "label": choice}
            left.errorbar(sent.loc[rows["keep"]] / 2**10, rows["mean"], yerr=bars, **style)
        for choice, style, name in (("all", "--", "all sent"), ("none", ":", "untrained")):
            left.axhline(
                float(means.loc[means["choice"] == choice, "mean"].iloc[0]), color=QUIET, lw=0.7, ls=style, label=name
            )
        left.set_xlabel("KiB sent a step, all clients")
        left.set_ylabel("answers right, %", color=INK)
        kept = part.groupby("keep")["retention"].mean()
        right.plot(kept.index, kept, color=INK, marker=".")
        right.set_xlabel("K, prompt states kept")
        right.set_ylabel("retention f(K)", color=INK)
        legend_below(figure, [left], columns=3)
        save(
            Drawn("split", "Split fine-tuning", "", "Answers right against bytes sent; retention over K.", figure),
            folder,
        )
