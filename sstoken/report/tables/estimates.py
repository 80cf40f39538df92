"""The tidy tables of the report, in percent points and full precision; ``docs/statistics.md`` explains every column.

A cell whose runs are not all there is empty, never an average over what there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
import pandas as pd

from sstoken.report.question_scores import AVERAGE, ModelRuns
from sstoken.report.statistics import Estimates, estimate, holm, mcnemar, recovered

ALPHA = 0.05
TIE = 0.005
"""Percent points; scores that differ by less are written alike."""
KEY = ["model", "method", "benchmark"]
ESTIMATE = ["estimate", "low", "high"]
AVERAGES = [*KEY, "runs", *ESTIMATE]
PAIR = ["model", "method", "against", "benchmark"]
DIFFERENCES = [*PAIR, *ESTIMATE, "p", "p_holm", "significant", "mde", "p_equivalent", "equivalent"]
POOLED = [*DIFFERENCES, "above", "pairs"]
RECOVERED = ["model", "method", *ESTIMATE]
AXES = [
    "model", "method", "taught", "taught_low", "taught_high", "teaches", "lost", "lost_low", "lost_high", "recovered",
    "recovered_low", "recovered_high",
]  # fmt: skip
MCNEMAR = ["model", "method", "against", "benchmark", "run", "only_method", "only_against", "p"]
ALL_MODELS = "all models"
START, BASELINE, CEILING = "base", "full", "oracle"
"""Untrained, trained on every token, trained on every token that is not noise."""
BOUNDS = (CEILING, "clean")  # they know what is noise: no contestants for the best score


@dataclass(frozen=True)
class ModelTables:
    """What one model's runs say; all that is left of them once the next model's are read."""

    averages: pd.DataFrame
    differences: pd.DataFrame
    recovered: pd.DataFrame
    mcnemar: pd.DataFrame


def model_tables(runs: ModelRuns, columns: dict[str, str]) -> ModelTables:
    """Every table that needs one model's questions.

    Args:
        columns: benchmark -> display name.
    """
    titles = [columns[name] for name in runs.benchmarks] + [AVERAGE]
    cells = with_average(len(runs.benchmarks))
    pairs, found = _differences(runs, cells)
    return ModelTables(
        averages=averages(runs, titles, cells),
        differences=_difference_rows(runs, titles, pairs, found),
        recovered=_recovered(runs, cells[-1]),
        mcnemar=_mcnemar(runs, titles, pairs),
    )


def with_average(benchmarks: int) -> np.ndarray:
    """A cell for each benchmark and one for their unweighted mean."""
    return np.vstack([np.eye(benchmarks), np.full(benchmarks, 1 / benchmarks)])


def averages(runs: ModelRuns, titles: list[str], cells_CB: np.ndarray) -> pd.DataFrame:
    """model, method, benchmark, runs, estimate, low, high."""
    found = estimate(runs, np.eye(len(runs.methods)), cells_CB)
    low, high = (np.clip(bound, 0, 100) for bound in found.interval())  # a score cannot lie outside
    seeds = runs.scores[0].shape[1]
    count = [seeds if seeded else 1 for seeded in runs.seeded]
    frame = _long(runs.model, {"method": list(runs.methods), "runs": count}, titles, found.value, low, high)
    return frame[AVERAGES]


def _long(model: str, rows: dict[str, list], titles: list[str], value, low, high) -> pd.DataFrame:
    """[K, C] arrays as rows, cells fastest."""
    repeated = {name: np.repeat(np.array(values, dtype=object), len(titles)) for name, values in rows.items()}
    count = len(next(iter(rows.values())))
    frame = pd.DataFrame({"model": model, **repeated, "benchmark": titles * count})
    return frame.assign(estimate=value.ravel(), low=low.ravel(), high=high.ravel())


def _differences(runs: ModelRuns, cells_CB: np.ndarray) -> tuple[list[tuple[int, int]], Estimates]:
    """Every ordered pair of methods, each pair's mirror image right after it."""
    half = list(combinations(range(len(runs.methods)), 2))
    weights = np.zeros((len(half), len(runs.methods)))
    for row, (first, second) in enumerate(half):
        weights[row, first], weights[row, second] = 1, -1
    found = estimate(runs, weights, cells_CB)
    pairs = [pair for first, second in half for pair in ((first, second), (second, first))]
    sign = np.tile([[1.0], [-1.0]], (len(half), 1))
    twice = (np.repeat(part, 2, axis=0) for part in (found.value, found.variance, found.df))
    value, variance, df = twice
    return pairs, Estimates(sign * value + 0.0, variance, df)


def _difference_rows(runs: ModelRuns, titles: list[str], pairs, found: Estimates) -> pd.DataFrame:
    low, high = found.interval()
    p = found.p_value()
    for task, (scores, clusters) in enumerate(zip(runs.scores, runs.clusters, strict=True)):
        if scores.shape[1] == 1 and _exact(scores, clusters):
            p[:, task] = mcnemar(scores[:, 0] > 0)[1][tuple(np.transpose(pairs))]
    names = {"method": [runs.methods[i] for i, _ in pairs], "against": [runs.methods[j] for _, j in pairs]}
    frame = _long(runs.model, names, titles, found.value, low, high)
    return frame.assign(p=p.ravel(), mde=found.detectable().ravel(), p_equivalent=found.equivalence_p().ravel())


def _exact(scores: np.ndarray, clusters: np.ndarray) -> bool:
    """Whether McNemar's test applies: right or wrong, and no two questions about one passage."""
    return bool(np.isin(scores, (0, 100)).all()) and len(np.unique(clusters)) == len(clusters)


def _mcnemar(runs: ModelRuns, titles: list[str], pairs) -> pd.DataFrame:
    """model, method, against, benchmark, run (position among the seeds), only_method, only_against, p."""
    first, second = np.array(pairs, dtype=int).reshape(-1, 2).T
    names = np.array(runs.methods, dtype=object)
    parts = []
    for title, scores, clusters in zip(titles, runs.scores, runs.clusters, strict=False):
        for run in range(scores.shape[1] if _exact(scores, clusters) else 0):
            only, p = mcnemar(scores[:, run] > 0)
            columns = {"method": names[first], "against": names[second], "benchmark": title, "run": run}
            counts = {"only_method": only[first, second], "only_against": only[second, first], "p": p[first, second]}
            parts.append(pd.DataFrame({"model": runs.model, **columns, **counts}))
    return concat(parts, MCNEMAR)


def _recovered(runs: ModelRuns, average_B: np.ndarray) -> pd.DataFrame:
    """model, method, estimate, low, high: share of the way from baseline to ceiling, of the average."""
    if not {BASELINE, CEILING} <= set(runs.methods):
        return pd.DataFrame(columns=RECOVERED)
    share, low, high = recovered(runs, average_B, BASELINE, CEILING)
    frame = pd.DataFrame({"model": runs.model, "method": runs.methods, "estimate": share, "low": low, "high": high})
    return frame[~frame["method"].isin([BASELINE, CEILING])]


def differences(parts: list[pd.DataFrame], models: list[str], methods: list[str], titles: list[str]) -> pd.DataFrame:
    """Columns ``DIFFERENCES``: every ordered pair of methods.

    significant: the difference is not 0.  equivalent: it is within ± ``MARGIN``, both at 5 % after Holm's correction.
    The rows with one ``against`` are one table.  Holm's families: its averages (models x methods), and its benchmarks.
    """
    frame = concat(parts, [c for c in DIFFERENCES if c not in ("p_holm", "significant", "equivalent")])
    family = [frame["against"], frame["benchmark"] == AVERAGE]

    def adjusted(column: str) -> pd.Series:
        return frame.groupby(family)[column].transform(lambda p: holm(p.to_numpy()))

    differ, level = adjusted("p"), adjusted("p_equivalent")
    frame = frame.assign(p_holm=differ, significant=differ <= ALPHA, equivalent=level <= ALPHA)
    keys = {"against": methods, "model": models, "method": methods, "benchmark": titles}
    frame = complete(frame[DIFFERENCES], keys)
    return frame[frame["method"] != frame["against"]].reset_index(drop=True)


def verdict(row: pd.Series) -> str:
    """Of a row of differences: better, worse, level (within ± ``MARGIN``), open (none of these is shown); "" if empty."""
    if pd.isna(row["estimate"]):
        return ""
    if bool(row["significant"]):
        return "better" if row["estimate"] > 0 else "worse"
    return "level" if bool(row["equivalent"]) else "open"


def pooled_differences(
    models: list[ModelRuns], whole: ModelRuns, part: pd.DataFrame, methods: list[str], titles: list[str]
) -> pd.DataFrame:
    """Columns ``POOLED``: the differences of the mean over models, Holm's families as within one model.

    Args:
        models: the single models' runs. whole: those of ``pooled``. part: its rows of ``model_tables``.

    Returns:
        above, pairs: in how many of how many pairs of model and seed the method's score is above the other's.
    """
    frame = differences([part], [ALL_MODELS], methods, titles)
    cells = with_average(len(whole.benchmarks))
    values = []
    for runs in models:
        rows = [runs.methods.index(method) for method in whole.methods]
        mean_BMS = np.array([scores[rows].mean(axis=2) for scores in runs.scores])
        values.append(np.einsum("cb,bms->msc", cells, mean_BMS))
    value_MPC = np.concatenate(values, axis=1)
    rows = []
    for i, j in permutations(range(len(whole.methods)), 2):
        above_C = (value_MPC[i] - value_MPC[j] > TIE).sum(axis=0)
        rows += [(whole.methods[i], whole.methods[j], titles[c], above_C[c]) for c in range(len(titles))]
    counts = pd.DataFrame(rows, columns=["method", "against", "benchmark", "above"])
    frame = frame.merge(counts.assign(pairs=value_MPC.shape[1]), how="left", on=["method", "against", "benchmark"])
    return frame.astype({"above": "Int64", "pairs": "Int64"})[POOLED]


def axes(pairs: pd.DataFrame, share: pd.DataFrame, models: list[str], methods: list[str]) -> pd.DataFrame:
    """Columns ``AXES``: what training taught (method - base), what noise took (oracle - method), and the share recovered.

    All of the average, in percent points.  teaches: significantly above the base; empty where there is no base.

    Args:
        pairs: ``differences``. share: ``recovered``.
    """
    average = pairs[pairs["benchmark"] == AVERAGE]
    taught = average[average["against"] == START].assign(taught=average["estimate"])
    taught = taught.assign(teaches=(taught["significant"] == True) & (taught["taught"] > 0))  # noqa: E712 (may be empty)
    taught = taught.rename(columns={"low": "taught_low", "high": "taught_high"}).dropna(subset="taught")
    lost = average[average["method"] == CEILING].drop(columns="method").rename(columns={"against": "method"})
    lost = lost.rename(columns={"estimate": "lost", "low": "lost_low", "high": "lost_high"})
    share = share.rename(columns={"estimate": "recovered", "low": "recovered_low", "high": "recovered_high"})
    key = ["model", "method"]
    frame = pd.DataFrame([(model, method) for model in models for method in methods], columns=key)
    for part, prefix in ((taught, "taught"), (lost, "lost"), (share, "recovered")):
        columns = [c for c in AXES if c.startswith(prefix) or (c == "teaches" and prefix == "taught")]
        frame = frame.merge(part[key + columns], how="left", on=key)
    return frame[AXES]


def by_rank(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``axes``: within each model the methods that teach, most first; then those that leave the base as it was,
    or harm it; then those of which nothing is known."""
    group = (table["teaches"] != True).astype(int) + table["taught"].isna()  # noqa: E712 (may be empty)
    place = table["model"].map({model: n for n, model in enumerate(dict.fromkeys(table["model"]))})
    keyed = table.assign(_place=place, _group=group, _taught=-table["taught"].astype(float))
    return keyed.sort_values(["_place", "_group", "_taught"], kind="stable")[list(table.columns)]


def leads(averages: pd.DataFrame, differences: pd.DataFrame, contestants: list[str]) -> pd.DataFrame:
    """model, benchmark, method (the best), runner_up, estimate, low, high, p, p_holm, significant: bold or not in Table 1.

    Where the best two have the same score there is no best, and no row.
    Best and runner-up are picked by the same scores, yet the test of their difference keeps its level (Gutmann & Maymin
    1987, "Is the selected population the best?").  Holm's families: the averages, and the benchmarks.
    """
    rows = []
    ranked = averages[averages["method"].isin(contestants) & averages["estimate"].notna()]
    for (model, benchmark), group in ranked.groupby(["model", "benchmark"], sort=False):
        best = group.sort_values("estimate", ascending=False, kind="stable").head(2)
        if len(best) > 1 and best["estimate"].iloc[0] - best["estimate"].iloc[1] > TIE:
            rows.append((model, benchmark, *best["method"]))
    frame = pd.DataFrame(rows, columns=["model", "benchmark", "method", "runner_up"])
    known = differences[[*PAIR, *ESTIMATE, "p", "mde"]].rename(columns={"against": "runner_up"})
    frame = frame.merge(known, how="left", on=["model", "benchmark", "method", "runner_up"])
    adjusted = frame.groupby(frame["benchmark"] == AVERAGE)["p"].transform(lambda p: holm(p.to_numpy()))
    return frame.assign(p_holm=adjusted, significant=adjusted <= ALPHA)


def concat(frames: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """All rows; the columns are there even if no frame is."""
    frames = [frame for frame in frames if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def complete(frame: pd.DataFrame, keys: dict[str, list[str]]) -> pd.DataFrame:
    """A row for every combination of the keys, in their order; empty where nothing is known."""
    index = pd.MultiIndex.from_product(keys.values(), names=list(keys))
    return frame.set_index(list(keys)).reindex(index).reset_index()[frame.columns]


def main_table(averages: pd.DataFrame, titles: list[str], both_axes: pd.DataFrame) -> pd.DataFrame:
    """Table 1, wide: model, method, runs, for each benchmark and the average its mean, ``… low`` and ``… high``, and the
    columns of ``axes`` but for the share recovered."""
    wide = averages.pivot(index=["model", "method"], columns="benchmark", values=["estimate", "low", "high"])
    wide = wide.reindex(pd.MultiIndex.from_frame(averages[["model", "method"]].drop_duplicates()))
    runs = averages.drop_duplicates(["model", "method"]).set_index(["model", "method"])["runs"]
    parts = {"runs": runs.astype("Int64")}
    for title in titles:
        parts |= {
            title: wide["estimate", title],
            f"{title} low": wide["low", title],
            f"{title} high": wide["high", title],
        }
    shown = both_axes[[c for c in AXES if not c.startswith("recovered")]]
    return pd.DataFrame(parts, index=wide.index).reset_index().merge(shown, how="left", on=["model", "method"])
