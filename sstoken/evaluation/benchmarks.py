"""The rows of benchmarks.tsv and the settings of an evaluation: plain values, no lm_eval."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sstoken.records.documents import ConfigError, pick, read_table


class EvaluationError(ValueError):
    """An evaluation that cannot be run as asked: names the benchmark, what is wrong and what to do."""


@dataclass(frozen=True)
class Benchmark:
    """One row of benchmarks.tsv.

    name: the key everywhere, e.g. ``mmlu``. task: lm-eval's task or group, its own or one of ``sstoken/tasks``.
    shots: worked examples before a question. metric: as lm-eval names it, ``metric`` or ``metric,filter``.
    version: what the scores stand for, asserted against the task file: ``1.0``, or for a group ``group/subtasks``.
    chance: score of guessing, in 0..1: one over the number of choices, 0 for generated answers. For AGIEval the mean
    over its 21 subtasks by size (some questions of JEC-QA accept several choices, mathematics has none); for
    TruthfulQA the share of an answer list that is true (over 150 of its 817 questions). column: the paper's title.
    data: the task's local JSON lines, relative to the data root; ``{split}``, ``{dataset_name}`` (of the task file) and
    ``{subset}`` (the last part of the task file's data set path, without a leading ``<task>-``) are filled in for
    each subtask. Empty: the benchmark has no local form.
    """

    name: str
    task: str
    shots: int
    metric: str
    version: str
    chance: float
    column: str
    data: str = ""

    @property
    def metric_key(self) -> tuple[str, str]:
        """(metric, filter) as lm-eval keys its results."""
        metric, _, answer_filter = self.metric.partition(",")
        return metric, answer_filter or "none"


@dataclass(frozen=True)
class EvaluationSettings:
    """What moves a score besides the model; recorded beside each one.

    batch_size: requests at a time. dtype: of the model's weights, asserted. max_length: tokens a request, cut from the
    left (None: the model's own). max_gen_toks: upper bound on generated tokens (None: the task's own).
    add_bos: put BOS before a request (None: as the tokenizer does). limit: questions of a benchmark in all, spread
    evenly over its subtasks, the first ones of each. limit_fraction: share of every subtask's questions, in (0, 1),
    the first ones (TokenCleaning: 0.99). seed: of Python, NumPy, torch and lm-eval's few-shot order. backend: ``hf`` (the
    papers') or ``vllm``.
    """

    batch_size: int = 8
    dtype: str = "bfloat16"
    max_length: int | None = None
    add_bos: bool | None = None
    limit: int | None = None
    limit_fraction: float | None = None
    seed: int = 1234
    max_gen_toks: int | None = None
    backend: str = "hf"

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit_fraction is not None:
            raise EvaluationError("limit and limit_fraction are both set; keep one of them")
        if self.limit is not None and self.limit < 1:
            raise EvaluationError(f"limit is {self.limit}; it counts questions, so at least 1 (or none for all)")
        if self.limit_fraction is not None and not 0 < self.limit_fraction < 1:
            raise EvaluationError(f"limit_fraction is {self.limit_fraction}; it lies between 0 and 1 (or none for all)")


def load_benchmarks(path: str | Path, names: list[str] | None = None) -> list[Benchmark]:
    """The rows called ``names``, in that order (None: every row, in file order).

    Raises:
        ConfigError: an unknown name (the known ones are listed), a row that is not as the schema says.
    """
    known = {}
    for row in read_table(path, "benchmarks"):
        try:
            known[row["name"]] = Benchmark(**{**row, "shots": int(row["shots"]), "chance": float(row["chance"])})
        except ValueError as error:
            raise ConfigError(f"{path}: benchmark {row['name']!r}: {error}") from error
    return list(pick("benchmark", list(known) if names is None else names, known, path).values())
