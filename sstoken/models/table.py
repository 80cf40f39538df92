"""The table of models: one row a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sstoken.records.documents import read_table


@dataclass(frozen=True)
class ModelEntry:
    """One row of ``models.tsv``.

    source: where the weights come from (see ``sstoken.models.sources``). revision: of a hub model.
    keep_ratio: replaces every selecting method's ρ for this model (the papers: 0.8 for Qwen2.5-14B); None = the method's.
    """

    name: str
    family: str
    size: str
    source: str
    revision: str | None = None
    keep_ratio: float | None = None


def load_models(path: str | Path) -> dict[str, ModelEntry]:
    entries = {}
    for row in read_table(path, "models"):
        revision, ratio = row.get("revision") or None, row.get("keep_ratio") or None
        fields = {k: row[k] for k in ("name", "family", "size", "source")}
        entries[row["name"]] = ModelEntry(**fields, revision=revision, keep_ratio=float(ratio) if ratio else None)
    return entries
