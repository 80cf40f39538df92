"""What figures and page read: the tidy tables of a run, its training logs, and what the grid asked for.

Nothing here computes a statistic.  A table that is not there is an empty frame, so that a partial run shows what it has.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from sstoken.report.question_scores import AVERAGE

TABLES = {
    "averages": ["model", "method", "benchmark", "runs", "estimate", "low", "high"],
    "differences": [
        "model", "method", "against", "benchmark", "estimate", "low", "high", "p", "p_holm", "significant", "mde",
    ],
    "recovered": ["model", "method", "estimate", "low", "high"],
    "ablations": ["ablation", "option", "model", "method", "value", "run", "estimate", "low", "high"],
    "costs": [
        "model", "method", "training_seconds", "reference_seconds", "evaluation_seconds", "training_tokens",
        "kept_tokens", "training_flops", "reference_flops", "peak_memory_bytes",
    ],
    "missing": ["model", "method", "seed", "why"],
}  # fmt: skip
"""Name of ``report/tables/<name>.csv`` -> the columns that are read here."""

SELECTION = ["model", "method", "seed", "phase", "kind", "tokens", "auc", "precision", "recall", "kept"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the grid asked for, in its order.

    methods: those of the main table. untrained: methods without training (the base). bounds: methods that know which
    tokens are noise, or train on other data: shown, but they cannot win. ablations: {name, option, models, points}.
    """

    experiment: str
    models: list[str]
    methods: list[str]
    seeds: list[int]
    untrained: list[str]
    bounds: list[str]
    ablations: list[dict]

    @property
    def contenders(self) -> list[str]:
        """Methods that a reader could choose between."""
        return [m for m in self.methods if m not in self.untrained and m not in self.bounds]


class Results:
    """A run's folder ``results/{experiment}``, read lazily."""

    def __init__(self, root: str | Path, facts: Facts):
        self.root, self.facts = Path(root), facts

    def table(self, name: str) -> pd.DataFrame:
        """A tidy table, or an empty one with its columns.

        Raises:
            ValueError: the file lacks a column.
        """
        return _read(self.root / "report" / "tables" / f"{name}.csv", TABLES[name])

    @cached_property
    def averages(self) -> pd.DataFrame:
        return self.table("averages")

    @cached_property
    def differences(self) -> pd.DataFrame:
        table = self.table("differences")
        return table.assign(significant=table["significant"].astype(str) == "True")

    @cached_property
    def costs(self) -> pd.DataFrame:
        return self.table("costs")

    @cached_property
    def ablations(self) -> pd.DataFrame:
        # values may be numbers or names; which, each ablation says
        return self.table("ablations").astype({"value": str})

    @cached_property
    def missing(self) -> pd.DataFrame:
        return self.table("missing")

    @cached_property
    def recovered(self) -> pd.DataFrame:
        return self.table("recovered")

    @cached_property
    def selection(self) -> pd.DataFrame:
        """What was kept of known noise, mean over seeds; empty where the data has no truth."""
        table = _read(self.root / "selection.csv", SELECTION).astype({"phase": str})
        numbers = ["tokens", "auc", "precision", "recall", "kept"]
        return table.groupby(["model", "method", "phase", "kind"], sort=False)[numbers].mean().reset_index()

    def average(self, model: str, method: str, benchmark: str = AVERAGE) -> pd.Series | None:
        """The row of ``averages``, or None where it is missing or empty."""
        return _one(self.averages, model=model, method=method, benchmark=benchmark)

    def against(self, baseline: str) -> pd.DataFrame:
        """Every method minus ``baseline``, turned round where the table has it only the other way; no empty rows."""
        table = self.differences[self.differences["estimate"].notna()]
        other = table[table["method"] == baseline]
        turned = other.assign(
            method=other["against"],
            against=baseline,
            estimate=-other["estimate"],
            low=-other["high"],
            high=-other["low"],
        )
        both = pd.concat([table[table["against"] == baseline], turned], ignore_index=True)
        return both.drop_duplicates(["model", "method", "benchmark"])

    def difference(self, model: str, method: str, against: str) -> pd.Series | None:
        """The row of the averages' difference, or None where it is missing or empty."""
        return _one(self.against(against), model=model, method=method, benchmark=AVERAGE)

    def recovery(self, model: str, method: str) -> pd.Series | None:
        return _one(self.recovered, model=model, method=method)

    def cost(self, model: str, method: str) -> pd.Series | None:
        table = self.costs[(self.costs["model"] == model) & (self.costs["method"] == method)]
        return None if table.empty or pd.isna(table.iloc[0]["training_seconds"]) else table.iloc[0]

    def precision(self, model: str, method: str) -> float | None:
        """Share of the kept tokens that are clean."""
        table = self.selection
        at = (table["model"] == model) & (table["method"] == method) & (table["phase"] == "all")
        found = table[at & (table["kind"] == "all")]["precision"].dropna()
        return None if found.empty else float(found.iloc[0])

    def run_records(self, model: str, method: str) -> list[dict]:
        """``run.json`` of every seed and part."""
        folder = self.root / "runs" / model / method
        return [json.loads(path.read_text()) for path in sorted(folder.glob("seed*/**/run.json"))]

    def kept_share(self, model: str, method: str) -> float | None:
        """Kept share of the response tokens that went by, over all seeds and parts."""
        counted = [record["counted"] for record in self.run_records(model, method)]
        total = sum(c["response_tokens"] for c in counted)
        return sum(c["kept_tokens"] for c in counted) / total if total else None

    def logs(self, model: str, method: str) -> list[pd.DataFrame]:
        """One frame a seed, a row a step, parts of a chain one after the other; ``progress`` in (0, 1]."""
        frames = []
        for folder in sorted((self.root / "runs" / model / method).glob("seed*")):
            parts = sorted(folder.glob("part*"), key=lambda p: int(p.name.removeprefix("part")))
            files = [p / "log.jsonl" for p in [*parts, folder] if (p / "log.jsonl").exists()]
            rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
            if (folder / "run.json").exists() and rows:
                frame = pd.DataFrame(rows)
                frames.append(frame.assign(progress=(frame.index + 1) / len(frame)))
        return frames


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    if not path.exists():
        return pd.DataFrame(columns=columns)
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    if lacking := [c for c in columns if c not in table.columns]:
        raise ValueError(f"{path}: no column {', '.join(lacking)}; delete the file and render again")
    return table[columns]


def _one(table: pd.DataFrame, **key: str) -> pd.Series | None:
    for column, value in key.items():
        table = table[table[column] == value]
    return None if table.empty or pd.isna(table.iloc[0]["estimate"]) else table.iloc[0]
