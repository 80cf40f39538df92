"""What scores do over training, and what is selected meanwhile."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sstoken.report.figures.style import INK, QUIET, Drawn, LeftOut, Look, legend_below, panels
from sstoken.report.numbers import share
from sstoken.report.results import Results

TITLE = "Scores of kept and dropped tokens over training"
BINS = 20
# log keys come in pairs <part>_kept, <part>_dropped; attention is a share, all else is in nats
ATTENTION = "attention_mass"


def draw(results: Results) -> list[Drawn | LeftOut]:
    return [*_scores(results), *_selected(results)]


def _gaps(results: Results, model: str, method: str) -> dict[str, pd.Series]:
    """signal -> mean over kept minus mean over dropped tokens, in BINS stretches of training, mean over seeds."""
    logs = results.logs(model, method)
    if not logs:
        return {}
    log = pd.concat(logs)
    stretch = np.ceil(log["progress"] * BINS).astype(int)
    parts = [c.removesuffix("_kept") for c in log.columns if c.endswith("_kept") and c != "loss_kept"]
    return {
        part: (log[f"{part}_kept"] - log[f"{part}_dropped"]).groupby(stretch).mean().dropna()
        for part in parts
        if f"{part}_dropped" in log
    }


def _scores(results: Results) -> list[Drawn | LeftOut]:
    drawn = [_model_scores(results, model) for model in results.facts.models]
    return [figure for figure in drawn if figure] or [LeftOut("trajectory", TITLE, "no training log has scores")]


def _model_scores(results: Results, model: str) -> Drawn | None:
    facts, look = results.facts, Look(results.facts)
    gaps = {method: found for method in facts.contenders if (found := _gaps(results, model, method))}
    parts = {part for found in gaps.values() for part in found}
    rows = [("loss signal, nats", parts - {ATTENTION}), ("attention mass", parts & {ATTENTION})]
    rows = [(label, members) for label, members in rows if members]
    if not rows:
        return None
    figure, axes = panels(len(rows), height=1.7)
    for axis, (label, members) in zip(axes, rows, strict=True):
        for method, found in gaps.items():
            for part in sorted(members & found.keys()):
                axis.plot(found[part].index * 100 / BINS, found[part], **look(method), markevery=4, markersize=3)
        axis.axhline(0, color=QUIET, lw=0.5)
        axis.set_xticks([0, 50, 100])
        axis.set_title(label)
        axis.set_xlabel("share of training, %")
    axes[0].set_ylabel("kept minus dropped", color=INK)
    legend_below(figure, axes)
    caption = (
        f"{model}: how far the scores of kept tokens stand above those of dropped ones, over training (mean over seeds). "
        "Loss signals: history minus current (ssToken's), current or base minus reference (RHO-1's, TokenCleaning's). A "
        "gap that grows means that a method sees ever more difference between tokens, not that it is right."
    )
    alt = f"Lines of the score gap between kept and dropped tokens over training on {model}, a panel a signal."
    return Drawn(f"trajectory-{model}", f"{TITLE}: {model}", caption, alt, figure)


def _selected(results: Results) -> list[Drawn | LeftOut]:
    title = "What is selected over training"
    table = results.selection
    table = table[(table["phase"] != "all") & table["method"].isin(results.facts.contenders)]
    if table.empty:
        return [LeftOut("selected", title, "the data does not say which tokens are noise")]
    return [
        _phases(results, model, table[table["model"] == model], title)
        for model in results.facts.models
        if model in set(table["model"])
    ]


def _phases(results: Results, model: str, table: pd.DataFrame, title: str) -> Drawn:
    look = Look(results.facts)
    kinds = [k for k in dict.fromkeys(table["kind"]) if k != "all"]
    shown = [("all", "recall", "clean tokens"), *((kind, "kept", kind.replace("_", " ")) for kind in kinds)]
    if table["teaching_kept"].notna().any():
        shown.insert(1, ("all", "teaching_kept", "tokens that teach"))
    figure, axes = panels(len(shown), height=1.3, columns=3, sharex=True, sharey=True)
    for axis, (kind, column, name) in zip(axes, shown, strict=True):
        for method in results.facts.contenders:
            rows = table[(table["method"] == method) & (table["kind"] == kind)].sort_values("phase")
            if not rows.empty:
                axis.plot(rows["phase"].astype(int), 100 * rows[column], **look(method), markersize=2.6)
        axis.set_title(name)
        axis.set_xticks(sorted(table["phase"].astype(int).unique()))
        axis.set_ylim(-4, 104)
    figure.supylabel("kept, %", fontsize=6.5)
    for axis in axes[-3:]:
        axis.set_xlabel("fifth of training")
    legend_below(figure, axes)
    last = table[(table["phase"] == table["phase"].max()) & (table["kind"] == "all")]
    words = [f"{r.method} {share(r.recall)}" for r in last.itertuples() if pd.notna(r.recall)]
    caption = f"{model}: kept share of the clean tokens and of each kind of planted noise, by fifths of training."
    alt = f"Kept share by kind over fifths of training on {model}. Clean tokens kept in the last: {', '.join(words)}."
    return Drawn(f"selected-{model}", f"{title}: {model}", caption, alt, figure)
