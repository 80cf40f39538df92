"""Where a run's numbers come from: every record that its jobs left, boiled down to what differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PATTERNS = ["models/*/model.json", "tokens/*/*.json", "references/*/*/*.json", "runs/*/*/seed*/**/run.json"]
EVALUATIONS = "scores/*/*/seed*/evaluation.json"


@dataclass(frozen=True)
class Origin:
    """software: name -> the versions found (one, if all is well). hashes: (what, sha256)."""

    records: int
    software: dict[str, list[str]]
    hashes: list[tuple[str, str]]

    @property
    def mixed(self) -> list[str]:
        """What is not the same in all records."""
        return [name for name, values in self.software.items() if len(values) > 1]


def origin_of(root: Path, counts: Callable[[Path], bool] = lambda path: True) -> Origin:
    """
    Args:
        counts: whether a record is one of the report's.
    """
    paths = [path for pattern in [*PATTERNS, EVALUATIONS] for path in sorted(root.glob(pattern)) if counts(path)]
    found: dict[str, set[str]] = {"commit": set(), "device": set(), "platform": set()}
    hashes = []
    for path in paths:
        record = json.loads(path.read_text())
        software = record["software"]
        found["commit"].add(software["commit"])
        found["platform"].add(software["platform"])
        if device := record["cost"].get("device"):
            found["device"].add(device)
        for name, version in software["versions"].items():
            if version:
                found.setdefault(name, set()).add(version)
        if path.name == "model.json" and "weights_sha256" in record:
            hashes.append((f"weights of {path.parent.name}", record["weights_sha256"]))
        if path.parents[1].name == "tokens":
            hashes.append((f"tokens of {path.stem} for {path.parent.name}", record["tokens_sha256"]))
    hashes += _data_hashes(paths)
    return Origin(len(paths), {name: sorted(values) for name, values in found.items() if values}, hashes)


def _data_hashes(paths: list[Path]) -> list[tuple[str, str]]:
    """Of the benchmarks' files, from the evaluations that read them."""
    files: dict[str, str] = {}
    for path in paths:
        if path.name == "evaluation.json":
            benchmarks = json.loads(path.read_text()).get("evaluation", {}).get("benchmarks", {})
            for details in benchmarks.values():
                files |= details.get("data_files", {})
    return sorted(files.items())
