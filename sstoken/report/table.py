"""The paper's Table 1 from this run: methods x benchmarks + average, per model, mean and SD over seeds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sstoken.config import pick, read_table
from sstoken.files import atomic_write

AVERAGE = "Average"


def main_table(scores: pd.DataFrame, *, models: list[str], methods: list[str], columns: dict[str, str]) -> pd.DataFrame:
    """Percent, a row a (model, method).

    Args:
        scores: rows of ``scores.csv``.
        models, methods: the order of the rows. columns: benchmark -> the paper's column title, in order.

    Returns:
        model, method, seeds, and for each column its mean over seeds and ``<column> SD`` (sample SD; empty for one
        seed).  The average is taken within each seed first, so its SD is that of seeds.

    Raises:
        ValueError: a run lacks a benchmark: an average over a hole would not be comparable.
    """
    wide = scores.pivot(index=["model", "method", "seed"], columns="benchmark", values="score")[list(columns)] * 100
    holes = wide.isna()
    if holes.any(axis=None):
        first = holes.any(axis=1).idxmax()
        raise ValueError(f"no score of {', '.join(wide.columns[holes.loc[first]])} for model, method, seed = {first}")
    wide = wide.rename(columns=columns).assign(**{AVERAGE: wide.mean(axis=1)})
    rows = []
    for model in models:
        for method in methods:
            if (model, method) not in wide.index:
                raise ValueError(f"no scores for model {model}, method {method}")
            runs = wide.loc[(model, method)]
            row = {"model": model, "method": method, "seeds": len(runs)}
            for column in runs.columns:
                row |= {column: runs[column].mean(), f"{column} SD": runs[column].std(ddof=1)}
            rows.append(row)
    return pd.DataFrame(rows)


def to_markdown(table: pd.DataFrame) -> str:
    """A GitHub table: ``mean ± SD`` in percent; without ± where there is one run."""
    shown = [c for c in table.columns[3:] if not c.endswith(" SD")]
    lines = ["| model | method | runs | " + " | ".join(shown) + " |", "|---|---|--:|" + "--:|" * len(shown)]
    for _, row in table.iterrows():
        cells = [f"{row[c]:.2f}" + (f" ± {row[f'{c} SD']:.2f}" if pd.notna(row[f"{c} SD"]) else "") for c in shown]
        lines.append(f"| {row['model']} | {row['method']} | {row['seeds']} | " + " | ".join(cells) + " |")
    note = "Scores in percent, mean ± standard deviation over runs (seeds). Average: unweighted mean over benchmarks."
    return "\n".join([*lines, "", note, ""])


def write_main_table(scores, benchmarks_file, *, models, methods, benchmarks, csv, markdown) -> None:
    """Read ``scores.csv``, write the table as CSV (full precision) and as Markdown (two decimals)."""
    rows = {row["name"]: row["column"] for row in read_table(benchmarks_file, "benchmarks")}
    columns = pick("benchmark", benchmarks, rows, benchmarks_file)
    table = main_table(pd.read_csv(scores), models=models, methods=methods, columns=columns)
    with atomic_write(csv) as temporary:
        table.to_csv(temporary, index=False)
    with atomic_write(markdown) as temporary:
        Path(temporary).write_text(to_markdown(table))
