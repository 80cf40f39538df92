"""What comes from the hub, as plain files: rows of instruction data, rows of benchmarks. The only jobs that need network."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sstoken.jobs import job, use_hub
from sstoken.records.documents import ConfigError, read_table
from sstoken.records.files import atomic_write, sha256_file
from sstoken.records.identity import name_of
from sstoken.records.provenance import Cost, Record, measured
from sstoken.records.ticket import Ticket


def store_hub_rows(source: str, out: Path, *, lock: Path, ticket: Ticket, threads: int = 1) -> None:
    """The rows of ``hub:owner/name[@revision][:split]`` as JSON lines."""
    use_hub()
    from sstoken.models.hub import dataset_rows

    repo, _, split = source.removeprefix("hub:").partition(":")
    repo, _, revision = repo.partition("@")
    record = out.with_suffix(".json")
    with job(record, threads, ticket) as finished:
        if finished:
            return
        cost = Cost("fetch")
        with measured(cost, "cpu"):
            found, rows = dataset_rows(repo, revision or None, None, split or "train", lock=lock)
            count = _write(out, rows)
        details = {"source": source, "commit": found.commit, "rows": count, "content": sha256_file(out)}
        details["files"] = {out.name: details["content"]}
        Record(cost, details | ticket.details()).write(record)


def store_benchmarks(
    tickets: dict[str, Ticket], folder: Path, *, benchmarks_file: str, datasets_file: str, lock: Path, threads: int = 1
) -> None:
    """Every split that the benchmarks read as JSON lines below ``folder``, laid out as ``benchmarks_file`` says.

    A record ``{benchmark}.json`` says which commit and split each file is, and its hash.

    Args:
        tickets: of each benchmark by name.

    Raises:
        ConfigError: a task reads a data set that ``datasets_file`` does not pin.
    """
    use_hub()
    from sstoken.evaluation import hub_splits, load_benchmarks
    from sstoken.models.hub import dataset_rows

    pins = {row["name"]: row["revision"] for row in read_table(datasets_file, "datasets")}
    for benchmark in load_benchmarks(benchmarks_file, list(tickets)):
        record = folder / f"{benchmark.name}.json"
        ticket = tickets[benchmark.name]
        with job(record, threads, ticket) as finished:
            if finished:
                continue
            cost, files = Cost("fetch", method=benchmark.name), {}
            with measured(cost, "cpu"):
                for split in hub_splits(benchmark):
                    if split.repo not in pins:
                        raise ConfigError(
                            f"{datasets_file}: benchmark {benchmark.name!r} reads the data set {split.repo}, which is "
                            f"not pinned there (pinned: {', '.join(pins)})"
                        )
                    pin, out = pins[split.repo], folder / split.path
                    found, rows = dataset_rows(
                        split.repo, pin, split.config, split.split, lock=lock, data_files=split.data_files
                    )
                    files[split.path.as_posix()] = {
                        "repo": split.repo, "commit": found.commit, "config": split.config, "split": split.split,
                        "rows": _write(out, rows), "sha256": sha256_file(out),
                    }  # fmt: skip
            details = {"benchmark": benchmark.name, "task_version": benchmark.version, "files": files}
            details["content"] = name_of({path: file["sha256"] for path, file in files.items()})
            Record(cost, details | ticket.details()).write(record)


def _write(out: Path, rows: Iterable[dict]) -> int:
    count = 0
    with atomic_write(out) as temporary, open(temporary, "w") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    if not count:
        raise ConfigError(f"{out}: no rows")
    return count
