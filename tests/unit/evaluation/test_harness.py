"""Evaluation: scores against a direct forward pass, and what can go wrong around them. No network, no shared data."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import logging
import socket

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers, processors
from transformers import LlamaForCausalLM

from sstoken.evaluation import EvaluationError, EvaluationSettings, evaluate
from sstoken.evaluation.subtasks import _load, spread
from sstoken.tasks import prompt_tokenizer
from tests.unit.evaluation.conftest import LOGIQA, SETTINGS, TYDIQA


def _option_scores(model, tokenizer, row):
    """Sum of log-probabilities of each option after the prompt, by a plain forward pass: what acc ranks."""
    letters = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", row["options"], strict=True))
    prompt = f"Passage: {row['context']}\nQuestion: {row['question']}\nChoices:\n{letters}\nAnswer:"
    scores = []
    for option in row["options"]:
        before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, f" {option}"))
        ids = torch.tensor([before + after])
        with torch.no_grad():
            log_p = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        scores.append(log_p.gather(1, ids[0, 1:, None])[len(before) - 1 :].sum().item())
    return scores


def test_scores_equal_a_direct_forward_pass(model, tokenizer, data):
    result = evaluate(model, tokenizer, [LOGIQA], SETTINGS, data_root=data)
    rows = [json.loads(line) for line in (data / "logiqa/test.jsonl").open()]
    expected = [float("abcd"[int(np.argmax(_option_scores(model, tokenizer, row)))] == row["label"]) for row in rows]
    assert result.samples["score"].tolist() == expected
    assert 0 < sum(expected) < len(expected), "the case must tell right from wrong"
    (score,) = result.scores
    assert score["score"] == pytest.approx(np.mean(expected))
    assert score["stderr"] == pytest.approx(np.std(expected, ddof=1) / np.sqrt(len(expected)))
    assert (score["n_questions"], score["task_version"], score["metric"]) == (10, "1.0", "acc")


def test_questions_about_one_passage_share_a_cluster(model, tokenizer, data):
    samples = evaluate(model, tokenizer, [LOGIQA], SETTINGS, data_root=data).samples
    assert samples["question_id"].tolist() == [f"sstoken_logiqa/{i}" for i in range(10)]
    clusters = samples["cluster_id"].tolist()
    assert clusters[0::2] == clusters[1::2] and len(set(clusters)) == 5


def test_questions_about_one_entity_share_a_cluster_in_all_benchmarks(model, tokenizer, data):
    for path in (data / "logiqa/test.jsonl", data / "tydiqa/validation.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        named = [row | ({"cluster": f"person {n // 3}"} if n < 6 else {}) for n, row in enumerate(rows)]
        path.write_text("".join(json.dumps(row) + "\n" for row in named))
    samples = evaluate(model, tokenizer, [LOGIQA, TYDIQA], SETTINGS, data_root=data).samples
    clusters = [part["cluster_id"].tolist() for _, part in samples.groupby("benchmark")]
    assert clusters[0][:6] == clusters[1][:6] == ["entity/person 0"] * 3 + ["entity/person 1"] * 3
    assert clusters[0][6] == clusters[0][7] != clusters[0][8], "questions without an entity still share their passage"
    assert not set(clusters[0][6:]) & set(clusters[1][6:])


def test_a_rerun_is_identical_and_a_limit_is_its_beginning(model, tokenizer, data):
    first, again = (evaluate(model, tokenizer, [LOGIQA, TYDIQA], SETTINGS, data_root=data) for _ in range(2))
    assert first.samples.equals(again.samples) and first.scores == again.scores
    assert json.dumps(first.provenance) == json.dumps(again.provenance)
    limited = evaluate(model, tokenizer, [LOGIQA], dataclasses.replace(SETTINGS, limit=4), data_root=data).samples
    assert limited.equals(first.samples.iloc[:4])


def test_runs_share_loaded_tasks_unless_rows_or_tokenizer_differ(model, tokenizer, data):
    def scores(tokenizer=tokenizer):
        result = evaluate(model, tokenizer, [TYDIQA], SETTINGS, data_root=data)
        return result.samples, _load.cache_info().misses

    _load.cache_clear()
    assert scores()[1] == scores()[1] == 1
    other = copy.deepcopy(tokenizer)  # the same vocabulary, read another way
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert scores(other)[1] == 2
    rows = (data / "tydiqa/validation.jsonl").read_text().splitlines()
    (data / "tydiqa/validation.jsonl").write_text("\n".join(rows[:-1]) + "\n")
    samples, misses = scores()
    assert misses == 3
    _load.cache_clear()
    assert samples.equals(scores()[0])


def test_tasks_that_models_share_carry_nothing_from_one_to_the_next(model, tokenizer, data):
    def samples(model, **changes):
        settings = dataclasses.replace(SETTINGS, **changes)
        return evaluate(model, tokenizer, [LOGIQA, TYDIQA], settings, data_root=data).samples

    torch.manual_seed(1)
    other = LlamaForCausalLM(model.config).eval()
    _load.cache_clear()
    samples(model)
    found = samples(other)
    samples(other, limit=4)

    def fail(*_):
        raise OSError("full disk")

    failing = other.model.register_forward_pre_hook(fail)
    for changes in ({}, {"limit": 4}):
        with pytest.raises(OSError, match="full disk"):
            samples(other, **changes)
        failing.remove()
        assert samples(other).equals(found)
        failing = other.model.register_forward_pre_hook(fail)
    failing.remove()
    _load.cache_clear()
    assert samples(other).equals(found) and not samples(model).equals(found)


def test_a_limit_counts_all_questions_of_a_group(model, tokenizer, data):
    def per_language(**options):
        samples = evaluate(model, tokenizer, [TYDIQA], dataclasses.replace(SETTINGS, **options), data_root=data).samples
        return samples["question_id"].str.split("/").str[0].value_counts()

    assert sorted(per_language(limit=12)) == [1] * 6 + [2] * 3
    three = per_language(limit=3)
    assert sorted(three.index) == [f"sstoken_tydiqa_{name}" for name in ("arabic", "finnish", "russian")]
    assert set(per_language(limit_fraction=0.5)) == {2}
    assert per_language().sum() == 27


@given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 40), min_size=1, max_size=20), st.integers(1, 500)
)
def test_spread_is_even(sizes, limit):
    taken = spread(sizes, limit)
    assert sum(taken.values()) == min(limit, sum(sizes.values()))
    most = max(taken.values())
    assert all(n <= sizes[name] and (n >= most - 1 or n == sizes[name]) for name, n in taken.items())


def test_bos_reaches_the_model_only_when_asked(model, tokenizer, data, forward_passes):
    adds_bos = copy.deepcopy(tokenizer)
    template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    adds_bos.backend_tokenizer.post_processor = template
    for one, asked, added in (
        (adds_bos, True, True),
        (adds_bos, False, False),
        (adds_bos, None, True),
        (tokenizer, None, False),
    ):
        forward_passes.clear()
        settings = dataclasses.replace(SETTINGS, add_bos=asked, limit=2)
        provenance = evaluate(model, one, [LOGIQA], settings, data_root=data).provenance
        assert {(ids[:, 0] == tokenizer.bos_token_id).all().item() for ids in forward_passes} == {added}
        assert provenance["bos_added"] is added
    with pytest.raises(EvaluationError, match="puts no BOS"):
        evaluate(model, tokenizer, [LOGIQA], dataclasses.replace(SETTINGS, add_bos=True), data_root=data)


def test_long_prompts_are_cut_from_the_left_and_counted(model, tokenizer, data, forward_passes):
    settings = dataclasses.replace(SETTINGS, max_length=40)
    result = evaluate(model, tokenizer, [LOGIQA, TYDIQA], settings, data_root=data)
    assert max(ids.shape[1] for ids in forward_passes) <= 40
    assert any("Answer:" in tokenizer.decode(ids[0]) for ids in forward_passes)
    assert all(part["truncations"] > 0 for part in result.provenance["benchmarks"].values())


def test_a_backend_that_is_not_installed_says_what_to_install(model, tokenizer, data):
    if importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is installed")
    with pytest.raises(EvaluationError, match="backend is vllm, which is not installed here: pip install vllm"):
        evaluate(model, tokenizer, [LOGIQA], dataclasses.replace(SETTINGS, backend="vllm"), data_root=data)
    assert evaluate(model, tokenizer, [LOGIQA], SETTINGS, data_root=data).provenance["backend"] == "hf"


def test_generation_is_bounded(model, tokenizer, data, forward_passes):
    for bound, passes in ((4, 4), (70, 50)):  # never above the task's own 50
        forward_passes.clear()
        settings = dataclasses.replace(SETTINGS, max_gen_toks=bound, limit=1)
        evaluate(model, tokenizer, [TYDIQA], settings, data_root=data)
        assert 0 < len(forward_passes) <= passes
    with pytest.raises(EvaluationError, match=r"'tydiqa'.*generates up to 50.*reads 40.*max_gen_toks"):
        evaluate(
            model, tokenizer, [TYDIQA], dataclasses.replace(SETTINGS, max_length=40, max_gen_toks=None), data_root=data
        )


def test_the_tokenizer_is_left_as_it_was(model, tokenizer, data):
    before = (tokenizer.pad_token, tokenizer.padding_side, len(tokenizer))
    evaluate(model, tokenizer, [LOGIQA], dataclasses.replace(SETTINGS, limit=1), data_root=data)
    assert (tokenizer.pad_token, tokenizer.padding_side, len(tokenizer)) == before == (None, "right", 258)
    assert prompt_tokenizer.get() is None


def test_nothing_drowns_the_log(model, tokenizer, data, capfd, caplog):
    settings = dataclasses.replace(SETTINGS, max_length=40)
    level = logging.getLogger("lm_eval").level
    evaluate(model, tokenizer, [LOGIQA, TYDIQA], settings, data_root=data)
    out, err = capfd.readouterr()
    assert len((out + err).replace("\r", "\n").splitlines()) + len(caplog.records) < 5, out + err + caplog.text
    assert logging.getLogger("lm_eval").level == level


class TestCheckpoint:
    def test_finished_benchmarks_are_not_run_again(self, model, tokenizer, data, tmp_path, forward_passes):
        keep = tmp_path / "keep"

        def run(benchmarks, weights_id="w", settings=SETTINGS):
            forward_passes.clear()
            return evaluate(
                model, tokenizer, benchmarks, settings, data_root=data, checkpoint=keep, weights_id=weights_id
            )

        run([LOGIQA])
        one = run([LOGIQA])
        assert not forward_passes
        both = run([LOGIQA, TYDIQA])
        assert forward_passes and both.scores[0] == one.scores[0]
        whole = evaluate(model, tokenizer, [LOGIQA, TYDIQA], SETTINGS, data_root=data)
        assert (
            both.samples.equals(whole.samples) and both.scores == whole.scores and both.provenance == whole.provenance
        )
        again = run([LOGIQA, TYDIQA])
        assert not forward_passes and again.samples.equals(whole.samples)
        for change in ({"weights_id": "other"}, {"settings": dataclasses.replace(SETTINGS, batch_size=2)}):
            run([LOGIQA], **change)
            assert forward_passes, change

    def test_an_interrupted_benchmark_leaves_nothing_behind(self, model, tokenizer, data, tmp_path):
        keep = tmp_path / "keep"

        def stop(*_):
            raise KeyboardInterrupt

        handle = model.register_forward_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(model, tokenizer, [LOGIQA], SETTINGS, data_root=data, checkpoint=keep, weights_id="w")
        handle.remove()
        assert not list(keep.glob("*"))

    def test_changed_data_are_evaluated_again(self, model, tokenizer, data, tmp_path, forward_passes):
        keep = tmp_path / "keep"
        for drop in (0, 1):
            lines = (data / "logiqa/test.jsonl").read_text().splitlines(keepends=True)
            (data / "logiqa/test.jsonl").write_text("".join(lines[drop:]))
            result = evaluate(model, tokenizer, [LOGIQA], SETTINGS, data_root=data, checkpoint=keep, weights_id="w")
            assert result.scores[0]["n_questions"] == 10 - drop

    def test_it_needs_the_weights_name(self, model, tokenizer, data, tmp_path):
        with pytest.raises(EvaluationError, match="weights_id"):
            evaluate(model, tokenizer, [LOGIQA], SETTINGS, data_root=data, checkpoint=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "0.9"}, r"'logiqa'.*version 0\.9 of task 'sstoken_logiqa'.*has version 1\.0"),
        ({"metric": "accuracy"}, r"no metric 'accuracy'; known: acc, acc_norm"),
        ({"metric": "acc,strict"}, r"no filter 'strict'; known: none"),
        ({"data": ""}, r"'logiqa' has no local form"),
        ({"data": "logiqa/{lang}.jsonl"}, r"unknown field 'lang'; known: split, dataset_name, subset"),
        ({"data": "elsewhere/{split}.jsonl"}, r"'logiqa': no file .*elsewhere/test\.jsonl.*JSON lines"),
        ({"shots": 1}, r"no file .*logiqa/train\.jsonl"),
    ],
)
def test_a_row_that_cannot_be_run_says_why(model, tokenizer, data, change, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate(model, tokenizer, [dataclasses.replace(LOGIQA, **change)], SETTINGS, data_root=data)


def test_a_missing_file_is_noticed_before_anything_runs(model, tokenizer, data, forward_passes):
    with pytest.raises(EvaluationError, match="nowhere"):
        missing = dataclasses.replace(LOGIQA, name="late", data="nowhere/{split}.jsonl")
        evaluate(model, tokenizer, [LOGIQA, missing], SETTINGS, data_root=data)
    assert not forward_passes


def test_local_files_need_no_network(model, tokenizer, data, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert len(evaluate(model, tokenizer, [LOGIQA, TYDIQA], SETTINGS, data_root=data).samples) == 37


def test_settings_and_dtype_are_checked(model, tokenizer, data):
    with pytest.raises(EvaluationError, match="dtype is bfloat16, the model was loaded as float32"):
        evaluate(model, tokenizer, [LOGIQA], EvaluationSettings(), data_root=data)
    for wrong in ({"limit": 3, "limit_fraction": 0.5}, {"limit": 0}, {"limit_fraction": 1.5}):
        with pytest.raises(EvaluationError, match="limit"):
            EvaluationSettings(**wrong)
