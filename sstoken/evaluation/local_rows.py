"""A benchmark's rows from local JSON lines, as they stand in the file, and their check before anything is asked.

``datasets``' own JSON reader guesses types: a column in which every text looks like a date becomes dates.  Here a text stays
a text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import datasets
import pyarrow
from jinja2 import Environment, TemplateError, meta
from lm_eval.api.task import ConfigurableTask, TaskConfig

from sstoken.evaluation.benchmarks import EvaluationError

SHOWN = 5  # bad rows spelled out in an error


def read_lines(path: Path) -> list[tuple[int, dict]]:
    """(line number, row) of every row; a byte-order mark and Windows line ends are no part of them.

    Raises:
        EvaluationError: a line that is not one whole JSON object, or no row at all.
    """
    rows = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not (text := line.removeprefix(b"\xef\xbb\xbf").strip()):
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise EvaluationError(
                    f"{path}:{number}: not a whole row of JSON ({error}): is the file cut?"
                ) from error
            if not isinstance(row, dict):
                raise EvaluationError(f"{path}:{number}: not an object but {type(row).__name__}")
            rows.append((number, row))
    if not rows:
        raise EvaluationError(f"{path}: no rows")
    return rows


def read_splits(*, data_files: Mapping[str, str], **_) -> datasets.DatasetDict:
    """lm-eval's ``custom_dataset``: split -> file of JSON lines."""
    splits = {}
    for split, path in data_files.items():
        lines = read_lines(Path(path))
        columns = dict.fromkeys(key for _, row in lines for key in row)
        try:
            made = datasets.Dataset.from_dict({key: [row.get(key) for _, row in lines] for key in columns})
        except (pyarrow.ArrowException, TypeError, ValueError) as error:
            raise EvaluationError(
                f"{path}: {_odd_row(columns, lines) or 'a column is of several types'} ({error})"
            ) from error
        splits[split] = made
    return datasets.DatasetDict(splits)


def _odd_row(columns: Mapping, lines: list[tuple[int, dict]]) -> str | None:
    """The first row in which a column has another type than in the first row."""
    for key in columns:
        types = [(number, type(row[key]).__name__) for number, row in lines if row.get(key) is not None]
        for number, kind in types:
            if kind != types[0][1]:
                return f"line {number}: {key!r} is {kind}, in line {types[0][0]} it is {types[0][1]}"
    return None


class Reader(ConfigurableTask):
    """An lm-eval task that can put its questions and asks nobody: a task's own constructor stumbles over a bad first row.

    config: of the task, its functions resolved, with ``read_splits`` as its ``custom_dataset``.
    """

    def __init__(self, config: dict):
        self._config = TaskConfig(**config)
        self.OUTPUT_TYPE, self.prompt = self.config.output_type, None
        self.fewshot_cfg = self.config.fewshot_config
        self.dataset = read_splits(**self.config.dataset_kwargs)

    def questions(self) -> datasets.Dataset:
        return self.test_docs() if self.has_test_docs() else self.validation_docs()


def check_rows(benchmark: str, config: dict) -> None:
    """Refuse rows that the task could not ask, or could not score.

    Every field that the task's templates read must be there and not be blank, the prompt must not be blank, the choices
    must be texts, the key must be one of them, and the task must be able to score an answer.

    Args:
        config: as ``Reader`` takes it; its ``dataset_kwargs`` name the files.

    Raises:
        EvaluationError: names file, line and reason of the first bad rows; or a task without a question.
    """
    reader, name, files = Reader(config), config["task"], config["dataset_kwargs"]["data_files"]
    wanted = [
        (reader.config.test_split or reader.config.validation_split, reader.config.process_docs, reader.questions)
    ]
    if reader.config.num_fewshot and reader.fewshot_cfg.split:
        wanted.append((reader.fewshot_cfg.split, reader.fewshot_cfg.process_docs, reader.fewshot_docs))
    for split, process_docs, docs_of in wanted:
        path, rows = files[split], reader.dataset[split]
        lines = read_lines(Path(path))
        try:
            docs = docs_of()
        except Exception as error:  # whatever a task file raises
            place = _crash(process_docs, rows, path, lines, error)
            raise EvaluationError(f"benchmark {benchmark!r}, task {name!r}: {place}") from error
        if not len(docs):
            raise EvaluationError(f"benchmark {benchmark!r}: {path} holds no row for the task {name!r}")
        reader.features = list(docs.features)
        place = _places(lines, len(docs))
        bad = [(place(doc, number), fault) for number, doc in enumerate(docs) if (fault := _fault(reader, doc))]
        if bad:
            told = "\n".join(f"  {path}{where}: {fault}" for where, fault in bad[:SHOWN])
            raise EvaluationError(
                f"benchmark {benchmark!r}: {len(bad)} of {len(docs)} rows of the task {name!r} cannot be asked:\n{told}"
            )


def _crash(process_docs: Callable | None, rows: datasets.Dataset, path: str, lines: list, error: Exception) -> str:
    """Where a task's ``process_docs`` fails: the first row that it fails on by itself."""
    for number, (line, _) in enumerate(lines):
        try:
            process_docs(rows.select([number]))
        except type(error) as alone:
            return f"{path}:{line}: the task cannot read this row ({type(alone).__name__}: {alone})"
    return f"{path}: the task cannot read these rows ({type(error).__name__}: {error})"


def _places(lines: list[tuple[int, dict]], asked: int) -> Callable[[dict, int], str]:
    """A row's line: by its number where the task asks every row, else by the fields that it kept."""

    def place(doc: dict, number: int) -> str:
        if len(lines) == asked:
            return f":{lines[number][0]}"
        kept = {key: value for key, value in doc.items() if isinstance(value, str)}
        for line, row in lines:
            if all(row.get(key, value) == value for key, value in kept.items()):
                return f":{line}"
        return ""

    return place


def _fault(task: Reader, doc: dict) -> str | None:
    """Why a question cannot be asked or scored, or None."""
    config = task.config
    for template in (config.doc_to_text, config.doc_to_target, config.doc_to_choice):
        for field in _fields(template, doc):
            if doc.get(field) is None:
                return f"no {field!r}"
            if isinstance(doc[field], str) and not doc[field].strip():
                return f"{field!r} is blank"
    try:
        text = task.doc_to_text(doc)
        choices = task.doc_to_choice(doc) if task.OUTPUT_TYPE == "multiple_choice" else None
        # several contexts and one continuation: the text is the number of the right context
        gold = text if choices is not None and isinstance(text, int) else task.doc_to_target(doc)
        if callable(config.process_results):
            config.process_results(doc, [""] if choices is None else [(-1.0, False)] * len(choices))
    except Exception as error:  # whatever a task file raises
        return f"the task cannot read it ({type(error).__name__}: {error})"
    if isinstance(text, str) and not text.strip():
        return "an empty prompt"
    if choices is None:
        return None if _says_something(gold) else "no answer"
    if not choices or not all(isinstance(choice, str) and choice for choice in choices):
        return f"a choice without text: {choices!r}"
    if isinstance(config.doc_to_choice, str) and not all(map(str.strip, choices)):
        return f"a choice without text: {choices!r}"
    keys = gold if isinstance(gold, (list, tuple)) else [gold]
    for key in keys or [None]:
        if not (key in choices if isinstance(key, str) else isinstance(key, int) and 0 <= key < len(choices)):
            return f"the answer key {key!r} is outside the {len(choices)} choices"
    return None


def _fields(template: object, doc: dict) -> list[str]:
    """Fields of the row that a template names."""
    if not isinstance(template, str):
        return []
    if template in doc:
        return [template]
    try:
        return sorted(meta.find_undeclared_variables(Environment().parse(template)))
    except TemplateError:
        return []


def _says_something(gold: object) -> bool:
    if isinstance(gold, str):
        return bool(gold.strip())
    if isinstance(gold, (list, tuple)):
        return any(_says_something(part) for part in gold)
    return gold is not None
