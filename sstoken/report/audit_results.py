"""An audit's numbers as Markdown, for documents: AUC by kind of noise, and the direction, both with intervals."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sstoken.report.numbers import EMPTY, interval, number, signed

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


def _auc(row: pd.Series) -> str:
    half = EMPTY if pd.isna(row["low"]) else number((row["high"] - row["low"]) / 2)
    return f"{number(row['auc'])} ± {half}"


def direction_table(root: Path) -> str:
    """A row a method: cosine of its gradient with that of held-out rows, and that minus full's; two columns a model."""
    parts = []
    for path in sorted(root.glob("audit/*/direction.csv")):
        frame = pd.read_csv(path, dtype={"step": str})
        parts.append(frame[frame["step"] == "all"].assign(model=path.parent.name))
    rows = pd.concat(parts)
    models, methods = list(dict.fromkeys(rows["model"])), list(dict.fromkeys(rows["method"]))
    several = len(models) > 1
    heads = [f"{model}: {what}" if several else what for model in models for what in ("cosine", "minus full")]
    lines = [f"| method | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    cells = rows.set_index(["method", "model"])
    for method in methods:
        found = []
        for model in models:
            row = cells.loc[(method, model)] if (method, model) in cells.index else None
            found.append(EMPTY if row is None else f"{number(row['cosine'], 3)} {interval(row['low'], row['high'], 3)}")
            gap = EMPTY if row is None or method == "full" else (
                f"{signed(row['minus_full'], 3)} {interval(row['minus_full_low'], row['minus_full_high'], 3, plus=True)}"
            )  # fmt: skip
            found.append(gap)
        lines.append(f"| {method} | {' | '.join(found)} |")
    return "\n".join(lines)
