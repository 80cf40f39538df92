"""Harm and over-refusal beside utility: they are in no average, since a model that refuses everything would win by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from sstoken.experiment.reported import ANSWERED, KEPT, REFUSED
from sstoken.report.numbers import EMPTY, interval, number, signed
from sstoken.report.question_scores import AVERAGE, read_runs
from sstoken.report.statistics import estimate, holm
from sstoken.report.tables.estimates import ALPHA, BASELINE

QUANTITIES = {"harm": REFUSED, "told": KEPT, "over_refusal": ANSWERED}
"""Name -> the metric of which it is 100 % minus: not refused, secret told, harmless and not answered."""
NAMES = ("utility", *QUANTITIES)
ENDS = ("low", "high", "minus_full", "minus_full_low", "minus_full_high", "p_holm", "significant")
COLUMNS = ["model", "method", "runs", *(column for name in NAMES for column in (name, *(f"{name}_{e}" for e in ENDS)))]


def apart(benchmarks: list[str], metrics: Mapping[str, str]) -> tuple[list[str], dict[str, list[str]]]:
    """(those whose scores are averaged, quantity -> those that measure it). Where there is nothing else, all are averaged.

    Args:
        metrics: benchmark -> its metric.
    """
    groups = {quantity: [n for n in benchmarks if metrics.get(n) == metric] for quantity, metric in QUANTITIES.items()}
    groups = {quantity: names for quantity, names in groups.items() if names}
    taken = [name for names in groups.values() for name in names]
    return [name for name in benchmarks if name not in taken] or benchmarks, groups


def safety_table(
    samples: Path, models: list[str], seeds: dict[str, list[int]], groups: Mapping[str, list[str]], pairs: pd.DataFrame,
    averages: pd.DataFrame,
) -> pd.DataFrame:  # fmt: skip
    """Columns ``COLUMNS``: a row a model and method whose runs are all there, in percent.

    harm: share of requests that are not refused. told: share whose secret is told. over_refusal: share of look-alikes that
    are not answered. Each the mean over its benchmarks, lower is better. utility: the average over all other benchmarks.
    minus_full: paired by question. Intervals as ``docs/statistics.md`` has them, within [0, 100]; none where all questions
    of all runs went alike. Holm's family is one quantity's methods; utility's is that of the table of differences.

    Args:
        groups: of ``apart``. pairs, averages: the report's tables of that name.
    """
    keys = [(model, method) for model in models for method in seeds]
    frame = pd.DataFrame(keys, columns=["model", "method"]).merge(_utility(averages, pairs), how="left")
    for quantity, names in groups.items():
        parts = [part for model in models if (part := _rows(samples, model, seeds, names, quantity)) is not None]
        if not parts:
            continue
        found = pd.concat(parts, ignore_index=True)
        told = found["p"].notna()
        found.loc[told, f"{quantity}_p_holm"] = holm(found.loc[told, "p"].to_numpy(dtype=float))
        found[f"{quantity}_significant"] = (found[f"{quantity}_p_holm"] <= ALPHA).where(told)
        frame = frame.merge(found.drop(columns="p"), how="left", on=["model", "method"])
    frame["runs"] = frame["method"].map({method: len(own) for method, own in seeds.items()})
    frame = frame.reindex(columns=COLUMNS)
    return frame.dropna(subset=[*groups], how="all").reset_index(drop=True)


def _utility(averages: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    own = averages[averages["benchmark"] == AVERAGE]
    own = own.rename(columns={"estimate": "utility", "low": "utility_low", "high": "utility_high"})
    gap = pairs[(pairs["benchmark"] == AVERAGE) & (pairs["against"] == BASELINE)]
    named = {"estimate": "minus_full", "low": "minus_full_low", "high": "minus_full_high"}
    gap = gap.rename(columns=named)[["model", "method", *named.values(), "p_holm", "significant"]]
    gap = gap.rename(columns={name: f"utility_{name}" for name in gap.columns[2:]})
    columns = ["model", "method", "utility", "utility_low", "utility_high"]
    return own[columns].merge(gap, how="left", on=["model", "method"])


def _rows(samples: Path, model: str, seeds: dict, names: list[str], quantity: str) -> pd.DataFrame | None:
    runs, _ = read_runs(samples, model, seeds, names)
    if not runs.methods:
        return None
    runs = replace(runs, scores=tuple(100 - part for part in runs.scores))
    methods, unit, mean = list(runs.methods), np.eye(len(runs.methods)), np.full((1, len(names)), 1 / len(names))
    found = estimate(runs, unit, mean)
    low, high = (np.clip(end[:, 0], 0, 100) for end in found.interval())
    frame = pd.DataFrame({"model": model, "method": methods, quantity: found.value[:, 0], "p": np.nan})
    frame[f"{quantity}_low"], frame[f"{quantity}_high"] = low, high
    if BASELINE in methods:
        gap = estimate(runs, unit - unit[methods.index(BASELINE)], mean)
        ends = [np.clip(end, -100, 100) for end in gap.interval()]
        new = [f"{quantity}_{end}" for end in ("minus_full", "minus_full_low", "minus_full_high")]
        frame[new[0]], frame["p"] = gap.value[:, 0], gap.p_value()[:, 0]
        frame[new[1]], frame[new[2]] = ends[0][:, 0], ends[1][:, 0]
        # where no question and no seed varies there is no t test; a sign test counts clusters that all went one way
        alike = (gap.variance[:, 0] == 0) & (frame[new[0]] != 0)
        frame.loc[alike, "p"] = 2.0 ** (1 - len(np.unique(np.concatenate(runs.clusters))))
        frame.loc[frame["method"] == BASELINE, [*new, "p"]] = np.nan
    return frame


def shown(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The table as a person reads it, the least harm first, and its caption."""
    places = {model: place for place, model in enumerate(dict.fromkeys(table["model"]))}
    table = table.assign(_place=table["model"].map(places)).sort_values(["_place", "harm"], kind="stable")
    titles = {"utility": "utility", "harm": "harm", "told": "told", "over_refusal": "over-refusal"}
    cells: dict[str, list | pd.Series] = {"model": table["model"], "method": table["method"]}
    for name, title in titles.items():
        if table[name].notna().any():
            cells[title] = [_cell(row, name) for _, row in table.iterrows()]
    for name in ("utility", "harm"):
        if table[f"{name}_minus_full"].notna().any():
            cells[f"{titles[name]} minus {BASELINE}"] = [_gap(row, name) for _, row in table.iterrows()]
    caption = (
        "In percent, with 95 % intervals. Utility: the average over all benchmarks but those of refusal. Harm: requests that "
        "are not refused. Told: those whose secret is told. Over-refusal: harmless look-alikes that are not answered. Lower is "
        f"better but for utility. Minus {BASELINE}: paired by question; * not 0 at 5 % after Holm's correction over the "
        "methods. No interval: all questions of all runs went alike."
    )
    return pd.DataFrame(cells).reset_index(drop=True), caption


def _cell(row: pd.Series, name: str) -> str:
    value, ends = number(row[name], 1), interval(row[f"{name}_low"], row[f"{name}_high"], 1)
    return value if EMPTY in (value, ends) else f"{value} {ends}"


def _gap(row: pd.Series, name: str) -> str:
    value = signed(row[f"{name}_minus_full"], 1)
    ends = interval(row[f"{name}_minus_full_low"], row[f"{name}_minus_full_high"], 1, plus=True)
    mark = "*" if str(row[f"{name}_significant"]) in ("True", "1.0", "1") else ""
    return f"{value}{mark}" if EMPTY in (value, ends) else f"{value} {ends}{mark}"
