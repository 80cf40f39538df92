"""Ablations as tables: each method at each value, minus full-data training at the same value; and the papers' claims there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sstoken.report.question_scores import AVERAGE, MISSING_COLUMNS, ModelRuns, read_runs
from sstoken.report.statistics import Estimates, estimate, holm
from sstoken.report.tables.captions import MAIN_TABLE
from sstoken.report.tables.estimates import ALPHA, concat, with_average

POINT = ["ablation", "option", "model", "method", "value", "run"]
TESTS = ["p", "p_holm", "significant", "mde", "p_equivalent", "equivalent"]
ABLATIONS = [
    *POINT, "estimate", "low", "high", "against", "minus_full", "minus_full_low", "minus_full_high", *TESTS, "noise",
]  # fmt: skip
CLAIMS = (
    ("self-modulated", "full"),
    ("semantic-aware", "full"),
    ("sstoken", "self-modulated"),
    ("sstoken", "semantic-aware"),
)
"""ssToken's claims: (method, the one that it is above). Either signal alone beats full, both together beat each."""
CLAIM = ["place", "value", "model", "method", "against", "estimate", "low", "high", *TESTS]


def ablation_tables(
    samples: Path,
    models: list[str],
    seeds: dict[str, list[int]],
    benchmarks: list[str],
    ablations: list[dict],
    selection: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(``ABLATIONS``, ``CLAIM`` at the ablations' values, what is missing), all of the average, in percent points.

    A difference is paired by question and seed, as in the main table.  Its seed variance is pooled over the runs that share
    data and training settings: those of one condition, or the main table's with the ablations of methods' own options.
    Holm's families: all differences of one ablation; all claims at its values.

    Args:
        samples: of ``collect``. seeds: method of the main table -> its seeds. ablations: {name, option, models, points}.
        selection: ``selection.csv``. Its column ``noise`` comes from there: the share of the response tokens that are noise.
    """
    rows, claims, missing = [], [], []
    every_seed = max(seeds.values(), key=len)
    for model in models:
        mine = [ablation for ablation in ablations if model in ablation["models"]]
        found: dict[str, ModelRuns] = {}
        for condition in dict.fromkeys(point["condition"] for ablation in mine for point in ablation["points"]):
            points = [p for ablation in mine for p in ablation["points"] if p["condition"] == condition]
            names = [
                *([] if condition else seeds),
                *(name for p in points for name in (p["against"], p["run"]) if name),
            ]
            asked = {name: seeds.get(name, every_seed) for name in dict.fromkeys(names)}
            found[condition], holes = read_runs(samples, model, asked, benchmarks)
            missing.append(holes)
        for ablation in mine:
            for point in ablation["points"]:
                key = (ablation["name"], ablation["option"], model, point["method"], point["value"], point["run"])
                rows.append((*key, *_point(found[point["condition"]], point, selection, model)))
            claims += _claims(found, ablation, model)
    frame, claimed = (_frame(found, columns) for found, columns in ((rows, ABLATIONS), (claims, CLAIM)))
    holes = concat(missing, MISSING_COLUMNS)
    return adjusted(frame, "ablation")[ABLATIONS], adjusted(claimed, "place")[CLAIM], holes


def _frame(rows: list[tuple], columns: list[str]) -> pd.DataFrame:
    """All columns but those of ``adjusted``; numbers of one ablation and words of another stay as they were written."""
    names = [c for c in columns if c not in ("p_holm", "significant", "equivalent")]
    frame = pd.DataFrame(rows, columns=names)
    values = [row[names.index("value")] for row in rows]
    return frame.assign(value=pd.Series(values, dtype=object, index=frame.index))


def main_claims(differences: pd.DataFrame) -> pd.DataFrame:
    """``CLAIM`` of the main table: rows of ``differences``, tested there."""
    parts = [
        differences[(differences["method"] == method) & (differences["against"] == against)]
        for method, against in CLAIMS
    ]
    found = pd.concat(parts) if parts else differences[:0]
    found = found[(found["benchmark"] == AVERAGE) & found["estimate"].notna()]
    return found.assign(place=MAIN_TABLE, value="")[CLAIM].reset_index(drop=True)


def adjusted(frame: pd.DataFrame, family: str) -> pd.DataFrame:
    """With p_holm, significant and equivalent, Holm's correction within each ``family``; empty where there is no test."""
    told = frame["p"].notna()
    tested = frame[told]
    differ, level = (
        tested.groupby(family, sort=False)[p].transform(lambda p: holm(p.to_numpy(dtype=float)))
        for p in ("p", "p_equivalent")
    )
    return frame.assign(
        p_holm=differ.reindex(frame.index),
        significant=(differ <= ALPHA).reindex(frame.index),
        equivalent=(level <= ALPHA).reindex(frame.index),
    )


def _point(runs: ModelRuns, point: dict, selection: pd.DataFrame | None, model: str) -> tuple:
    """The columns of ``ABLATIONS`` after ``POINT``, those of ``adjusted`` apart."""
    own, against = point["run"], point["against"]
    average = _contrast(runs, {own: 1.0}) if own in runs.methods else None
    estimate_, low, high = _row(average)[:3]
    if average is not None:
        low, high = (np.clip(end, 0, 100) for end in (low, high))  # a score cannot lie outside
    paired = own != against and {own, against} <= set(runs.methods)
    difference = _row(_contrast(runs, {own: 1.0, against: -1.0}) if paired else None)
    gap, gap_low, gap_high, *tests = difference
    return estimate_, low, high, against, gap, gap_low, gap_high, *tests, _noise(selection, model, against)


def _claims(found: dict[str, ModelRuns], ablation: dict, model: str) -> list[tuple]:
    rows = []
    for value in dict.fromkeys(point["value"] for point in ablation["points"]):
        here = [point for point in ablation["points"] if point["value"] == value]
        runs = found[here[0]["condition"]]
        named = {"full": here[0]["against"]} | {point["method"]: point["run"] for point in here}
        for method, against in CLAIMS:
            pair = [named.get(method), named.get(against)]
            if set(pair) <= set(runs.methods):
                row = _row(_contrast(runs, {pair[0]: 1.0, pair[1]: -1.0}))
                rows.append((ablation["name"], value, model, method, against, *row))
    return rows


def _contrast(runs: ModelRuns, weights: dict[str, float]) -> Estimates:
    """Of the average: [1, 1]; without variance where every question has the same answers, whatever the seeds of others say."""
    row = np.array([[weights.get(method, 0.0) for method in runs.methods]])
    found = estimate(runs, row, with_average(len(runs.benchmarks))[-1:])
    same = len(weights) > 1 and all(np.allclose(np.einsum("km,msq->ksq", row, scores), 0) for scores in runs.scores)
    return Estimates(found.value, np.zeros_like(found.variance), found.df) if same else found


def _row(found: Estimates | None) -> list[float]:
    """estimate, low, high, p, mde, p_equivalent."""
    if found is None:
        return [np.nan] * 6
    parts = (found.value, *found.interval(), found.p_value(), found.detectable(), found.equivalence_p())
    return [float(part[0, 0]) for part in parts]


def _noise(selection: pd.DataFrame | None, model: str, run: str) -> float:
    """Of a run that keeps every token: the share that is not clean."""
    if selection is None or not run:
        return np.nan
    rows = selection[(selection["model"] == model) & (selection["method"] == run)]
    rows = rows[(rows["phase"].astype(str) == "all") & (rows["kind"] == "all")]
    return 1 - rows["precision"].mean()
