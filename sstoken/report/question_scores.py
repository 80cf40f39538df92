"""Scores of every question of every run, as arrays: what all statistics are computed from.

Shapes: M methods, S seeds, Q questions of a benchmark, B benchmarks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

AVERAGE = "Average"
"""What stands in the column ``benchmark`` for the unweighted mean over all benchmarks."""
NAMES = ["method", "benchmark", "question_id", "cluster_id"]
MISSING_COLUMNS = ["model", "method", "seed", "why"]


@dataclass(frozen=True)
class ModelRuns:
    """The complete runs of one model.

    methods: those of which every run is there.
    seeded: [M] bool; False: one run stands for every seed (the untrained base), so it has no seed variance.
    scores: of each benchmark [M, S, Q] in percent points; the run of an unseeded method is repeated.
    clusters: of each benchmark [Q], ascending integers. Questions about one passage or one entity have the same number,
    in whichever benchmarks they stand.
    questions: of each benchmark [Q], their ids.
    """

    model: str
    methods: tuple[str, ...]
    seeded: np.ndarray
    benchmarks: tuple[str, ...]
    scores: tuple[np.ndarray, ...]
    clusters: tuple[np.ndarray, ...]
    questions: tuple[np.ndarray, ...] = ()


def read_runs(
    samples: Path, model: str, seeds: dict[str, list[int]], benchmarks: list[str]
) -> tuple[ModelRuns, pd.DataFrame]:
    """Read one model's runs; a method lacking a run, or a run lacking a benchmark, is left out whole and listed.

    Args:
        samples: ``samples.parquet``. seeds: method -> the seeds that it should have been run with, in order.
        benchmarks: those that every run should have been scored on, in order.

    Returns:
        the runs, and what is missing: ``model, method, seed, why``.

    Raises:
        ValueError: two runs were scored on different questions, or one question twice: they can't be compared.
    """
    rows, levels = _read(samples, model, list(seeds), benchmarks)
    runs = {(method, seed): number for number, (method, seed) in enumerate(_pairs(seeds))}
    run_of = pd.MultiIndex.from_tuples(runs).get_indexer(
        pd.MultiIndex.from_arrays([levels["method"][rows["method"]], rows["seed"]])
    )
    rows = {name: values[run_of >= 0] for name, values in rows.items()}
    run_of = run_of[run_of >= 0]
    task_of = pd.Index(benchmarks).get_indexer(levels["benchmark"])[rows["benchmark"]]
    count_RB = np.zeros((len(runs), len(benchmarks)), dtype=np.int64)
    np.add.at(count_RB, (run_of, task_of), 1)

    missing = _missing(model, runs, count_RB, benchmarks)
    left_out = set(missing["method"])
    complete = [method for method in seeds if method not in left_out]
    width = max((len(seeds[method]) for method in complete), default=0)
    for method in complete:
        if len(seeds[method]) not in (1, width):
            raise ValueError(f"method {method} has {len(seeds[method])} runs, others {width}: runs must be one or all")
    order = np.array([[runs[m, s] for s in (seeds[m] * width if len(seeds[m]) == 1 else seeds[m])] for m in complete])

    scores, clusters, questions = [], [], []
    by_task = np.argsort(task_of, kind="stable")
    bounds = np.searchsorted(task_of[by_task], np.arange(len(benchmarks) + 1))
    for task, benchmark in enumerate(benchmarks):
        here = by_task[bounds[task] : bounds[task + 1]]
        here = here[np.isin(run_of[here], order)]
        values, cluster, question = _align(rows, run_of, here, model, benchmark)
        position = np.searchsorted(np.unique(order), order)
        scores.append(values[position])
        clusters.append(cluster)
        questions.append(levels["question_id"][question])
    seeded = np.array([len(seeds[method]) > 1 or width == 1 for method in complete], dtype=bool)
    columns = map(tuple, (scores, clusters, questions))
    return ModelRuns(model, tuple(complete), seeded, tuple(benchmarks), *columns), missing


def pooled(models: list[ModelRuns], name: str) -> ModelRuns:
    """All models as one: the score of method m with seed s on question q is its mean over the models.

    The models are fixed, their unweighted mean is what is estimated.  They answer the same questions, and runs of one seed
    share their data, so questions and seeds stay the blocks that they are for a single model.

    Args:
        models: at least one. name: what stands for the model.

    Returns:
        the methods that every model has whole.

    Raises:
        ValueError: two models were scored on different questions, or with different numbers of seeds.
    """
    first = models[0]
    for other in models[1:]:
        alike = other.benchmarks == first.benchmarks and all(
            np.array_equal(mine, theirs)
            for pair in ((first.questions, other.questions), (first.clusters, other.clusters))
            for mine, theirs in zip(*pair, strict=True)
        )
        if not alike or {part.shape[1] for part in other.scores} != {part.shape[1] for part in first.scores}:
            raise ValueError(
                f"models {first.model} and {other.model} were not scored on the same questions with the same seeds, so "
                "there is no mean over models; delete the scores of the runs that are out of date and run again"
            )
    methods = [m for m in first.methods if all(m in runs.methods for runs in models)]
    scores = [
        np.mean([runs.scores[task][[runs.methods.index(m) for m in methods]] for runs in models], axis=0)
        for task in range(len(first.benchmarks))
    ]
    seeded = first.seeded[[first.methods.index(m) for m in methods]]
    return ModelRuns(name, tuple(methods), seeded, first.benchmarks, tuple(scores), first.clusters, first.questions)


def _pairs(seeds: dict[str, list[int]]) -> list[tuple[str, int]]:
    return [(method, seed) for method, theirs in seeds.items() for seed in theirs]


def _read(samples: Path, model: str, methods: list[str], benchmarks: list[str]) -> tuple[dict, dict]:
    """Columns as integers (names are repeated millions of times) and what they stand for, in alphabetical order."""
    keep = [("model", "==", model), ("method", "in", methods), ("benchmark", "in", benchmarks)]
    table = pq.read_table(samples, columns=[*NAMES, "seed", "score"], filters=keep, memory_map=True)
    rows = {name: table[name].to_numpy() for name in ("seed", "score")}
    levels = {}
    for name in NAMES:
        column = table[name]
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        column = column.unify_dictionaries().combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # what pyarrow makes of no rows
            column = (
                pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], "string").dictionary_encode()
            )
        names, place = np.unique(np.array(column.dictionary.to_pylist(), dtype=object).astype(str), return_inverse=True)
        rows[name] = place[column.indices.to_numpy()] if len(place) else column.indices.to_numpy()
        levels[name] = names.astype(object)
    return rows, levels


def _missing(model: str, runs: dict, count_RB: np.ndarray, benchmarks: list[str]) -> pd.DataFrame:
    rows = []
    for (method, seed), run in runs.items():
        holes = [name for name, count in zip(benchmarks, count_RB[run], strict=True) if not count]
        if len(holes) == len(benchmarks):
            rows.append((model, method, seed, "no scores: the run has not ended, or it failed (see its log)"))
        elif holes:
            rows.append((model, method, seed, f"no scores of {', '.join(holes)}"))
    return pd.DataFrame(rows, columns=MISSING_COLUMNS)


def _align(rows: dict, run_of: np.ndarray, here: np.ndarray, model: str, benchmark: str):
    """Scores [runs, Q] in percent, clusters [Q] and questions [Q] as integers; ordered by cluster."""
    if not len(here):
        return np.empty((0, 0)), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    key = (rows["cluster_id"][here], rows["question_id"][here], run_of[here])
    here = here[np.lexsort(key[::-1])]
    present, counts = np.unique(run_of[here], return_counts=True)
    questions = counts[0]
    shape = (questions, len(present))
    if (counts != questions).any() or not (
        (rows["question_id"][here].reshape(shape) == rows["question_id"][here].reshape(shape)[:, :1]).all()
        and (rows["cluster_id"][here].reshape(shape) == rows["cluster_id"][here].reshape(shape)[:, :1]).all()
        and (run_of[here].reshape(shape) == present).all()
    ):
        raise ValueError(
            f"benchmark {benchmark}, model {model}: the runs were not scored on the same questions, each once; "
            "delete the scores of the runs that are out of date and run again"
        )
    cluster, question = (rows[name][here].reshape(shape)[:, 0] for name in ("cluster_id", "question_id"))
    return 100 * rows["score"][here].reshape(shape).T, cluster, question
