"""Benchmark rows as they stand in the file; what cannot be asked or scored is refused with file and line."""

from __future__ import annotations

import codecs
import dataclasses
import json

import pytest

from sstoken.evaluation import Benchmark, EvaluationError, evaluate, load_benchmarks
from sstoken.evaluation.local_rows import read_splits
from sstoken.evaluation.subtasks import make_plan
from tests.unit.evaluation.conftest import LOGIQA, SETTINGS, TYDIQA, write
from tests.unit.evaluation.test_table import TABLE

ARC = Benchmark("arc_easy", "arc_easy", 0, "acc", "1.0", 0.25, "ARC-E", "arc/{split}.jsonl")
BOOLQ = Benchmark("boolq", "boolq", 0, "acc", "2.0", 0.5, "BoolQ", "boolq/{split}.jsonl")
ROWS = {
    "logiqa": {"label": "b", "context": "c", "question": "q?", "options": ["w", "x", "y", "z"]},
    "arc_easy": {"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"},
    "boolq": {"question": "q", "passage": "p", "label": 1},
    "winogrande": {"sentence": "a _ b", "option1": "x", "option2": "y", "answer": "1"},
    "hellaswag": {"ctx_a": "a", "ctx_b": "b", "activity_label": "l", "endings": ["x", "y"], "label": "1"},
    "mmlu": {"question": "q", "choices": ["w", "x", "y", "z"], "answer": 3},
    "truthfulqa_mc2": {"question": "q", "mc2_targets": {"choices": ["x", "y"], "labels": [1, 0]}},
    "triviaqa": {"question": "q", "answer": {"value": "x", "aliases": ["x"]}},
    "tydiqa": {"id": "korean-1", "context": "c", "question": "q", "answers": {"text": ["x"]}},
}
MISSING = object()
CASES = [
    ("logiqa", "question", MISSING, "no 'question'"),
    ("logiqa", "question", None, "no 'question'"),
    ("logiqa", "question", " ", "'question' is blank"),
    ("logiqa", "label", "e", "not in list"),
    ("logiqa", "label", "", "'label' is blank"),
    ("logiqa", "label", "ab", "not in list"),
    ("logiqa", "options", ["x", "y"], "a choice without text|the task cannot read it|outside"),
    ("logiqa", "options", ["w", "x", "", "z"], "a choice without text"),
    ("arc_easy", "answerKey", "C", "the task cannot read it"),
    ("boolq", "label", 2, "the answer key 2 is outside the 2 choices"),
    ("boolq", "label", -1, "the answer key -1 is outside the 2 choices"),
    ("boolq", "passage", None, "no 'passage'"),
    ("winogrande", "answer", "3", "the task cannot read it"),
    ("winogrande", "sentence", "no gap", "the task cannot read it"),
    ("hellaswag", "ctx_a", None, "the task cannot read this row"),
    ("hellaswag", "label", "2", "the answer key 2 is outside the 2 choices"),
    ("truthfulqa_mc2", "mc2_targets", {"choices": ["x", "y"], "labels": [1]}, "the task cannot read it"),
    ("triviaqa", "answer", {"value": "x", "aliases": []}, "no answer"),
    ("tydiqa", "answers", {"text": []}, "the task cannot read it|no answer"),
    ("tydiqa", "question", MISSING, "no 'question'"),
]


def benchmark(name):
    known = {b.name: b for b in load_benchmarks(TABLE)} | {"arc_easy": ARC, "boolq": BOOLQ}
    return known[name]


def plan_of(name, rows, root):
    """Write the rows where the benchmark looks for them, and plan it."""
    asked = benchmark(name)
    file = {"logiqa": "logiqa/test", "arc_easy": "arc/test", "boolq": "boolq/validation", "tydiqa": "tydiqa/validation"}
    file |= {"truthfulqa_mc2": "truthfulqa/multiple_choice/validation"}
    path = root / f"{file.get(name, f'{name}/validation')}.jsonl"
    write(path, rows)
    if name == "tydiqa":
        good = [ROWS[name] | {"id": f"{language}-0"} for language in ("english", "korean")]
        write(root / "tydiqa/train.jsonl", good)
    return make_plan(asked, dataclasses.replace(SETTINGS, limit=1) if name != "tydiqa" else SETTINGS, root)


@pytest.mark.parametrize("line", [1, 3])
@pytest.mark.parametrize(("name", "field", "value", "reason"), CASES)
def test_a_row_that_cannot_be_asked_is_refused_with_file_and_line(tmp_path, name, field, value, reason, line):
    good = [ROWS[name]] * 3
    if name == "tydiqa":  # every language has a question
        from sstoken.tasks.tydiqa.utils import LANGUAGES

        good = [ROWS[name] | {"id": f"{language}-0"} for language in LANGUAGES]
    bad = {key: kept for key, kept in (good[line - 1] | {field: value}).items() if kept is not MISSING}
    plan_of(name, good, tmp_path)
    with pytest.raises(EvaluationError, match=reason) as error:
        plan_of(name, [*good[: line - 1], bad, *good[line:]], tmp_path)
    assert f".jsonl:{line}: " in str(error.value)
    assert f"'{name}'" in str(error.value)


def test_a_column_of_dates_stays_text(model, tokenizer, data, forward_passes):
    rows = [json.loads(line) for line in (data / "logiqa/test.jsonl").open()]
    write(data / "logiqa/test.jsonl", [row | {"question": f"2024-03-{n + 1:02}"} for n, row in enumerate(rows)])
    evaluate(model, tokenizer, [LOGIQA], dataclasses.replace(SETTINGS, limit=1), data_root=data)
    assert "Question: 2024-03-01\nChoices:" in tokenizer.decode(forward_passes[0][0])


def test_numbers_in_text_times_and_mixed_keys_come_back_as_they_are(tmp_path):
    rows = [
        {"a": "2024-03-01T10:00:00", "b": {"x": "1"}, "c": [], "d": 1},
        {"a": "12", "b": {"y": 2}, "c": ["2020-01-01"]},
    ]
    write(tmp_path / "a.jsonl", rows)
    found = read_splits(data_files={"test": str(tmp_path / "a.jsonl")})["test"]
    assert found["a"][:] == ["2024-03-01T10:00:00", "12"]
    assert found["b"][:] == [{"x": "1", "y": None}, {"x": None, "y": 2}]
    assert found["c"][:] == [[], ["2020-01-01"]]
    assert found["d"][:] == [1, None]


def test_windows_files_score_as_others_do(model, tokenizer, data):
    before = evaluate(model, tokenizer, [LOGIQA], SETTINGS, data_root=data).samples
    path = data / "logiqa/test.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes().replace(b"\n", b"\r\n"))
    assert evaluate(model, tokenizer, [LOGIQA], SETTINGS, data_root=data).samples.equals(before)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda raw: raw[:-9], r"test.jsonl:10: not a whole row of JSON .* is the file cut"),
        (lambda raw: b"", "test.jsonl: no rows"),
        (lambda raw: b"\n \n", "test.jsonl: no rows"),
        (lambda raw: raw + b"[]\n", "test.jsonl:11: not an object but list"),
        (lambda raw: raw + b'{"label": 3}\n', "test.jsonl: line 11: 'label' is int, in line 1 it is str"),
    ],
)
def test_a_damaged_file_is_refused(data, damage, reason):
    path = data / "logiqa/test.jsonl"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(EvaluationError, match=reason):
        make_plan(LOGIQA, SETTINGS, data)


def test_a_language_without_questions_is_missed(data):
    path = data / "tydiqa/validation.jsonl"
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines() if "finnish-" not in line))
    with pytest.raises(EvaluationError, match="holds no row for the task 'sstoken_tydiqa_finnish'"):
        make_plan(TYDIQA, SETTINGS, data)


def test_worked_examples_are_checked_too(data):
    rows = [json.loads(line) for line in (data / "tydiqa/train.jsonl").open()]
    for row in rows:
        row["question"] = None if row["id"].startswith("korean") else row["question"]
    write(data / "tydiqa/train.jsonl", rows)
    with pytest.raises(EvaluationError, match=r"train.jsonl:\d+: no 'question'"):
        make_plan(TYDIQA, SETTINGS, data)


def test_rows_are_checked_once_a_process_and_again_when_they_change(data):
    make_plan(LOGIQA, SETTINGS, data)
    rows = [json.loads(line) for line in (data / "logiqa/test.jsonl").open()]
    write(data / "logiqa/test.jsonl", [*rows, rows[0] | {"label": "x"}])
    with pytest.raises(EvaluationError, match=r"test.jsonl:11: "):
        make_plan(LOGIQA, SETTINGS, data)
