"""A tiny model with a tokenizer of bytes, and rows of two benchmarks. No network, no shared data."""

from __future__ import annotations

import json
import random

import pytest

from sstoken.evaluation import Benchmark, EvaluationSettings
from sstoken.tasks.tydiqa import utils as tydiqa
from tests.byte_models import byte_llama, byte_tokenizer

LOGIQA = Benchmark("logiqa", "sstoken_logiqa", 0, "acc", "1.0", 0.25, "LogiQA", "logiqa/{split}.jsonl")
TYDIQA = Benchmark("tydiqa", "sstoken_tydiqa", 1, "f1", "2.0/2.0", 0.0, "TyDiQA", "tydiqa/{split}.jsonl")
SETTINGS = EvaluationSettings(batch_size=4, dtype="float32", max_gen_toks=4)


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return byte_llama(tokenizer, width=32, layers=2, positions=4096)


@pytest.fixture
def data(tmp_path):
    draw = random.Random(0)
    logiqa = [
        {
            "label": draw.choice("abcd"),
            "context": f"Passage {i // 2}.",
            "question": f"Which follows from {i}?",
            "options": [f"{draw.choice('pqrs')}{k} option" for k in range(4)],
        }
        for i in range(10)
    ]
    rows = [
        {
            "id": f"{language}-{i}",
            "title": "",
            "context": f"{language} passage {i}, with the answer {i}.",
            "question": f"what of {i}?",
            "answers": {"text": [str(i)], "answer_start": [0]},
        }
        for language in tydiqa.LANGUAGES
        for i in range(3)
    ]
    write(tmp_path / "logiqa" / "test.jsonl", logiqa)
    write(tmp_path / "tydiqa" / "validation.jsonl", rows)
    write(tmp_path / "tydiqa" / "train.jsonl", rows)
    return tmp_path


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def forward_passes(model):
    seen = []
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0] if args else kwargs["input_ids"]), with_kwargs=True
    )
    yield seen
    handle.remove()
