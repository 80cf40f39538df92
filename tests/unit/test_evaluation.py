"""Evaluation: scores against a direct forward pass, and what can go wrong around them. No network, no shared data."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import logging
import random
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sstoken.config import ConfigError
from sstoken.evaluation import Benchmark, EvaluationError, EvaluationSettings, evaluate, load_benchmarks
from sstoken.evaluation.plan import _load, spread
from sstoken.tasks import prompt_tokenizer
from sstoken.tasks.tydiqa import utils as tydiqa

TABLE = Path(__file__).parents[2] / "config" / "benchmarks.tsv"
LOGIQA = Benchmark("logiqa", "sstoken_logiqa", 0, "acc", "1.0", 0.25, "LogiQA", "logiqa/{split}.jsonl")
TYDIQA = Benchmark("tydiqa", "sstoken_tydiqa", 1, "f1", "1.0/1.0", 0.0, "TyDiQA", "tydiqa/{split}.jsonl")
SETTINGS = EvaluationSettings(batch_size=4, dtype="float32", max_gen_toks=4)


@pytest.fixture(scope="module")
def tokenizer():
    alphabet = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=4096, initializer_range=0.3, **size)
    return LlamaForCausalLM(config).eval()


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
    _write(tmp_path / "logiqa" / "test.jsonl", logiqa)
    _write(tmp_path / "tydiqa" / "validation.jsonl", rows)
    _write(tmp_path / "tydiqa" / "train.jsonl", rows)
    return tmp_path


def _write(path, rows):
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


class TestTable:
    PAPER = [
        "winogrande",
        "arc_challenge",
        "arc_easy",
        "hellaswag",
        "logiqa",
        "mmlu",
        "truthfulqa_mc2",
        "triviaqa",
        "agieval",
        "tydiqa",
    ]

    def test_the_papers_ten_are_there(self):
        rows = {b.name: b for b in load_benchmarks(TABLE)}
        assert set(self.PAPER) <= set(rows)
        assert {name: rows[name].shots for name in self.PAPER if rows[name].shots} == {"mmlu": 5, "tydiqa": 1}
        assert all(0 <= b.chance < 1 and b.column for b in rows.values())

    def test_asked_for_order_is_kept(self):
        assert [b.name for b in load_benchmarks(TABLE, ["mmlu", "arc_easy"])] == ["mmlu", "arc_easy"]

    def test_an_unknown_name_lists_the_known(self):
        with pytest.raises(ConfigError, match=r"'helaswag'.*'hellaswag'.*Known: winogrande, "):
            load_benchmarks(TABLE, ["helaswag"])


class TestTydiqa:
    def test_f1_is_squads(self):
        assert tydiqa.f1("The cat, sat!", "a cat sat") == 1
        assert tydiqa.f1("in 1994", "1994") == pytest.approx(2 / 3)
        assert tydiqa.f1("cat cat", "cat dog bird") == pytest.approx(0.4)
        assert tydiqa.f1("", "x") == tydiqa.f1("the", "a") == 0
        doc = {"answers": {"text": ["blue whale", "whale"]}}
        assert tydiqa.process_results(doc, [" whale\n"]) == {"f1": 1.0, "exact_match": 1.0}

    def test_at_most_200_a_language_by_one_generator_over_languages(self):
        sizes = {name: 150 if name == "bengali" else 203 + i for i, name in enumerate(tydiqa.LANGUAGES)}
        rows = Dataset.from_list([{"id": f"{name}-{i}", "context": ""} for name, n in sizes.items() for i in range(n)])
        random.seed(42)
        for name, n in sizes.items():
            ids = [f"{name}-{i}" for i in range(n)]
            expected = random.sample(ids, 200) if n > 200 else ids
            assert getattr(tydiqa, name)(rows)["id"][:] == expected

    def test_the_example_is_of_the_same_language_or_english(self):
        rows = Dataset.from_list(
            [{"id": f"{name}-{i}", "context": ""} for name in ("english", "korean") for i in range(5)]
        )
        assert tydiqa.korean_shot(rows)["id"][0].startswith("korean")
        assert tydiqa.swahili_shot(rows)["id"][0].startswith("english")
        assert len(tydiqa.korean_shot(rows)) == 1
        with pytest.raises(ValueError, match="neither swahili nor English"):
            tydiqa.swahili_shot(rows.filter(lambda row: row["id"].startswith("korean")))

    def test_passages_end_after_512_tokens_of_the_model(self, tokenizer):
        rows = Dataset.from_list([{"id": "telugu-1", "context": "పేరా" * 300}, {"id": "telugu-2", "context": "short"}])
        assert tydiqa.telugu(rows)["context"][:] == rows["context"][:]
        reading = prompt_tokenizer.set(tokenizer)
        long, short = tydiqa.telugu(rows)["context"]
        prompt_tokenizer.reset(reading)
        assert short == "short" and ("పేరా" * 300).startswith(long)
        assert 509 <= len(tokenizer(long)["input_ids"]) <= 515  # a letter of three bytes may straddle the limit

    def test_prompt(self, model, tokenizer, data, forward_passes):
        evaluate(model, tokenizer, [TYDIQA], dataclasses.replace(SETTINGS, limit=1, max_gen_toks=1), data_root=data)
        (ids,) = forward_passes
        head, example, question = tokenizer.decode(ids[0]).split("\n\n")
        assert head.startswith("اقرأ")
        assert example.startswith("الفقرة: arabic passage") and example.split("\n")[2].split(": ")[1] in "012"
        assert question == "الفقرة: arabic passage 0, with the answer 0.\nالسؤال: what of 0?\nالجواب:"

    def test_the_models_tokenizer_cuts_example_and_question(self, model, tokenizer, data, forward_passes):
        rows = [json.loads(line) for line in (data / "tydiqa/train.jsonl").open()]
        for split in ("train", "validation"):
            _write(data / f"tydiqa/{split}.jsonl", [row | {"context": "x" * 1200} for row in rows])
        evaluate(model, tokenizer, [TYDIQA], dataclasses.replace(SETTINGS, limit=1, max_gen_toks=1), data_root=data)
        assert tokenizer.decode(forward_passes[0][0]).count("x" * 512 + "\n") == 2
        assert "x" * 513 not in tokenizer.decode(forward_passes[0][0])
