"""Models, the embedded world, tokens: what runs start from."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

from sstoken.jobs import job, use_hub
from sstoken.models.table import ModelEntry
from sstoken.records.files import sha256_file
from sstoken.records.provenance import Cost, Record, measured


def store_base(name: str, share: float, record: Path, *, threads: int = 1) -> None:
    """Pre-train one of the embedded world's bases into the record's folder."""
    from sstoken.world.pretrain import pretrain_base

    with job(record, threads):
        cost = Cost("pretrain", model=name)
        with measured(cost, "cpu"):
            losses = pretrain_base(name, record.parent, share=share)
        Record(cost, {"share": share, "steps": len(losses), "last_loss": sum(losses[-50:]) / len(losses[-50:])}).write(
            record
        )


def store_model(entry: ModelEntry, record: Path, *, bases: Path | None = None, threads: int = 1) -> None:
    """Bring a model into the record's folder as config, tokenizer and safetensors."""
    if entry.source.startswith("hub:"):
        use_hub()
    from sstoken.models.sources import materialise, weights_sha256

    with job(record, threads):
        cost = Cost("model", model=entry.name)
        with measured(cost, "cpu"):
            materialise(entry, record.parent, bases=bases)
        Record(cost, {"entry": asdict(entry), "weights_sha256": weights_sha256(record.parent)}).write(record)


def store_world(record: Path, *, seed: int, options: dict, threads: int = 1) -> None:
    """Generate the embedded world's rows and benchmarks into the record's folder."""
    from sstoken.world import generate

    with job(record, threads):
        cost = Cost("world", seed=seed)
        with measured(cost, "cpu"):
            generate(record.parent, seed=seed, **options)
        files = sorted(path for path in record.parent.rglob("*.jsonl"))
        hashes = {str(path.relative_to(record.parent)): sha256_file(path) for path in files}
        Record(cost, {"seed": seed, "options": options, "files": hashes}).write(record)


def store_tokens(
    *, model: Path, section: dict, text: dict, out: Path, name: str, dataset: str, threads: int = 1
) -> None:
    """Read a data set's rows, plant its noise, render, tokenise and store them.

    The record beside lists what became of the rows: their forms, noise by kind, keys that were not read, samples cut,
    turns without an end, bad rows.
    """
    from sstoken.data import check_limits, planted, read_rows, tokenize
    from sstoken.models.load import load_tokenizer

    record = out.with_suffix(".json")
    with job(record, threads):
        cost = Cost("tokens", model=name)
        with measured(cost, "cpu"):
            policy = text["on_bad_row"]
            noise = section.get("noise")
            rows, bad = read_rows(on_bad_row=policy, **{k: v for k, v in section.items() if k != "noise"})
            rows, planting = (rows, None) if noise is None else planted(rows, noise)
            options = {"template": text["template"], "max_length": text["max_length"], "on_bad_row": policy}
            data, cut = tokenize(rows, load_tokenizer(model), counts=(counts := Counter()), **options)
            check_limits(data, model)
            data.save(out)
        cost.tokens = len(data.input_ids)
        details = {
            "dataset": dataset, "section": section, "text": text, "samples": len(data), "tokens": len(data.input_ids),
            "response_tokens": int(data.response_offset[-1]), "tokens_sha256": data.sha256,
            "truth_sha256": data.truth_sha256, "kinds": data.kinds, "forms": Counter(row.form for row in rows),
            "unread_keys": Counter(key for row in rows for key in row.unread), "planting": planting, **counts,
            "dropped_rows": [asdict(row) for row in [*bad, *cut]],
        }  # fmt: skip
        Record(cost, details).write(record)
