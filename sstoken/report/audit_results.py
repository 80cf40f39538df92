"""An experiment's numbers as Markdown, for documents: AUC by kind of noise, the direction, and what it all took."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from sstoken.report.numbers import EMPTY, interval, number, signed

ROOMS = ("models", "tokens", "references", "runs", "audit", "scores")
"""Folders whose records say what their jobs took."""
GROUPS = {"all": "all noise", "varying": "without fixed tokens", "harm": "mean of kinds"}


def auc_table(root: Path) -> str:
    """A row a kind of noise, a column a method: AUC ± half its 95 % interval; a table a model.

    Args:
        root: ``results/{experiment}`` with ``audit/audit.csv``.
    """
    rows = pd.read_csv(root / "audit" / "audit.csv", dtype={"phase": str})
    rows = rows[(rows["phase"] == "all") & rows["auc"].notna()]
    tables = []
    for model, mine in rows.groupby("model", sort=False):
        methods = list(dict.fromkeys(mine["method"]))
        kinds = [*GROUPS, *(kind for kind in dict.fromkeys(mine["kind"]) if kind not in GROUPS)]
        cells = mine.set_index(["kind", "method"])
        lines = [f"| {model}: noise | tokens | {' | '.join(methods)} |", "|---|--:|" + "--:|" * len(methods)]
        for kind in kinds:
            if kind not in cells.index.get_level_values(0):
                continue
            found = [_auc(cells.loc[(kind, m)]) if (kind, m) in cells.index else EMPTY for m in methods]
            count = int(cells.loc[kind]["n_tokens"].iloc[0])
            lines.append(f"| {GROUPS.get(kind, kind.replace('_', ' '))} | {count} | {' | '.join(found)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def sources_table(roots: list[Path]) -> str:
    """A row a method, a column an experiment: AUC of all noise ± half its 95 % interval, what it is of and what it took.

    Args:
        roots: ``results/{experiment}`` with ``audit/audit.csv`` each, of one model and alike but for their labelled rows.

    Raises:
        ValueError: an audit of several models, or of rows without labels.
    """
    columns = []
    for root in roots:
        rows = pd.read_csv(root / "audit" / "audit.csv", dtype={"phase": str})
        rows = rows[(rows["phase"] == "all") & (rows["kind"] == "all")].set_index("method")
        if rows.empty or rows.index.has_duplicates:
            raise ValueError(f"{root}: the table of sources takes audits of one model, of labelled rows")
        minutes, samples = _costs(root)
        own = {method: _auc(row) for method, row in rows.iterrows()}
        own["rows; noise tokens"] = f"{samples['train']}; {rows['n_tokens'].iloc[0]}"
        own["CPU minutes"] = number(sum(minutes.values()), 0)
        columns.append(own)
    configs = [json.loads((root / "config.json").read_text()) for root in roots]
    heads = [
        ", ".join(
            Path(source.replace("{instruct_data}", str(config.get("instruct_data")))).stem
            for source in config["data"]["train"]["sources"]
        )
        for config in configs
    ]
    heads = heads if len(set(heads)) == len(heads) else [root.name for root in roots]
    last = ("rows; noise tokens", "CPU minutes")
    names = sorted(dict.fromkeys(name for own in columns for name in own), key=last.__contains__)
    lines = [f"| method | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    lines += [f"| {name} | {' | '.join(own.get(name, EMPTY) for own in columns)} |" for name in names]
    return "\n".join(lines)


def _auc(row: pd.Series) -> str:
    half = EMPTY if pd.isna(row["low"]) else number((row["high"] - row["low"]) / 2)
    return f"{number(row['auc'])} ± {half}"


def direction_table(root: Path) -> str:
    """A row a method: cosine of its gradient with that of held-out rows; of one model also that minus full's."""
    parts = []
    for path in sorted(root.glob("audit/*/direction.csv")):
        frame = pd.read_csv(path, dtype={"step": str})
        parts.append(frame[frame["step"] == "all"].assign(model=path.parent.name))
    rows = pd.concat(parts)
    models, methods = list(dict.fromkeys(rows["model"])), list(dict.fromkeys(rows["method"]))
    heads = models if len(models) > 1 else ["cosine", "minus full"]
    lines = [f"| method | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    cells = rows.set_index(["method", "model"])
    for method in methods:
        known = [cells.loc[(method, model)] if (method, model) in cells.index else None for model in models]
        found = [EMPTY if row is None else _cosine(row) for row in known]
        if len(models) == 1:
            found.append(EMPTY if method == "full" else _minus_full(known[0]))
        lines.append(f"| {method} | {' | '.join(found)} |")
    return "\n".join(lines)


def _cosine(row: pd.Series) -> str:
    return f"{number(row['cosine'], 3)} {interval(row['low'], row['high'], 3)}"


def _minus_full(row: pd.Series) -> str:
    ends = interval(row["minus_full_low"], row["minus_full_high"], 3, plus=True)
    return f"{signed(row['minus_full'], 3)} {ends}"


def spent(root: Path) -> str:
    """One line: model, seeds, rows, and the CPU minutes of every stage, from the records of its jobs.

    Args:
        root: ``results/{experiment}``.
    """
    config = json.loads((root / "config.json").read_text())
    minutes, rows = _costs(root)
    shown = ", ".join(f"{stage} {number(value, 1)}" for stage, value in minutes.items())
    seeds = ", ".join(map(str, config["seeds"]))
    held = ", ".join(f"{count} {name}" for name, count in rows.items())
    return (
        f"{', '.join(config['models'])}; seed{'s' * (len(config['seeds']) > 1)} {seeds}; rows: {held}. "
        f"{number(sum(minutes.values()), 0)} CPU minutes: {shown}."
    )


def _costs(root: Path) -> tuple[dict[str, float], dict[str, int]]:
    """(stage -> CPU minutes, data set -> its samples), from the records of the jobs."""
    minutes: dict[str, float] = {}
    rows: dict[str, int] = {}
    for path in (path for room in ROOMS for path in sorted((root / room).rglob("*.json"))):
        record = json.loads(path.read_text())
        cost = record.get("cost") if isinstance(record, dict) else None
        if not cost:
            continue
        minutes[cost["stage"]] = minutes.get(cost["stage"], 0.0) + (cost.get("cpu_seconds") or cost["seconds"]) / 60
        if cost["stage"] == "tokens":
            rows[record["dataset"]] = record["samples"]
    return minutes, rows
