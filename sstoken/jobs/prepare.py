"""Models, the embedded world, tokens: what runs start from."""

from __future__ import annotations

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
    """Read a data set's rows, render, tokenise and store them; bad rows are listed in the record beside."""
    from sstoken.data import read_rows, tokenize
    from sstoken.models.fits import check_fits
    from sstoken.models.load import load_config, load_tokenizer

    record = out.with_suffix(".json")
    with job(record, threads):
        cost = Cost("tokens", model=name)
        with measured(cost, "cpu"):
            policy = text["on_bad_row"]
            rows, bad = read_rows(on_bad_row=policy, **section)
            options = {"template": text["template"], "max_length": text["max_length"], "on_bad_row": policy}
            data, cut = tokenize(rows, tokenizer := load_tokenizer(model), **options)
            check_fits(data, tokenizer, load_config(model), name)
            data.save(out)
        cost.tokens = len(data.input_ids)
        details = {
            "dataset": dataset, "section": section, "text": text, "samples": len(data), "tokens": len(data.input_ids),
            "response_tokens": int(data.response_offset[-1]), "tokens_sha256": data.sha256, "kinds": data.kinds,
            "dropped_rows": [asdict(row) for row in [*bad, *cut]],
        }  # fmt: skip
        Record(cost, details).write(record)
