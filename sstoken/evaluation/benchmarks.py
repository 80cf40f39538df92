"""The rows of benchmarks.tsv and the settings of an evaluation: plain values, no lm_eval."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from sstoken import tasks as our_tasks
from sstoken.records.documents import ConfigError, pick, read_table
from sstoken.records.files import sha256_file

OUR_TASKS = Path(our_tasks.__file__).parent
TYDIQA = "sstoken_tydiqa"
LOCAL = "local"  # the data set path of a task of ours that has none on the hub


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
    each subtask; an absolute path stands for itself, below no data root. Empty: the benchmark has no local form.
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
    papers') or ``vllm``. tydiqa_prompts: a file with another wording of TyDiQA's instructions (None: ours).
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
    tydiqa_prompts: str | None = None

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


def benchmark_identity(benchmark: Benchmark, settings: EvaluationSettings, data_root: str | Path | None) -> str:
    """A hash over all that the benchmark's scores depend on besides model, tokenizer and device.

    Over its row (but for its name, title, score of guessing and where its files lie), the settings, lm-eval's version, every
    file that its data pattern names below ``data_root``, and the source of a task of ours. Reads no task: it costs
    milliseconds.

    Raises:
        EvaluationError: a data root that holds no file of the benchmark, or a file of prompts that is not there.
    """
    row = {key: value for key, value in asdict(benchmark).items() if key not in ("name", "chance", "column", "data")}
    asked = asdict(settings)
    prompts = asked.pop("tydiqa_prompts")
    files = {}
    if data_root is not None or Path(benchmark.data).is_absolute():
        pattern = Path(data_root or "/") / benchmark.data
        named = re.split(r"{\w+}", str(pattern))
        paths = [Path(path) for path in sorted(glob.glob("*".join(map(glob.escape, named)))) if Path(path).is_file()]
        if not (benchmark.data and paths):
            raise EvaluationError(f"benchmark {benchmark.name!r}: no file {pattern}")
        files = {file_key(benchmark, path, data_root): sha256_file(path) for path in paths}
    if prompts is not None and benchmark.task == TYDIQA:
        if not Path(prompts).is_file():
            raise EvaluationError(f"evaluation.tydiqa_prompts: no file {prompts}")
        files["tydiqa_prompts"] = sha256_file(prompts)
    parts = [row, asked, version("lm_eval"), files, task_source(benchmark.task)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def file_key(benchmark: Benchmark, path: Path, data_root: str | Path | None) -> str:
    """How a benchmark's file is called in records, which name no folder of this machine."""
    return path.name if Path(benchmark.data).is_absolute() else path.relative_to(data_root).as_posix()


def task_source(task: str) -> dict[str, str]:
    """sha256 of every file that a task of ours is made of, by path below ``sstoken/tasks``; none for lm-eval's own."""
    found = _our_tasks().get(task)
    if found is None:
        return {}
    folders, new = {"."}, {found}
    while new:  # a task's helpers may use another task's
        folders |= new
        sources = [path.read_text() for name in new for path in (OUR_TASKS / name).glob("*.py")]
        named = {name for text in sources for name in re.findall(r"sstoken\.tasks\.(\w+)", text)}
        new = {name for name in named if (OUR_TASKS / name).is_dir()} - folders
    files = [path for name in folders for path in (OUR_TASKS / name).glob("*") if path.suffix != ".pyc"]
    return {path.relative_to(OUR_TASKS).as_posix(): sha256_file(path) for path in sorted(files) if path.is_file()}


@cache
def _our_tasks() -> dict[str, str]:
    """Name of a task or group of ours -> its folder."""
    found = {}
    for path in OUR_TASKS.glob("*/*.yaml"):
        head = re.search(r"^(?:task|group): (\w+)$", path.read_text(), re.MULTILINE)
        if head:
            found[head[1]] = path.parent.name
    return found
