"""Does what an audit says before training tell how methods end up? Rank correlations with their final scores.

Shapes: M methods, A models, B bootstrap draws.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from sstoken.report.numbers import interval, signed
from sstoken.report.question_scores import AVERAGE

FULL = "full"
BLIND = 0.5
"""AUC of full-data training, which scores every token alike."""
SIGNS = {
    "auc": "AUC, all noise",
    "varying": "AUC, without fixed tokens",
    "harm": "AUC, by kind",
    "cosine": "cosine with the held-out gradient",
}
DRAWS = 10_000


def audited_scores(root: Path) -> pd.DataFrame:
    """``model, method``, the columns of ``SIGNS``, and ``score``: of every method that was both audited and evaluated.

    Args:
        root: ``results/{experiment}`` with ``audit/`` and ``report/tables/averages.csv``.

    Raises:
        ValueError: one of them is not there.
    """
    scores = root / "report" / "tables" / "averages.csv"
    folders = [path.parent for path in sorted(root.glob("audit/*/direction.csv"))]
    if not scores.exists() or not folders:
        raise ValueError(f"{root}: needs an audit with held-out rows and an evaluated grid")
    averages = pd.read_csv(scores)
    averages = averages[averages["benchmark"] == AVERAGE].set_index(["model", "method"])["estimate"]
    parts = []
    for folder in folders:
        rows = pd.read_csv(folder / "scores.csv", dtype={"phase": str})
        auc = rows[rows["phase"] == "all"].pivot_table(index="method", columns="kind", values="auc", sort=False)
        found = auc.rename(columns={"all": "auc"}).reindex(columns=["auc", "varying", "harm"])
        found.loc[FULL] = BLIND
        cosine = pd.read_csv(folder / "direction.csv", dtype={"step": str})
        found["cosine"] = cosine[cosine["step"] == "all"].set_index("method")["cosine"]
        found["score"] = [averages.get((folder.name, method), np.nan) for method in found.index]
        parts.append(found.dropna().reset_index().assign(model=folder.name))
    return pd.concat(parts, ignore_index=True)[["model", "method", *SIGNS, "score"]]


def rank_correlations(table: pd.DataFrame, *, without: tuple[str, ...] = (), seed: int = 0) -> pd.DataFrame:
    """``sign, estimate, low, high, minus_auc, minus_auc_low, minus_auc_high``: Spearman's, the mean over models.

    The 95 % intervals are percentiles of a bootstrap over methods, the same draw for every model and sign: would other
    methods be ordered so too?

    Args:
        table: of ``audited_scores``; methods that some model lacks are left out. without: methods to leave out.

    Raises:
        ValueError: fewer than four methods are left.
    """
    table = table[~table["method"].isin(without)]
    models = list(dict.fromkeys(table["model"]))
    counts = table["method"].value_counts()
    methods = [m for m in dict.fromkeys(table["method"]) if counts[m] == len(models)]
    if len(methods) < 4:
        raise ValueError(f"only {len(methods)} methods were audited and evaluated on every model; four are needed")
    wide = {name: table.pivot(index="method", columns="model", values=name).loc[methods] for name in [*SIGNS, "score"]}
    value = {name: frame[models].to_numpy().T for name, frame in wide.items()}  # [A, M]
    draw_BM = np.random.default_rng(seed).integers(0, len(methods), (DRAWS, len(methods)))
    draw_BM = draw_BM[[len(set(draw)) > 2 for draw in draw_BM.tolist()]]
    found, drawn = {}, {}
    for name in SIGNS:
        pairs = list(zip(value[name], value["score"], strict=True))
        found[name] = np.mean([spearman(x, y) for x, y in pairs])
        drawn[name] = np.mean([spearman(x[draw_BM], y[draw_BM]) for x, y in pairs], axis=0)
    rows = []
    for name in SIGNS:
        low, high = np.nanpercentile(drawn[name], [2.5, 97.5])
        row = {"sign": name, "estimate": found[name], "low": low, "high": high}
        if name != "auc":
            ends = np.nanpercentile(drawn[name] - drawn["auc"], [2.5, 97.5])
            row |= {"minus_auc": found[name] - found["auc"], "minus_auc_low": ends[0], "minus_auc_high": ends[1]}
        rows.append(row)
    return pd.DataFrame(rows)


def spearman(x, y) -> np.ndarray:
    """Rank correlation along the last axis; NaN where one side is constant."""
    a, b = (rankdata(v, axis=-1) for v in (x, y))
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=-1) / np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))


def prediction_table(root: Path) -> str:
    """Markdown: with and without the oracle, which both signs and scores place first by construction."""
    table = audited_scores(root)
    parts = {"": rank_correlations(table), "without oracle": rank_correlations(table, without=("oracle",))}
    whole = parts[""]
    lines = ["| sign | rank correlation with the final score | minus AUC's | without the oracle | minus AUC's |"]
    lines.append("|---|--:|--:|--:|--:|")
    for place, name in enumerate(whole["sign"]):
        cells = [cell for part in parts.values() for cell in _cells(part.iloc[place])]
        lines.append(f"| {SIGNS[name]} | {' | '.join(cells)} |")
    models, methods = table["model"].nunique(), table["method"].nunique()
    lines += ["", f"{models} models, {methods} methods, mean over models; 95 % intervals over methods (bootstrap)."]
    return "\n".join(lines)


def _cells(row: pd.Series) -> list[str]:
    gap = "" if pd.isna(row["minus_auc"]) else (
        f"{signed(row['minus_auc'])} {interval(row['minus_auc_low'], row['minus_auc_high'], plus=True)}"
    )  # fmt: skip
    return [f"{signed(row['estimate'])} {interval(row['low'], row['high'], plus=True)}", gap]
