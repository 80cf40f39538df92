"""Put the tables of finished runs into Markdown: what stands between ``<!-- table: … -->`` and ``<!-- end -->``.

``averages E`` and ``differences E`` are one row a method and one column a model of experiment E; ``auc E``, ``direction E``
and ``prediction E`` are of its audit, ``sources E F …`` of the audits of several that differ by their rows; ``spent E`` is
what it took; ``bench`` is ``results/bench/step.json``; ``methods`` is the catalogue of methods; any other word is that table
of the report, ``results/E/report/tables/<word>.md``.
A figure that the text shows from a folder ``figures/E`` is copied there from experiment E's report.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
from pathlib import Path

import pandas as pd

from sstoken.experiment.catalogue_text import markdown
from sstoken.report.audit_results import auc_table, direction_table, sources_table, spent
from sstoken.report.numbers import interval, number, signed
from sstoken.report.prediction import prediction_table
from sstoken.selection.methods import load_methods

FIGURE = re.compile(r"\]\((?P<path>(?:[^\s)]+/)?figures/(?P<experiment>[^/\s)]+)/(?P<name>[^/\s)]+\.svg))\)")
MARKED = re.compile(r"(<!-- table: (?P<what>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)

DIRECTIONS = "audit/*/direction.csv"
FROM_AUDIT = {
    "spent": (["config.json"], spent),
    "auc": (["audit/audit.csv"], auc_table),
    "direction": ([DIRECTIONS], direction_table),
    "prediction": ([DIRECTIONS, "report/tables/averages.csv"], prediction_table),
}
"""Word -> the files that it is made from, below ``results/E``, and what makes it."""


def fill(path: Path, results: Path = Path("results")) -> tuple[list[str], list[str]]:
    """Rewrite the file's tables and copy its figures.

    Returns:
        Those that were written, and those left as they are since their run is not there.
    """
    done, left = [], []

    def replaced(found: re.Match) -> str:
        table = _table(found["what"].split(), results)
        (left if table is None else done).append(found["what"])
        return found[0] if table is None else f"{found[1]}\n{table.strip()}\n\n{found[3]}"

    text = MARKED.sub(replaced, path.read_text())
    path.write_text(text)
    for found in FIGURE.finditer(text):
        figure = results / found["experiment"] / "report" / "figures" / found["name"]
        (done if figure.exists() else left).append(f"figure {Path(found['name']).stem} {found['experiment']}")
        if figure.exists():
            (path.parent / found["path"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(figure, path.parent / found["path"])
    return done, left


def _table(words: list[str], results: Path) -> str | None:
    if words == ["bench"]:
        path = results / "bench" / "step.json"
        return _bench(json.loads(path.read_text())) if path.exists() else None
    if words == ["methods"]:
        return markdown(load_methods())
    name, *experiments = words
    if name == "sources":
        roots = [results / experiment for experiment in experiments]
        return sources_table(roots) if all((root / "audit" / "audit.csv").exists() for root in roots) else None
    [experiment] = experiments
    if name in FROM_AUDIT:
        needed, make = FROM_AUDIT[name]
        return make(results / experiment) if all(any((results / experiment).glob(path)) for path in needed) else None
    tables = results / experiment / "report" / "tables"
    if name in ("averages", "differences"):
        path = tables / f"{name}.csv"
        return _matrix(pd.read_csv(path), name) if path.exists() else None
    path = tables / f"{name}.md"
    return path.read_text() if path.exists() else None


def _matrix(frame: pd.DataFrame, name: str) -> str:
    """One row a method, one column a model, of the averages over benchmarks."""
    frame = frame[frame["benchmark"] == "Average"]
    if name == "differences":
        frame = frame[frame["against"] == "full"]
    models, methods = list(dict.fromkeys(frame["model"])), list(dict.fromkeys(frame["method"]))
    cells = {(row["model"], row["method"]): _cell(row, name) for _, row in frame.iterrows()}
    head = "method" if name == "averages" else "method minus full"
    lines = [f"| {head} | {' | '.join(models)} |", "|---|" + "--:|" * len(models)]
    lines += [f"| {method} | {' | '.join(cells.get((model, method), '') for model in models)} |" for method in methods]
    return "\n".join(lines)


def _cell(row: pd.Series, name: str) -> str:
    if pd.isna(row["estimate"]):
        return ""
    if name == "averages":
        return f"{number(row['estimate'], 1)} ± {number((row['high'] - row['low']) / 2, 1)}"
    return f"{signed(row['estimate'], 1)} {interval(row['low'], row['high'], 1, plus=True)}" + "*" * bool(
        row["significant"]
    )


def _bench(rows: list[dict]) -> str:
    whole = [row for row in rows if row.get("ratio_to_hf_full") is not None]
    lines = [
        "| device | shape | case | seconds | ratio to plain Hugging Face | peak memory, GB |",
        "|---|---|---|--:|--:|--:|",
    ]
    for row in whole:
        seconds = row["seconds"] if isinstance(row["seconds"], float) else statistics.median(row["seconds_each"])
        lines.append(
            f"| {row['device']} | {row['shape']} | {row['case']} | {seconds:.2f} | {row['ratio_to_hf_full']:.2f} "
            f"| {row['peak_memory_bytes'] / 1e9:.2f} |"
        )
    return "\n".join(lines)
