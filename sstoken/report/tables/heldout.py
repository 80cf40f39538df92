"""Held-out loss in bits per byte: lower is better, so it stands in a table of its own and in no average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from sstoken.report.numbers import EMPTY, interval, number, p_value, signed
from sstoken.report.question_scores import ModelRuns, read_runs
from sstoken.report.statistics import estimate, holm, recovered
from sstoken.report.tables.estimates import ALPHA, BASELINE, CEILING

METRIC = "likelihood_per_byte"
"""Of the benchmark: ``2^-b`` with b the bits per byte of one response."""
LEAST = 1e-300
COLUMNS = [
    "model", "method", "benchmark", "rows", "runs", "bits", "low", "high", "minus_full", "minus_full_low",
    "minus_full_high", "p", "p_holm", "significant", "recovered", "recovered_low", "recovered_high",
]  # fmt: skip


def apart(benchmarks: list[str], metrics: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(those whose scores are averaged, those of held-out loss). Where there is nothing else, held-out loss is averaged too.

    Args:
        metrics: benchmark -> its metric.
    """
    held = [name for name in benchmarks if metrics.get(name) == METRIC]
    return [name for name in benchmarks if name not in held] or held, held


def heldout_table(samples: Path, models: list[str], seeds: dict[str, list[int]], benchmarks: list[str]) -> pd.DataFrame:
    """Columns ``COLUMNS``: a row a model, benchmark of held-out loss, and method whose runs are all there.

    bits: mean over rows of ``-log2 p(response | prompt) / bytes``, and over runs. minus_full: paired by row; negative is
    better. recovered: share of the way down from full to the oracle, where that is significant. Intervals as
    ``docs/statistics.md`` has them; Holm's family is the whole table.
    """
    parts = []
    for model in models:
        for benchmark in benchmarks:
            runs, _ = read_runs(samples, model, seeds, [benchmark])
            if runs.methods:
                parts.append(_rows(runs, benchmark))
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    told = frame["p"].notna()
    frame.loc[told, "p_holm"] = holm(frame.loc[told, "p"].to_numpy(dtype=float))
    frame["significant"] = (frame["p_holm"] <= ALPHA).where(told)
    top = frame[(frame["method"] == CEILING) & (frame["p_holm"] <= ALPHA) & (frame["minus_full"] < 0)]
    known = frame.set_index(["model", "benchmark"]).index.isin(top.set_index(["model", "benchmark"]).index)
    frame.loc[~known, "recovered":"recovered_high"] = np.nan
    return frame.reindex(columns=COLUMNS)


def _rows(runs: ModelRuns, benchmark: str) -> pd.DataFrame:
    bits = tuple(-np.log2(np.maximum(scores / 100, LEAST)) for scores in runs.scores)
    runs = replace(runs, scores=bits)
    one, methods, unit = np.ones((1, 1)), list(runs.methods), np.eye(len(runs.methods))
    found = estimate(runs, unit, one)
    low, high = found.interval()
    count = bits[0].shape[1]
    frame = pd.DataFrame(
        {
            "model": runs.model, "method": methods, "benchmark": benchmark, "rows": bits[0].shape[2],
            "runs": [count if seeded else 1 for seeded in runs.seeded],
            "bits": found.value[:, 0], "low": np.maximum(low[:, 0], 0), "high": high[:, 0],
        }
    )  # fmt: skip
    if BASELINE in methods:
        gap = estimate(runs, unit - unit[methods.index(BASELINE)], one)
        ends = gap.interval()
        frame["minus_full"], frame["p"] = gap.value[:, 0], gap.p_value()[:, 0]
        frame["minus_full_low"], frame["minus_full_high"] = ends[0][:, 0], ends[1][:, 0]
        names = ["minus_full", "p", "minus_full_low", "minus_full_high"]
        frame.loc[frame["method"] == BASELINE, names] = np.nan
    if {BASELINE, CEILING} <= set(methods):
        better = replace(runs, scores=tuple(-part for part in bits))  # a share is told of what rises
        frame["recovered"], frame["recovered_low"], frame["recovered_high"] = recovered(
            better, np.ones(1), BASELINE, CEILING
        )
        frame.loc[frame["method"].isin([BASELINE, CEILING]), "recovered":"recovered_high"] = np.nan
    return frame.reindex(columns=COLUMNS)


def shown(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The table as a person reads it, the lowest loss first, and its caption."""
    several = table["benchmark"].nunique() > 1
    places = {model: place for place, model in enumerate(dict.fromkeys(table["model"]))}
    table = table.assign(_place=table["model"].map(places)).sort_values(["_place", "benchmark", "bits"], kind="stable")
    columns = {
        "model": table["model"],
        **({"benchmark": table["benchmark"]} if several else {}),
        "method": table["method"],
        "bits per byte": [_cell(number(r.bits, 4), interval(r.low, r.high, 4)) for r in table.itertuples()],
        f"minus {BASELINE}": [
            _cell(signed(r.minus_full, 4), interval(r.minus_full_low, r.minus_full_high, 4, plus=True))
            for r in table.itertuples()
        ],
        "p (Holm)": [p_value(p) for p in table["p_holm"]],
        "verdict": [_verdict(r) for r in table.itertuples()],
        "recovered": [
            _cell(number(r.recovered), interval(r.recovered_low, r.recovered_high)) for r in table.itertuples()
        ],
    }
    rows = table["rows"].max()
    caption = (
        f"Held-out loss: bits per byte of the responses of {EMPTY if pd.isna(rows) else int(rows)} rows that nothing was "
        f"trained on, with 95 % intervals; lower is better. Minus {BASELINE}: paired by row; a negative number is a gain. "
        "Verdict at 5 % after Holm's correction over this table; open: no difference is shown. Recovered: share of the way "
        f"from {BASELINE} (0) to {CEILING} (1), left out where {CEILING} is not significantly better. In no average."
    )
    return pd.DataFrame(columns).reset_index(drop=True), caption


def _cell(value: str, ends: str) -> str:
    return value if EMPTY in (value, ends) else f"{value} {ends}"


def _verdict(row) -> str:
    if pd.isna(row.minus_full):
        return EMPTY
    if row.significant is True or row.significant == 1:
        return "better" if row.minus_full < 0 else "worse"
    return "open"
