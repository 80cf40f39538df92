"""What an edit makes anew, for real and in this process: the most telling trials of test_identity.py."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sstoken.evaluation import load_benchmarks
from sstoken.world import generate
from sstoken.world.tokenizer import random_model
from tests.here import Here

RUNS = {"runs full", "runs mine", "runs oracle", "runs reference"}
SCORES = {"scores base", "scores full", "scores mine", "scores oracle"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, root) -> tuple[Path, dict]:
    """A whole small grid on a local model, local rows and local benchmark rows, with RHO-1 as a scorer of one's own."""
    folder = tmp_path_factory.mktemp("stale")
    generate(folder, seed=5, rows=24, reference_rows=12, questions=6, documents=0)
    for seed in (0, 1):
        random_model(folder / f"model{seed}", family="llama", size="tiny", seed=seed)
    package = root / "sstoken"
    shutil.copy(package / "world" / "benchmarks.tsv", folder / "benchmarks.tsv")
    shutil.copy(package / "selection" / "methods" / "rho1.py", folder / "mine.py")
    columns = next(x for x in (package / "models" / "models.tsv").read_text().splitlines() if x.startswith("name\t"))
    (folder / "models.tsv").write_text(f"{columns}\nmodel\tLlama\ttiny\tlocal:model0\t\t\n")
    config = yaml.safe_load((root / "config" / "ci.yaml").read_text()) | {
        "experiment": "here", "models": ["model"], "methods": ["base", "full", "mine", "oracle"], "seeds": [0],
        "own_methods": {"mine": {"scorer": "mine.py", "keep_ratio": 0.6}},
        "benchmarks": ["arc_easy", "mmlu"], "models_file": "models.tsv", "benchmarks_file": "benchmarks.tsv",
        "benchmarks_data": "benchmarks", "device": "cpu", "reference_seed": 0,
        "data": {
            "train": {"sources": ["train.jsonl"], "limit": 12}, "reference": {"sources": ["reference.jsonl"]},
        },
    }  # fmt: skip
    config["evaluation"]["limit"] = 4
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert Here(config).again() == RUNS | SCORES
    return folder, config


@pytest.fixture
def here(finished, tmp_path, monkeypatch) -> Here:
    folder, config = finished
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Here(yaml.safe_load(yaml.safe_dump(config)))


def edit(name: str, before: str, after: str) -> None:
    text = Path(name).read_text()
    assert before in text
    Path(name).write_text(text.replace(before, after, 1))


def test_a_turned_sign_trains_its_method_again_and_a_docstring_nothing(here):
    edit("mine.py", '    """``score_i', '    # so\n    """Is ``score_i')
    assert here.status() == {}
    before = pd.read_csv("scores.csv")
    edit("mine.py", "return signals.loss - signals.reference_loss", "return signals.reference_loss - signals.loss")
    assert here.status() == {"train mine": "code mine.py", "evaluate mine": "run (code mine.py)"}
    assert here.again() == {"runs mine", "scores mine"}
    after = pd.read_csv("scores.csv")
    assert before[before.method != "mine"].equals(after[after.method != "mine"])


def test_a_method_added_trains_itself_alone_and_other_rows_keep_their_bytes(here):
    rows = set(Path("scores.csv").read_text().splitlines())
    costs = set(Path("costs.csv").read_text().splitlines())
    here.config["methods"].append("random")
    assert here.again() == {"runs random", "scores random"}
    assert rows <= set(Path("scores.csv").read_text().splitlines())
    assert costs <= set(Path("costs.csv").read_text().splitlines())


def test_changed_shots_ask_that_benchmark_again_and_no_other(here):
    records = {path: json.loads(path.read_text()) for path in Path("results").rglob("evaluation.json")}
    lines = [line.split("\t") for line in Path("benchmarks.tsv").read_text().splitlines()]
    place = next(cells for cells in lines if cells[0] == "name").index("shots")
    next(cells for cells in lines if cells[0] == "mmlu")[place] = "0"
    Path("benchmarks.tsv").write_text("\n".join("\t".join(cells) for cells in lines) + "\n")
    assert here.again() == SCORES
    for path, before in records.items():
        after = json.loads(path.read_text())
        assert after["evaluation"]["benchmarks"]["mmlu"]["shots"] == 0
        assert after["parts"]["arc_easy"] == before["parts"]["arc_easy"]
        assert after["parts"]["mmlu"] != before["parts"]["mmlu"]


def test_a_corrected_answer_key_is_scored_again(here):
    (benchmark,) = load_benchmarks("benchmarks.tsv", ["arc_easy"])
    path = Path("benchmarks", benchmark.data.format(split="test", dataset_name="", subset=""))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        labels = row["choices"]["label"]
        row["answerKey"] = labels[(labels.index(row["answerKey"]) + 1) % len(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = pd.read_csv("scores.csv")
    assert here.again() == SCORES
    after, other = pd.read_csv("scores.csv"), before.benchmark == "mmlu"
    pd.testing.assert_frame_equal(before[other], after[other])
    assert not before.equals(after)


def test_sharded_weights_in_the_place_of_a_single_file_are_trained_on(here):
    from safetensors.torch import load_file, save_file

    source, folder = Path("model1"), Path("results/here/models/model")
    weights = load_file(source / "model.safetensors")
    names = sorted(weights)
    files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, own in files.items():
        save_file({name: weights[name] for name in own}, source / file, metadata={"format": "pt"})
    weight_map = {name: file for file, own in files.items() for name in own}
    (source / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (source / "model.safetensors").unlink()
    edit("models.tsv", "local:model0", "local:model1")
    assert here.again() == RUNS | SCORES
    found = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    assert found.keys() == weights.keys() and all(found[name].equal(weights[name]) for name in names)


def test_a_changed_label_moves_the_oracle_and_no_other_run(here):
    rows = [json.loads(line) for line in Path("train.jsonl").read_text().splitlines()]
    next(row for row in rows[:12] if row["messages"][-1]["noise"])["messages"][-1]["noise"] = []
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = here.again()
    assert "runs oracle" in made and made <= {"runs oracle", "scores oracle"}


def test_what_answers_are_generated_by_is_evaluated_again_and_not_trained_again(here):
    Path("model0/generation_config.json").write_text('{"repetition_penalty": 2.0}')
    assert here.again() == SCORES


def test_a_result_cut_or_edited_by_hand_is_made_again_alone(here):
    weights = Path("results/here/runs/model/full/seed0/adapter_model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-4])
    scores = Path("results/here/scores/model/oracle/seed0/evaluation.json")
    record = json.loads(scores.read_text())
    record["scores"][0]["score"] = 0.99
    scores.write_text(json.dumps(record))
    assert here.status() == {
        "train full": "adapter_model.safetensors was cut, or edited by hand",
        "evaluate oracle": "evaluation.json was cut, or edited by hand",
    }
    assert here.again() == {"runs full", "scores oracle"}
    assert 0.99 not in set(pd.read_csv("scores.csv")["score"])


def test_a_copy_under_another_name_or_in_other_jobs_has_nothing_to_do(here):
    Path("results/here").rename("results/there")
    here.config |= {"experiment": "there", "runs_in_one_job": 1}
    assert here.status() == {}
