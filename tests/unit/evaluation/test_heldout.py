"""Held-out loss: the bits of a response by a plain forward pass, and nothing of its prompt."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from sstoken.data import DataError, heldout_rows, rows_of, write_heldout
from sstoken.evaluation import EvaluationError, benchmark_identity, evaluate, hub_splits, load_benchmarks
from sstoken.tasks.heldout.utils import continuations, process_results
from tests.unit.evaluation.conftest import SETTINGS, write
from tests.unit.evaluation.test_table import TABLE

(HELDOUT,) = load_benchmarks(TABLE, ["heldout"])
ROWS = [
    {"prompt": "Who?", "completion": "The cat."},
    {"prompt": "Where is it, in which of the houses?", "completion": "漢字 here\n\nand there"},
    {"messages": [{"role": "system", "content": "Be kind."}, *({"role": r, "content": c} for r, c in [
        ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")])]},
]  # fmt: skip


def bits(model, tokenizer, prompt, response):
    """-log2 p(response | prompt) / bytes, by one forward pass."""
    before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, response))
    ids = torch.tensor([before + after])
    with torch.no_grad():
        log_p = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    found = log_p.gather(1, ids[0, 1:, None])[len(before) - 1 :].sum().item()
    return -found / math.log(2) / len(response.encode())


def test_scores_equal_a_direct_forward_pass(model, tokenizer, tmp_path):
    rows = rows_of(ROWS)
    assert write_heldout(rows, tmp_path / "heldout/test.jsonl") == 3
    result = evaluate(model, tokenizer, [HELDOUT], SETTINGS, data_root=tmp_path)
    made = [json.loads(line) for line in (tmp_path / "heldout/test.jsonl").open()]
    assert made[0]["prompt"] == "<|user|>\nWho?\n<|assistant|>\n"
    assert made[2] == {
        "id": rows[2].id,
        "prompt": "<|system|>\nBe kind.\n<|user|>\na\n<|assistant|>\n",
        "response": "b",
    }
    expected = [bits(model, tokenizer, row["prompt"], row["response"]) for row in made]
    found = [-math.log2(score) for score in result.samples["score"]]
    assert found == pytest.approx(expected, rel=1e-4)
    assert 0 < min(result.samples["score"]) <= max(result.samples["score"]) < 1
    means = result.provenance["benchmarks"]["heldout"]["means"]
    assert means["bits_per_byte"] == pytest.approx(sum(expected) / 3, rel=1e-4)
    (score,) = result.scores
    assert (score["metric"], score["n_questions"]) == ("likelihood_per_byte", 3)


def test_a_prompt_without_space_at_its_end_needs_no_correction(model, tokenizer, tmp_path):
    write(tmp_path / "heldout/test.jsonl", [{"prompt": "Q: who? A:", "response": "a cat"}] * 2)
    samples = evaluate(model, tokenizer, [HELDOUT], SETTINGS, data_root=tmp_path).samples
    expected = bits(model, tokenizer, "Q: who? A:", "a cat")
    assert [-math.log2(score) for score in samples["score"]] == pytest.approx([expected] * 2, rel=1e-4)


def test_the_metric_is_bits_per_byte_of_the_response():
    doc = {"prompt": "p\n", "response": "abcdé"}  # six bytes
    assert continuations(doc) == ["\nabcdé", "\n"]
    found = process_results(doc, [(-13 * math.log(2), False), (-math.log(2), False)])
    assert found == {"likelihood_per_byte": pytest.approx(0.25), "bits_per_byte": pytest.approx(2.0)}
    assert (
        process_results(doc, [(-2000.0 * 6, False), (0.0, False)])["likelihood_per_byte"] == 0.0
    )  # underflow, no crash


def test_a_longer_prompt_than_the_model_reads_leaves_the_response_whole(model, tokenizer, tmp_path):
    write(tmp_path / "heldout/test.jsonl", [{"prompt": "x" * 300 + "\n", "response": "a cat"}])
    settings = dataclasses.replace(SETTINGS, max_length=64)
    (score,) = evaluate(model, tokenizer, [HELDOUT], settings, data_root=tmp_path).samples["score"]
    assert -math.log2(score) == pytest.approx(bits(model, tokenizer, "x" * 58 + "\n", "a cat"), rel=0.05)


def test_rows_without_words_are_refused_and_blank_ones_named(tmp_path):
    with pytest.raises(DataError, match="row 0: the row has no text"):
        heldout_rows(rows_of([{"input_ids": [1, 2], "labels": [1, 2]}]))
    from sstoken.evaluation.subtasks import make_plan

    write(tmp_path / "heldout/test.jsonl", [{"prompt": "a\n", "response": "b"}, {"prompt": "a\n", "response": " "}])
    with pytest.raises(EvaluationError, match=r"test.jsonl:2: .*'response' is blank"):
        make_plan(HELDOUT, SETTINGS, tmp_path)


def test_its_rows_are_made_here_and_may_lie_anywhere(model, tokenizer, tmp_path):
    assert hub_splits(HELDOUT) == []
    with pytest.raises(EvaluationError, match="has no rows on the hub"):
        evaluate(model, tokenizer, [HELDOUT], SETTINGS)
    write_heldout(rows_of(ROWS), tmp_path / "made/test.jsonl")
    placed = dataclasses.replace(HELDOUT, data=str(tmp_path / "made/{split}.jsonl"))
    for root in (None, tmp_path / "elsewhere"):
        result = evaluate(model, tokenizer, [placed], SETTINGS, data_root=root)
        assert list(result.provenance["benchmarks"]["heldout"]["data_files"]) == ["test.jsonl"]
    first = benchmark_identity(placed, SETTINGS, tmp_path)
    assert first == benchmark_identity(placed, SETTINGS, None)
    write_heldout(rows_of(ROWS[:2]), tmp_path / "made/test.jsonl")
    assert benchmark_identity(placed, SETTINGS, None) != first
