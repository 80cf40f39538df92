"""From a benchmark's row to lm-eval task objects: subtasks, versions, local files, which questions."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lm_eval.config.group import AggMetricConfig
from lm_eval.defaults import DEFAULT_MAX_GEN_TOKS
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from sstoken.evaluation.benchmarks import (
    LOCAL,
    OUR_TASKS,
    TYDIQA,
    Benchmark,
    EvaluationError,
    EvaluationSettings,
    file_key,
)
from sstoken.evaluation.local_rows import check_rows, read_splits
from sstoken.records.documents import ConfigError, read_yaml
from sstoken.records.files import sha256_file
from sstoken.tasks.tydiqa.utils import LANGUAGES

WORDS = {"instruction", "passage", "question", "answer"}


@dataclass(frozen=True)
class Plan:
    """What will be run for a benchmark, before any data is read.

    subtasks: one lm-eval override each (``task`` names it). versions: of every subtask. files: sha256 of the local
    files, by path below the data root; empty when the data come from the hub.
    """

    benchmark: Benchmark
    subtasks: list[dict]
    versions: dict[str, str]
    files: dict[str, str]

    @property
    def group(self) -> str:
        # not the benchmark's own name: lm-eval keeps tasks and groups in one table, and a task may be called so
        return f"benchmark:{self.benchmark.name}"


def make_plan(benchmark: Benchmark, settings: EvaluationSettings, data_root: Path | None) -> Plan:
    """Subtasks with their overrides; with ``data_root`` every one of them reads local JSON lines and nothing else.

    Raises:
        EvaluationError: an unknown task, a version that moved, a missing local file, rows that cannot be asked.
    """
    manager = _manager_for(benchmark.task)
    index = manager.task_index
    names = _subtasks(benchmark.task, index, benchmark)
    versions = {name: _version(index[name]) for name in names}
    found = _version_of(benchmark.task, index, versions)
    if found != benchmark.version:
        raise EvaluationError(
            f"benchmark {benchmark.name!r}: benchmarks.tsv is for version {benchmark.version} of task "
            f"{benchmark.task!r}, this lm-eval has version {found}: scores are not comparable. "
            "Install the pinned lm-eval or change the row"
        )
    if settings.limit is not None and settings.limit < len(names):
        names = [names[i * len(names) // settings.limit] for i in range(settings.limit)]
    subtasks, files = [], {}
    wording = {}
    if settings.tydiqa_prompts is not None and benchmark.task == TYDIQA:
        wording = tydiqa_wording(settings.tydiqa_prompts)
        files["tydiqa_prompts"] = sha256_file(settings.tydiqa_prompts)
    for name in names:
        config = index[name].cfg
        override = {"task": name, "num_fewshot": benchmark.shots, **wording.get(name, {})}
        if settings.max_gen_toks is not None and config.get("output_type", "generate_until") == "generate_until":
            generation = dict(config.get("generation_kwargs") or {})
            own = generation.get("max_gen_toks", DEFAULT_MAX_GEN_TOKS)
            override["generation_kwargs"] = {**generation, "max_gen_toks": min(own, settings.max_gen_toks)}
        if config.get("dataset_path") == LOCAL and data_root is None and not Path(benchmark.data).is_absolute():
            raise EvaluationError(
                f"benchmark {benchmark.name!r} has no rows on the hub: give benchmarks_data a folder with {benchmark.data}"
            )
        own = data_root is not None or config.get("dataset_path") == LOCAL
        if own and "custom_dataset" not in config:
            paths = _local_files(benchmark, config, Path(data_root or "/"))
            override.update(_from_files(config, paths))
            files.update({file_key(benchmark, path, data_root): sha256_file(path) for path in paths.values()})
            _check_rows(benchmark.name, json.dumps(override), tuple(sha256_file(p) for p in paths.values()))
        subtasks.append(override)
    return Plan(benchmark, subtasks, {name: versions[name] for name in names}, files)


@dataclass(frozen=True)
class HubSplit:
    """One split that a benchmark reads from the hub, and where its rows lie below a data root once fetched.

    config: of the data set, None = its default. data_files: the task's own choice of a file, None = the card's.
    """

    repo: str
    config: str | None
    split: str
    data_files: str | None
    path: Path


def hub_splits(benchmark: Benchmark) -> list[HubSplit]:
    """Every split that the benchmark's subtasks read, each once; none for rows that are made here.

    Raises:
        EvaluationError: as ``make_plan``.
    """
    index = _manager_for(benchmark.task).task_index
    if benchmark.task in index and index[benchmark.task].cfg.get("dataset_path") == LOCAL:
        return []
    make_plan(benchmark, EvaluationSettings(), None)  # its checks
    found = {}
    for name in _subtasks(benchmark.task, index, benchmark):
        config = index[name].cfg
        for split, path in _local_paths(benchmark, config, Path()).items():
            chosen = ((config.get("dataset_kwargs") or {}).get("data_files") or {}).get(split)
            found[path] = HubSplit(config["dataset_path"], config.get("dataset_name"), split, chosen, path)
    return list(found.values())


def load(plan: Plan, tokenizer: str) -> dict:
    """lm-eval's own dictionary of task objects, under one group that lm-eval averages by question.

    The runs of a job ask the same questions: they share what was loaded.

    Args:
        tokenizer: what identifies the tokenizer, which a task may read while it loads.
    """
    found = [json.dumps(value) for value in (plan.subtasks, plan.files)]
    return _load(plan.benchmark.task, plan.group, plan.benchmark.metric_key, *found, tokenizer)


@functools.lru_cache(maxsize=16)
def _load(name: str, group: str, metric_key: tuple[str, str], subtasks: str, files: str, tokenizer: str) -> dict:
    overrides = [_reading(override) for override in json.loads(subtasks)]
    with _no_word_of_custom_rows():
        loaded = _manager_for(name).load([{"group": group, "task": overrides}])
    metric, answer_filter = metric_key
    # set after loading: lm-eval hands every key of an inline group down to its tasks, which refuse this one
    loaded["groups"][group].aggregate_metric_list = [AggMetricConfig(metric=metric, filter_list=[answer_filter])]
    return loaded


def _reading(override: dict) -> dict:
    """Rows of local files are read by us."""
    return {**override, "custom_dataset": read_splits} if override.get("dataset_path") == "json" else override


@functools.lru_cache(maxsize=256)
def _check_rows(benchmark: str, override: str, hashes: tuple[str, ...]) -> None:
    """Once a process for the same rows, which ``hashes`` stands for."""
    asked = json.loads(override)
    entry = _manager_for(asked["task"]).task_index[asked["task"]]
    config = {**load_yaml(entry.yaml_path, resolve_func=True), **_reading(asked)}
    check_rows(benchmark, {key: value for key, value in config.items() if key not in ("tag", "group", "task_list")})


@contextmanager
def _no_word_of_custom_rows() -> Iterator[None]:
    """lm-eval advertises its command line for every task whose rows it does not read itself."""
    logger = logging.getLogger("lm_eval.api.task")

    def other(record: logging.LogRecord) -> bool:
        return "Custom kwargs" not in record.msg

    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def tydiqa_wording(path: str) -> dict[str, dict]:
    """Subtask -> its instruction and its prompt, from a file of another wording.

    The file (YAML) has for each of the nine languages ``instruction``, ``passage``, ``question`` and ``answer``: the line
    that opens a prompt and the names of its fields, with their colons.

    Raises:
        EvaluationError: no such file, or a language or a text that it lacks or has too much.
    """
    place = f"evaluation.tydiqa_prompts: {path}"
    try:
        found = read_yaml(path)
    except (OSError, ConfigError) as error:
        raise EvaluationError(f"{place}: not a readable YAML file ({error})") from error
    if set(found) != set(LANGUAGES):
        raise EvaluationError(f"{place}: needs the languages {', '.join(LANGUAGES)}, has {', '.join(map(str, found))}")
    wording = {}
    for language, texts in found.items():
        whole = isinstance(texts, dict) and set(texts) == WORDS
        if not whole or not all(isinstance(text, str) and text.strip() for text in texts.values()):
            raise EvaluationError(f"{place}: {language} needs the texts {', '.join(sorted(WORDS))}, each once")
        if any("{" in text for text in texts.values()):
            raise EvaluationError(f"{place}: {language}: a text holds a brace, which lm-eval would read as a template")
        wording[f"{TYDIQA}_{language}"] = {
            "description": f"{texts['instruction']}\n\n",
            "doc_to_text": f"{texts['passage']} {{{{context}}}}\n{texts['question']} {{{{question}}}}\n{texts['answer']}",
        }
    return wording


def spread(sizes: Mapping[str, int], limit: int) -> dict[str, int]:
    """How many questions of each subtask: ``limit`` in all (or all there are), as even as the sizes allow."""
    taken = dict.fromkeys(sizes, 0)
    left = min(limit, sum(sizes.values()))
    while left:
        room = [name for name in sizes if taken[name] < sizes[name]]
        share = max(1, left // len(room))
        for name in room[:left]:
            more = min(share, sizes[name] - taken[name])
            taken[name] += more
            left -= more
    return taken


@functools.lru_cache(maxsize=2)
def _manager(with_lm_eval: bool) -> TaskManager:
    return TaskManager(include_path=str(OUR_TASKS), include_defaults=with_lm_eval)


def _manager_for(task: str) -> TaskManager:
    # indexing lm-eval's thousands of task files takes seconds, ours milliseconds: pay only for a task of theirs
    ours = _manager(False)
    return ours if task in ours.task_index else _manager(True)


def _subtasks(name: str, index: Mapping, benchmark: Benchmark) -> list[str]:
    entry = index.get(name)
    if entry is None:
        raise EvaluationError(f"benchmark {benchmark.name!r}: lm-eval and sstoken/tasks know no task {name!r}")
    if entry.kind.name == "TAG":
        return sorted(entry.tags)
    if entry.kind.name != "GROUP":
        return [name]
    members = entry.cfg["task"]
    if not all(isinstance(member, str) for member in members):
        raise EvaluationError(
            f"benchmark {benchmark.name!r}: group {name!r} overrides members inline; name tasks instead"
        )
    return [leaf for member in members for leaf in _subtasks(member, index, benchmark)]


def _version(entry) -> str:
    return str((entry.cfg.get("metadata") or {}).get("version", "none"))


def _version_of(name: str, index: Mapping, subtasks: Mapping[str, str]) -> str:
    below = ",".join(sorted(set(subtasks.values())))
    kind = index[name].kind.name
    return f"{_version(index[name])}/{below}" if kind == "GROUP" else below


def _needed_splits(benchmark: Benchmark, config: Mapping) -> tuple[str, str | None]:
    """(the split of the questions, the split of the worked examples or None)."""
    questions = config.get("test_split") or config.get("validation_split")
    examples = (config.get("fewshot_config") or {}).get("split")
    if examples is None and benchmark.shots:
        examples = config.get("fewshot_split") or config.get("training_split")
        if examples is None and not (config.get("fewshot_config") or {}).get("samples"):
            raise EvaluationError(
                f"benchmark {benchmark.name!r}: {benchmark.shots} shots, but task {config['task']!r} names no split "
                "to draw them from"
            )
    return questions, examples


def _local_files(benchmark: Benchmark, config: Mapping, data_root: Path) -> dict[str, Path]:
    paths = _local_paths(benchmark, config, data_root)
    for split, path in paths.items():
        if not path.is_file():
            raise EvaluationError(
                f"benchmark {benchmark.name!r}: no file {path} (split {split!r} of task {config['task']!r}). "
                "Put the rows there as JSON lines with the fields of the task's hub data set, or correct the data root "
                "or the column data of benchmarks.tsv"
            )
    return paths


def _local_paths(benchmark: Benchmark, config: Mapping, data_root: Path) -> dict[str, Path]:
    if not benchmark.data:
        raise EvaluationError(
            f"benchmark {benchmark.name!r} has no local form (column data of benchmarks.tsv is empty): "
            "give its files there, leave it out, or evaluate without a data root"
        )
    subset = str(config.get("dataset_path")).rsplit("/", 1)[-1].removeprefix(f"{benchmark.task}-")
    paths = {}
    for split in filter(None, _needed_splits(benchmark, config)):
        fields = {"split": split, "dataset_name": config.get("dataset_name"), "subset": subset}
        try:
            paths[split] = data_root / benchmark.data.format_map(fields)
        except KeyError as error:
            raise EvaluationError(
                f"benchmark {benchmark.name!r}: data pattern {benchmark.data!r} has an unknown field {error}; "
                f"known: {', '.join(fields)}"
            ) from error
    return paths


def _from_files(config: Mapping, paths: Mapping[str, Path]) -> dict:
    """Read these files instead of the task's own data set; a split that has no file here must not be asked for."""
    override = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(path) for split, path in paths.items()}},
    }
    for key in ("training_split", "validation_split", "test_split", "fewshot_split"):
        if config.get(key) not in paths:
            override[key] = None
    return override
