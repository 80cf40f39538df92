"""The benchmarks of config/benchmarks.tsv on real rows: each runs from local files and scores what lm-eval scores."""

from __future__ import annotations

import json
from pathlib import Path

import lm_eval
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sstoken.evaluation import EvaluationSettings, evaluate, load_benchmarks

TABLE = Path(__file__).parents[2] / "config" / "benchmarks.tsv"
THEIR_TASKS = Path(lm_eval.__file__).parent / "tasks"
LIMIT = 12


@pytest.fixture(scope="module")
def tokenizer():
    alphabet = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>")


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, initializer_range=0.3, **size)
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def root(shared_data):
    if not (shared_data / "benchmarks").is_dir():
        pytest.skip("the shared data hold no benchmarks")
    return shared_data / "benchmarks"


@pytest.mark.parametrize("name", [b.name for b in load_benchmarks(TABLE)])
def test_every_benchmark_runs_on_local_rows(model, tokenizer, root, name):
    settings = EvaluationSettings(batch_size=4, dtype="float32", limit=LIMIT, max_gen_toks=4)
    result = evaluate(model, tokenizer, load_benchmarks(TABLE, [name]), settings, data_root=root)
    (score,) = result.scores
    assert score["n_questions"] == len(result.samples) == LIMIT
    assert result.samples["question_id"].is_unique
    assert score["score"] == pytest.approx(result.samples["score"].mean()) and 0 <= score["score"] <= 1
    used = result.provenance["benchmarks"][name]["data_files"]
    assert used and all((root / path).is_file() for path in used)


@pytest.mark.parametrize("name", ["mmlu", "agieval"])
def test_a_whole_group_is_one_mean_over_its_questions(model, tokenizer, root, name):
    subtasks = {"mmlu": 57, "agieval": 21}[name]
    settings = EvaluationSettings(batch_size=4, dtype="float32", limit=subtasks + 3, max_length=256, max_gen_toks=2)
    result = evaluate(model, tokenizer, load_benchmarks(TABLE, [name]), settings, data_root=root)
    counts = result.samples["question_id"].str.split("/").str[0].value_counts()
    assert sorted(counts) == [1] * (subtasks - 3) + [2] * 3


def test_questions_of_one_passage_share_a_cluster(model, tokenizer, root):
    settings = EvaluationSettings(batch_size=4, dtype="float32", limit=21 * 4, max_length=256, max_gen_toks=2)
    samples = evaluate(model, tokenizer, load_benchmarks(TABLE, ["agieval"]), settings, data_root=root).samples
    clusters = samples.groupby(samples["question_id"].str.split("/").str[0])["cluster_id"].nunique()
    assert clusters["agieval_gaokao_english"] == clusters["agieval_lsat_rc"] == clusters["agieval_sat_en"] == 1
    assert clusters["agieval_aqua_rat"] == clusters["agieval_sat_math"] == clusters["agieval_jec_qa_ca"] == 4


@pytest.mark.parametrize(
    ("name", "theirs", "files", "ours"),
    [
        ("arc_easy", "arc/arc_easy.yaml", "arc/ARC-Easy", "arc_easy"),
        ("hellaswag", "hellaswag/hellaswag.yaml", "hellaswag", "hellaswag"),
        ("logiqa", "logiqa/logiqa.yaml", "logiqa", "sstoken_logiqa"),
        ("mmlu", "mmlu/default/mmlu_abstract_algebra.yaml", "mmlu/abstract_algebra", "mmlu_abstract_algebra"),
        ("triviaqa", "triviaqa/default.yaml", "triviaqa", "triviaqa"),
        ("truthfulqa_mc2", "truthfulqa/truthfulqa_mc2.yaml", "truthfulqa/multiple_choice", "truthfulqa_mc2"),
    ],
)
def test_scores_equal_lm_evals_own(model, tokenizer, root, tmp_path, name, theirs, files, ours):
    """The same rows through lm-eval's own task file and its own entry point, without any of our code."""
    (benchmark,) = load_benchmarks(TABLE, [name])
    data = {path.stem: str(path) for path in sorted((root / files).glob("*.jsonl"))}
    splits = {
        f"{kind}_split": split for kind, split in (("test", "test"), ("validation", "validation")) if split in data
    }
    own = {
        "include": str(THEIR_TASKS / theirs),
        "task": "own",
        "dataset_path": "json",
        "dataset_name": None,
        "training_split": None,
    }
    own |= {"dataset_kwargs": {"data_files": data}, **splits}
    (tmp_path / "own.yaml").write_text(json.dumps(own))  # JSON is YAML
    n = 3 if name == "mmlu" else LIMIT
    expected = lm_eval.simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4),
        tasks=["own"],
        num_fewshot=benchmark.shots,
        limit=n,
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
        gen_kwargs={"max_gen_toks": 8} if name == "triviaqa" else None,
    )["samples"]["own"]
    metric, _ = benchmark.metric_key
    settings = EvaluationSettings(batch_size=4, dtype="float32", limit=57 * n if name == "mmlu" else n, max_gen_toks=8)
    samples = evaluate(model, tokenizer, [benchmark], settings, data_root=root).samples
    found = samples[samples["question_id"].str.startswith(f"{ours}/")]
    assert found["score"].tolist() == [float(sample[metric]) for sample in expected]
    assert len(found) == n
