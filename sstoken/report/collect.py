"""``scores.csv``, ``samples.parquet`` and ``costs.csv`` from the records that every job left."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sstoken.records.files import atomic_write
from sstoken.records.provenance import COST_COLUMNS, read_record

SCORE_COLUMNS = ["model", "method", "seed", "benchmark", "metric", "score", "stderr", "n_questions", "task_version"]
SAMPLE_COLUMNS = ["model", "method", "seed", "benchmark", "question_id", "cluster_id", "score"]


def collect(evaluations: list[Path], records: list[Path], *, scores: Path, samples: Path, costs: Path) -> None:
    """Write the three tidy files; rows keep the order of the grid, numbers their full precision."""
    score_rows, sample_frames = [], []
    for path in map(Path, evaluations):
        record = read_record(path)
        key = {name: record["cost"][name] for name in ("model", "method", "seed")}
        score_rows += [{**key, **row} for row in record["scores"]]
        sample_frames.append(pd.read_parquet(path.parent / "samples.parquet").assign(**key))
    with atomic_write(scores) as temporary:
        pd.DataFrame(score_rows)[SCORE_COLUMNS].to_csv(temporary, index=False)
    with atomic_write(samples) as temporary:
        pd.concat(sample_frames)[SAMPLE_COLUMNS].to_parquet(temporary, index=False)
    with atomic_write(costs) as temporary:
        pd.DataFrame([read_record(path)["cost"] for path in records])[COST_COLUMNS].to_csv(temporary, index=False)
