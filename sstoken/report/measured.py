"""``measured.csv`` beside ``methods.yaml``: what our own finished runs say of each shipped method, from the report's tables."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from sstoken.experiment.evidence import AVERAGE, Measured, read_measured, write_measured
from sstoken.report import question_scores
from sstoken.report.tables.estimates import BASELINE
from sstoken.selection.methods import load_methods


def measure(path: Path, results: Path = Path("results")) -> tuple[list[str], list[str]]:
    """Rewrite the table. A method stands with the first experiment of ``EXPERIMENTS`` that has it.

    Returns:
        Experiments that were read, and those whose rows are left as they are since their run is not there.
    """
    old = read_measured(path) if path.exists() else []
    done, left, rows = [], [], []
    for experiment, read in EXPERIMENTS.items():
        found = read(results / experiment, experiment) if (results / experiment / "config.json").exists() else []
        (done if found else left).append(f"measured {experiment}")
        known = {row.method for row in rows}
        rows += [row for row in found or [r for r in old if r.experiment == experiment] if row.method not in known]
    places = {name: place for place, name in enumerate(load_methods())}
    shipped = [row for row in rows if row.method in places]
    write_measured(sorted(shipped, key=lambda row: places[row.method]), path)
    return done, left


def _averages(root: Path, experiment: str) -> list[Measured]:
    path = root / "report" / "tables" / "differences.csv"
    if not path.exists():
        return []
    frame = pd.read_csv(path)
    frame = frame[(frame["against"] == BASELINE) & (frame["benchmark"] == question_scores.AVERAGE)]
    return _rows(frame.assign(score=AVERAGE, minus_full=frame["estimate"]), root, experiment)


def _utility_and_harm(root: Path, experiment: str) -> list[Measured]:
    path = root / "report" / "tables" / "safety.csv"
    if not path.exists():
        return []
    frame, ends = pd.read_csv(path), {"minus_full": "", "low": "_low", "high": "_high"}
    parts = [
        frame[["model", "method"]].assign(
            score=score,
            significant=frame[f"{score}_significant"],
            **{name: frame[f"{score}_minus_full{end}"] for name, end in ends.items()},
        )
        for score in ("utility", "harm")
    ]
    return _rows(pd.concat(parts), root, experiment)


EXPERIMENTS = {"beyond": _averages, "safety": _utility_and_harm, "world": _averages}


def _rows(frame: pd.DataFrame, root: Path, experiment: str) -> list[Measured]:
    operations = _operations(root)
    seeds = len(json.loads((root / "config.json").read_text())["seeds"])
    return [
        Measured(
            row["method"], row["model"], row["score"], _digit(row["minus_full"]), _end(row["low"]), _end(row["high"]),
            str(row["significant"]) in ("True", "1.0", "1"), operations.get((row["model"], row["method"])), experiment, seeds,
        )
        for _, row in frame.dropna(subset="minus_full").iterrows()
    ]  # fmt: skip


def _end(value: float) -> float | None:
    return None if pd.isna(value) else _digit(value)


def _digit(value: float) -> float:
    return round(value, 1) + 0.0  # no minus before a rounded zero


def _operations(root: Path) -> dict[tuple[str, str], float]:
    """(model, method) -> operations of its training and its reference, as a multiple of full's."""
    path = root / "report" / "tables" / "costs.csv"
    if not path.exists():
        return {}
    frame = pd.read_csv(path).set_index(["model", "method"])
    total = frame["training_flops"] + frame["reference_flops"]
    full = {model: value for (model, method), value in total.items() if method == BASELINE}
    return {
        (model, method): round(value / full[model], 2)
        for (model, method), value in total.items()
        if value > 0 and full.get(model)
    }
