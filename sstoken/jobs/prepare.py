"""Models, the embedded world, tokens: what runs start from."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from sstoken.jobs import job, use_hub
from sstoken.models.table import ModelEntry
from sstoken.records.files import sha256_file
from sstoken.records.identity import Ticket, name_of
from sstoken.records.provenance import Cost, Record, measured

# beside tokenizer*: what a tokenizer is read from
TOKENIZER_FILES = (
    "config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges*",
    "chat_template*",
    "*.model",
)


def store_base(name: str, share: float, record: Path, *, ticket: Ticket, threads: int = 1) -> None:
    """Pre-train one of the embedded world's bases into the record's folder."""
    from sstoken.models.sources import weights_sha256
    from sstoken.world.pretrain import pretrain_base

    with job(record, threads, ticket) as finished:
        if finished:
            return
        cost = Cost("pretrain", model=name)
        with measured(cost, "cpu"):
            losses = pretrain_base(name, record.parent, share=share)
        details = {"share": share, "steps": len(losses), "last_loss": sum(losses[-50:]) / len(losses[-50:])}
        details |= {
            "content": weights_sha256(record.parent),
            "files": {name: sha256_file(record.parent / name) for name in ("config.json", "model.safetensors")},
        }
        Record(cost, details | ticket.details()).write(record)


def store_model(
    entry: ModelEntry, record: Path, *, ticket: Ticket, bases: Path | None = None, threads: int = 1
) -> None:
    """Bring a model into the record's folder as config, tokenizer and safetensors."""
    if entry.source.startswith("hub:"):
        use_hub()
    from sstoken.models.sources import materialise, weights_sha256

    folder = record.parent
    with job(record, threads, ticket) as finished:
        if finished:
            return
        cost = Cost("model", model=entry.name)
        with measured(cost, "cpu"):
            materialise(entry, folder, bases=bases)
        weights = weights_sha256(folder)
        files = {path for name in ("tokenizer*", *TOKENIZER_FILES) for path in folder.glob(name) if path.is_file()}
        details = {
            "entry": asdict(entry), "weights_sha256": weights,
            "content": name_of([weights, sha256_file(folder / "config.json")]),
            "tokenizer": name_of({path.name: sha256_file(path) for path in files}),
            "files": {path.name: sha256_file(path) for path in sorted(files | {*folder.glob("*.safetensors")})},
        }  # fmt: skip
        Record(cost, details | ticket.details()).write(record)


def store_world(record: Path, *, seed: int, options: dict, rows_only: bool, ticket: Ticket, threads: int = 1) -> None:
    """Generate the embedded world's rows and benchmarks into the record's folder; the rows alone for one seed's draw."""
    from sstoken.world import generate

    folder = record.parent
    with job(record, threads, ticket) as finished:
        if finished:
            return
        cost = Cost("world", seed=seed)
        with measured(cost, "cpu"):
            generate(folder, seed=seed, **options)
            if rows_only:
                shutil.rmtree(folder / "benchmarks")
                (folder / "corpus.jsonl").unlink(missing_ok=True)
        # another draw of the rows lies in a folder below
        paths = [*folder.glob("*.jsonl"), *folder.glob("benchmarks/**/*.jsonl")]
        files = {path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(paths)}
        rows = {name: sha for name, sha in files.items() if "/" not in name and name != "corpus.jsonl"}
        details = {
            "seed": seed, "options": options, "files": files, "content": name_of(rows),
            "benchmarks": name_of({name: sha for name, sha in files.items() if "/" in name}),
        }  # fmt: skip
        Record(cost, details | ticket.details()).write(record)


def store_tokens(
    *,
    model: Path,
    sections: list[dict],
    text: dict,
    out: Path,
    name: str,
    dataset: str,
    ticket: Ticket,
    threads: int = 1,
) -> None:
    """Read a data set's rows, plant its noise, render, tokenise and store them.

    The record beside lists what became of the rows: their forms, noise by kind, keys that were not read, samples cut,
    turns without an end, bad rows.

    Args:
        sections: what the data set is read from, one after the other; each may plant noise of its own.
    """
    from sstoken.data import check_limits, planted, read_rows, tokenize
    from sstoken.models.fits import check_fits
    from sstoken.models.load import load_config, load_tokenizer

    record = out.with_suffix(".json")
    with job(record, threads, ticket) as finished:
        if finished:
            return
        cost = Cost("tokens", model=name)
        with measured(cost, "cpu"):
            policy = text["on_bad_row"]
            rows, bad, planting = [], [], []
            for section in sections:
                noise = section.get("noise")
                read, faults = read_rows(on_bad_row=policy, **{k: v for k, v in section.items() if k != "noise"})
                if noise is not None:
                    read, carried = planted(read, noise)
                    planting.append(carried)
                rows, bad = [*rows, *read], [*bad, *faults]
            options = {"template": text["template"], "max_length": text["max_length"], "on_bad_row": policy}
            tokenizer = load_tokenizer(model)
            data, cut = tokenize(rows, tokenizer, counts=(counts := Counter()), **options)
            check_limits(data, model)
            check_fits(data, tokenizer, load_config(model), name)
            data.save(out)
        cost.tokens = len(data.input_ids)
        details = {
            "dataset": dataset, "sections": sections, "text": text, "samples": len(data), "tokens": len(data.input_ids),
            "response_tokens": int(data.response_offset[-1]), "tokens_sha256": data.sha256,
            "truth_sha256": data.truth_sha256, "kinds": data.kinds, "forms": Counter(row.form for row in rows),
            "unread_keys": Counter(key for row in rows for key in row.unread), "planting": planting, **counts,
            "dropped_rows": [asdict(row) for row in [*bad, *cut]],
            "content": data.sha256, "truth": data.truth_sha256, "files": {out.name: sha256_file(out)},
        }  # fmt: skip
        Record(cost, details | ticket.details()).write(record)
