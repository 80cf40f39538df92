"""The table of models: one row a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sstoken.records.documents import read_table, schema, validate


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


MODELS_FILE = "sstoken/models/models.tsv"


def load_models(path: str | Path = MODELS_FILE, own: list[dict] | None = None) -> dict[str, ModelEntry]:
    """name -> entry: the shipped models, then those of ``path``, then ``own`` rows; a later row of a name goes before.

    Raises:
        ConfigError: names the file and line, or the own row.
    """
    rows = [*read_table(MODELS_FILE, "models"), *read_table(path, "models")]
    for number, row in enumerate(own or []):
        text = {key: "" if v is None else f"{v:g}" if isinstance(v, float) else str(v) for key, v in row.items()}
        validate(text, schema("models"), f"own_models[{number}]")
        rows.append(text)
    entries = {}
    for row in rows:
        revision, ratio = row.get("revision") or None, row.get("keep_ratio") or None
        fields = {k: row[k] for k in ("name", "family", "size", "source")}
        entries[row["name"]] = ModelEntry(**fields, revision=revision, keep_ratio=float(ratio) if ratio else None)
    return entries
