"""What a benchmark's scores depend on moves its identity, and nothing else does."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from sstoken.evaluation import EvaluationError, benchmark_identity, benchmarks
from tests.unit.evaluation.conftest import LOGIQA, SETTINGS, TYDIQA


def test_row_settings_files_and_order_move_it_and_titles_do_not(data):
    first = benchmark_identity(LOGIQA, SETTINGS, data)
    assert benchmark_identity(dataclasses.replace(LOGIQA, column="Logic", chance=0.2), SETTINGS, data) == first
    moved = [
        benchmark_identity(dataclasses.replace(LOGIQA, shots=1), SETTINGS, data),
        benchmark_identity(dataclasses.replace(LOGIQA, metric="acc_norm"), SETTINGS, data),
        benchmark_identity(LOGIQA, dataclasses.replace(SETTINGS, batch_size=5), data),
        benchmark_identity(LOGIQA, SETTINGS, None),
    ]
    path = data / "logiqa/test.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[::-1]))
    moved.append(benchmark_identity(LOGIQA, SETTINGS, data))
    row = json.loads(lines[0])
    corrected = row | {"label": "abcd"[("abcd".index(row["label"]) + 1) % 4]}
    path.write_text("".join([json.dumps(corrected) + "\n", *lines[1:]]))
    moved.append(benchmark_identity(LOGIQA, SETTINGS, data))
    path.write_text("".join(lines))
    assert benchmark_identity(LOGIQA, SETTINGS, data) == first
    assert len({first, *moved}) == 1 + len(moved)


def test_another_benchmarks_rows_do_not_move_it(data):
    first = benchmark_identity(LOGIQA, SETTINGS, data)
    (data / "tydiqa/train.jsonl").write_text("{}\n")
    assert benchmark_identity(LOGIQA, SETTINGS, data) == first


def test_a_prompts_file_moves_tydiqa_alone(data, tmp_path):
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text("a")
    asked = dataclasses.replace(SETTINGS, tydiqa_prompts=str(prompts))
    assert benchmark_identity(LOGIQA, asked, data) == benchmark_identity(LOGIQA, SETTINGS, data)
    first = benchmark_identity(TYDIQA, asked, data)
    assert first != benchmark_identity(TYDIQA, SETTINGS, data)
    prompts.write_text("b")
    assert benchmark_identity(TYDIQA, asked, data) != first
    with pytest.raises(EvaluationError, match=r"tydiqa_prompts: no file .*nowhere"):
        benchmark_identity(TYDIQA, dataclasses.replace(SETTINGS, tydiqa_prompts="nowhere"), data)


def test_our_tasks_source_moves_it_with_what_it_imports(data, tmp_path, monkeypatch):
    copied = tmp_path / "tasks"
    shutil.copytree(benchmarks.OUR_TASKS, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(benchmarks, "OUR_TASKS", copied)
    world = dataclasses.replace(TYDIQA, task="world_tydiqa", data="tydiqa/{split}.jsonl")

    def identities():
        return [benchmark_identity(benchmark, SETTINGS, data) for benchmark in (LOGIQA, TYDIQA, world)]

    first = identities()
    with (copied / "tydiqa/utils.py").open("a") as file:
        file.write("# another\n")
    logiqa, tydiqa, of_world = identities()
    assert logiqa == first[0]
    assert tydiqa != first[1]
    assert of_world != first[2]  # its F1 is that file's


def test_no_file_is_an_error(data):
    with pytest.raises(EvaluationError, match=r"'logiqa': no file .*\{split\}"):
        benchmark_identity(LOGIQA, SETTINGS, data / "tydiqa")
