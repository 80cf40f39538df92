"""What an edit makes anew: the results that depend on it, and no other.  Shown on copies of one finished small grid.

Too long for the suite (``make proofs``); tests/unit/test_identity.py asks the same of the names alone.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sstoken.evaluation import benchmarks
from sstoken.experiment.config import load_config
from sstoken.experiment.grid import Grid
from sstoken.experiment.status import status
from sstoken.records import identity
from tests.flow import Workflow

pytestmark = pytest.mark.slow

SMALL = {
    "experiment": "small",
    "models": ["mine"],
    "methods": ["base", "full", "rho1", "oracle"],
    "benchmarks": ["arc_easy", "mmlu"],
    "seeds": [0],
    "models_file": "models.tsv",
    "methods_file": "methods.yaml",
    "benchmarks_file": "benchmarks.tsv",
    "benchmarks_data": "benchmarks",
    "instruct_data": "rows",
    "reference_seed": 0,
    "data": {
        "train": {"sources": ["{instruct_data}"], "limit": 16},
        "reference": {"sources": ["{world}/reference.jsonl"], "limit": 16},
    },
    "world": {"options": {"rows": 24, "reference_rows": 24, "questions": 12, "documents": 0}, "data_per_seed": False},
}
RUNS = {"mine full 0", "mine rho1 0", "mine oracle 0", "mine reference 0"}
SCORES = {"mine base 0", "mine full 0", "mine rho1 0", "mine oracle 0"}


class Copy(Workflow):
    """A checkout of its own, whose code may be edited."""

    def __init__(self, folder: Path, root: Path):
        self.folder = folder
        if root.is_dir():
            shutil.copytree(root, folder, dirs_exist_ok=True, copy_function=shutil.copy, symlinks=True,
                            ignore=shutil.ignore_patterns("__pycache__", ".snakemake"))  # fmt: skip

    def command(self, config, *options):
        base = [sys.executable, "-m", "snakemake", "--snakefile", "Snakefile", "--cores", "2"]
        return [*base, "--configfile", str(config), *options]

    def environment(self):
        return super().environment() | {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def edit(self, name: str, before: str, after: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert before in text, f"{name} has no {before!r}"
        path.write_text(text.replace(before, after, 1))

    def configure(self, **changes) -> None:
        path = self.folder / "small.yaml"
        document = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            document[key] = {**document.get(key, {}), **value} if isinstance(value, dict) else value
        path.write_text(yaml.safe_dump(document))

    def status(self) -> dict[str, dict[str, str]]:
        """stage -> {result: what changed} of all that is not current, asked of this checkout's files."""
        package = self.folder / "sstoken"
        cached = (identity.file_code, identity.code_of, identity.scorer_code, identity._imports, identity._file_of,
                  benchmarks._our_tasks)  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(identity, "PACKAGE", package)
            patch.setattr(benchmarks, "OUR_TASKS", package / "tasks")
            for function in cached:
                function.cache_clear()
            states = status(Grid(load_config("small.yaml")))
        for function in cached:
            function.cache_clear()
        found: dict = {}
        for state in states:
            if state.state != "current":
                found.setdefault(state.stage, {})[f"{state.model} {state.method} {state.seed}"] = (
                    state.changed or "missing"
                )
        return found

    def records(self) -> dict[str, tuple]:
        """Stage and result -> when its record was made and what it says of its numbers."""
        found = {}
        for kind, name in (("runs", "run.json"), ("scores", "evaluation.json")):
            for path in sorted((self.results("small") / kind).rglob(name)):
                model, method, seed = path.relative_to(self.results("small") / kind).parts[:3]
                record = json.loads(path.read_text())
                found[f"{kind} {model} {method} {seed.removeprefix('seed')}"] = (
                    record["cost"]["seconds"], record["identity"],
                )  # fmt: skip
        return found

    def again(self, *options) -> set[str]:
        """Run, and say which runs and scores were made anew."""
        before = self.records()
        self.output = self.run("small.yaml", *options)
        after = self.records()
        return {name for name in after if after[name] != before.get(name)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, root) -> Copy:
    if kept := os.environ.get("SSTOKEN_KEPT"):
        return Copy(Path(kept), Path("nowhere"))
    return finish(tmp_path_factory.mktemp("finished"), root)


def finish(folder: Path, root: Path) -> Copy:
    """The small grid, whole, on a local model, local rows and local benchmark rows."""
    for name in ("Snakefile", "workflow", "sstoken"):
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, folder / name)
    for name, file in (("methods.yaml", "selection/methods/methods.yaml"), ("benchmarks.tsv", "world/benchmarks.tsv")):
        shutil.copy(root / "sstoken" / file, folder / name)
    from sstoken.world import generate
    from sstoken.world.tokenizer import random_model

    generate(folder / "drawn", seed=5, rows=24, reference_rows=8, questions=12, documents=0)
    (folder / "rows").mkdir()
    (folder / "drawn" / "train.jsonl").rename(folder / "rows" / "train.jsonl")
    (folder / "drawn" / "benchmarks").rename(folder / "benchmarks")
    shutil.rmtree(folder / "drawn")
    for seed in (0, 1):
        random_model(folder / f"model{seed}", family="llama", size="tiny", seed=seed)
    header = (root / "sstoken" / "models" / "models.tsv").read_text().splitlines()
    columns = next(line for line in header if line.startswith("name\t"))
    (folder / "models.tsv").write_text(f"{columns}\nmine\tLlama\ttiny\tlocal:model0\t\t\n")
    document = yaml.safe_load((root / "config" / "ci.yaml").read_text()) | SMALL
    document["evaluation"]["limit"] = 4
    (folder / "small.yaml").write_text(yaml.safe_dump(document))
    flow = Copy(folder, Path("nowhere"))
    flow.output = flow.run("small.yaml")
    return flow


@pytest.fixture
def copy(finished, tmp_path) -> Copy:
    """As ``cp -r`` does: all times are new."""
    return Copy(tmp_path, finished.folder)


def test_a_copied_folder_has_nothing_to_do(copy):
    for path in sorted(copy.results("small").rglob("*"), reverse=True):  # and in another order
        os.utime(path, (path.stat().st_size, path.stat().st_size))
    assert "Nothing to be done" in copy.run("small.yaml")
    assert copy.status() == {}


def test_a_changed_formula_makes_its_methods_runs_again_and_no_other(copy):
    table = copy.results("small") / "report" / "tables" / "main.csv"
    rows = {line for line in table.read_text().splitlines() if ",rho1," not in line}
    copy.edit("sstoken/selection/methods/rho1.py", "return signals.loss - signals.reference_loss",
              "return signals.reference_loss - signals.loss")  # fmt: skip
    changed = "code sstoken/selection/methods/rho1.py"
    assert copy.status() == {"train": {"mine rho1 0": changed}, "evaluate": {"mine rho1 0": f"run ({changed})"}}
    assert copy.again() == {"runs mine rho1 0", "scores mine rho1 0"}
    assert rows <= set(table.read_text().splitlines())
    assert copy.status() == {}
    assert "Nothing to be done" in copy.run("small.yaml")


def test_a_method_added_trains_itself_alone_and_one_removed_nothing(copy):
    tables = copy.results("small") / "report" / "tables"
    before = (tables / "averages.csv").read_text().splitlines()
    copy.configure(methods=["base", "full", "random", "rho1", "oracle"])
    assert copy.again() == {"runs mine random 0", "scores mine random 0"}
    assert set(before) <= set((tables / "averages.csv").read_text().splitlines())
    copy.configure(methods=["base", "rho1"])
    assert copy.again() == set()
    methods = pd.read_csv(copy.results("small") / "scores.csv")["method"]
    assert set(methods) == {"base", "rho1"}


def test_a_benchmark_changed_is_asked_again_and_the_others_scores_are_kept(copy):
    def files(name):
        return {p: json.loads(p.read_text()) for p in sorted(copy.results("small").rglob(name))}

    rows = copy.folder / "benchmarks.tsv"
    lines = [line.split("\t") for line in rows.read_text().splitlines()]
    shots = next(cells for cells in lines if cells[0] == "name").index("shots")
    row = next(cells for cells in lines if cells[0] == "mmlu")
    assert row[shots] == "5"
    row[shots] = "0"
    rows.write_text("\n".join("\t".join(cells) for cells in lines) + "\n")
    status = copy.status()
    assert set(status) == {"evaluate"} and set(status["evaluate"]) == SCORES
    assert all("benchmark mmlu" in changed for changed in status["evaluate"].values())
    before = files("evaluation.json")
    assert copy.again("--until", "evaluate") == {f"scores {name}" for name in SCORES}
    for path, record in files("evaluation.json").items():
        assert record["evaluation"]["benchmarks"]["mmlu"]["shots"] == 0
        assert record["parts"]["arc_easy"] == before[path]["parts"]["arc_easy"]
        assert record["parts"]["mmlu"] != before[path]["parts"]["mmlu"]
        assert record["scores"][0] == before[path]["scores"][0]


def test_an_answer_key_corrected_is_scored_again(copy):
    path = next(p for p in sorted((copy.folder / "benchmarks" / "arc_easy").glob("test*.jsonl")))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        labels = row["choices"]["label"]
        row["answerKey"] = labels[(labels.index(row["answerKey"]) + 1) % len(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = pd.read_csv(copy.results("small") / "scores.csv")
    assert copy.again() == {f"scores {name}" for name in SCORES}
    after = pd.read_csv(copy.results("small") / "scores.csv")
    own = scores["benchmark"] == "arc_easy"
    assert (scores.loc[own, "score"].to_numpy() != after.loc[own, "score"].to_numpy()).any()
    pd.testing.assert_frame_equal(scores[~own], after[~own])


def test_other_weights_at_the_same_source_are_trained_on(copy):
    """A folder with sharded weights comes in the place of a single file: the single file must not win."""
    from safetensors.torch import load_file, save_file

    source = copy.folder / "model1"
    weights = load_file(source / "model.safetensors")
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: weights[name] for name in own}, source / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, own in parts.items() for name in own}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    (source / "model.safetensors").unlink()
    copy.edit("models.tsv", "local:model0", "local:model1")
    assert set(copy.status()["train"]) == RUNS and set(copy.status()["evaluate"]) == SCORES
    # not --until train: Snakemake starts nothing that waits for a job of that rule, and RHO-1 waits for its reference
    assert copy.again() == {f"runs {name}" for name in RUNS} | {f"scores {name}" for name in SCORES}
    folder = copy.results("small") / "models" / "mine"
    assert not (folder / "model.safetensors").exists()
    from sstoken.models.load import Weights

    loaded = Weights(folder).load(dtype="float32").state_dict()
    assert all(loaded[name].equal(weights[name]) for name in names)


ELSEWHERE = {
    "a comment and a docstring of the scorer": (
        "sstoken/selection/methods/rho1.py", '    """``score_i', '    # so\n    """Is ``score_i'),
    "a docstring of the trainer": ("sstoken/training/trainer.py", '"""The trainer', '"""A trainer'),
    "the plan": ("sstoken/experiment/plan.py", "def rows(", "def rows_read("),
    "a scorer that no method here uses": (
        "sstoken/selection/methods/random.py", "return signals.uniform", "return -signals.uniform"),
    "a method that the grid does not have": ("methods.yaml", "  random:", "  randomly:"),
}  # fmt: skip


@pytest.mark.parametrize("what", ELSEWHERE)
def test_what_no_number_depends_on_makes_nothing_again(copy, what):
    copy.edit(*ELSEWHERE[what])
    assert copy.status() == {}


def test_a_report_upgraded_is_drawn_again_alone(copy):
    copy.edit("sstoken/report/collect.py", "def collect(", "UPGRADED = True\n\n\ndef collect(")
    assert copy.status() == {}
    text = copy.run("small.yaml", "--dry-run")
    stages = set(re.findall(r"^(\w+) +\d+$", text, re.MULTILINE))
    assert stages == {"tables", "page", "all", "total"}


EVERYTHING = {
    "rows edited in place": lambda copy: copy.edit("rows/train.jsonl", '"content": "', '"content": "So: '),
    "rows added to the folder": lambda copy: shutil.copy(copy.folder / "rows/train.jsonl", copy.folder / "rows/a.jsonl"),
    "rows taken": lambda copy: copy.configure(data={"train": {"sources": ["{instruct_data}"], "limit": 15}}),
    "template": lambda copy: copy.configure(text={"max_length": 64}),
    "tokenizer": lambda copy: copy.edit("model0/tokenizer_config.json", "{", '{"note": 1, '),
    "reading": lambda copy: copy.edit("sstoken/data/readers.py", "from __future__", "EDITED = 1\nfrom __future__"),
    "recipe": lambda copy: copy.configure(training={"learning_rate": 0.02}),
    "trainer": lambda copy: copy.edit("sstoken/training/setup.py", "from __future__", "EDITED = 1\nfrom __future__"),
    "token loss": lambda copy: copy.edit("sstoken/selection/token_loss.py", "from __future__", "EDITED = 1\nfrom __future__"),
}  # fmt: skip


@pytest.mark.parametrize("what", EVERYTHING)
def test_what_every_run_depends_on_makes_every_run_again(copy, what):
    EVERYTHING[what](copy)
    status = copy.status()
    own_rows = {"mine reference 0"} if what.startswith("rows") else set()
    assert set(status["train"]) == RUNS - own_rows, status
    assert set(status["evaluate"]) >= SCORES - {"mine base 0"}


SOME = {
    "passes of frozen models": (
        lambda copy: copy.configure(references={"batch_tokens": 4096}), {"mine rho1 0"}, {"mine rho1 0"}),
    "rows of the reference": (
        lambda copy: copy.configure(world={"options": {**SMALL["world"]["options"], "noise": {}}}),
        {"mine reference 0", "mine rho1 0"}, {"mine rho1 0"}),
    "the world's generator": (
        lambda copy: copy.edit("sstoken/world/noise.py", "from __future__", "EDITED = 1\nfrom __future__"),
        {"mine reference 0", "mine rho1 0"}, {"mine rho1 0"}),
    "seed of the reference": (
        lambda copy: copy.configure(reference_seed=3), {"mine reference 3", "mine rho1 0"}, {"mine rho1 0"}),
    "an entry": (
        lambda copy: copy.edit("methods.yaml", "    scorer: rho1\n", "    scorer: rho1\n    scope: batch\n"),
        {"mine rho1 0"}, {"mine rho1 0"}),
    "evaluation": (lambda copy: copy.configure(evaluation={"max_gen_toks": 7}), set(), SCORES),
    "evaluation's code": (
        lambda copy: copy.edit("sstoken/evaluation/harness.py", "from __future__", "EDITED = 1\nfrom __future__"),
        set(), SCORES),
    "a task": (lambda copy: copy.edit("sstoken/tasks/world/_common", "", "# \n"), set(), SCORES),
    "a file deleted": (
        lambda copy: (copy.results("small") / "runs/mine/full/seed0/adapter_model.safetensors").unlink(),
        {"mine full 0"}, set()),
}  # fmt: skip


@pytest.mark.parametrize("what", SOME)
def test_an_edit_makes_again_what_depends_on_it(copy, what):
    edit, runs, scores = SOME[what]
    edit(copy)
    status = copy.status()
    assert set(status.get("train", {})) == runs and set(status.get("evaluate", {})) == scores, status


def test_a_changed_label_moves_the_oracle_and_no_other_run(copy):
    """The planted truth is part of what the oracle is made from, and of nothing else."""
    path = copy.folder / "rows" / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    row = next(row for row in rows[:16] if row["messages"][-1]["noise"])
    row["messages"][-1]["noise"] = []
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert set(copy.status()["train"]) == RUNS - {"mine reference 0"}  # as far as can be said before the rows are read
    assert copy.again("--until", "train") == {"runs mine oracle 0"}
    assert set(copy.status()["evaluate"]) == SCORES - {"mine base 0"}
    assert copy.again("--until", "evaluate") <= {"scores mine oracle 0"}
    assert copy.status() == {}


def test_a_report_edited_by_hand_or_cut_is_drawn_again_alone(copy):
    root = copy.results("small")
    table = (root / "report" / "tables" / "main.csv").read_text()
    (root / "scores.csv").write_text((root / "scores.csv").read_text().replace("0.", "0.9", 1))
    (root / "report" / "tables" / "main.csv").write_text(table[:-9])
    text = copy.run("small.yaml", "--dry-run")
    stages = set(re.findall(r"^(\w+) +\d+$", text, re.MULTILINE))
    assert stages == {"tables", "page", "all", "total"}
    assert copy.again() == set()
    assert (root / "report" / "tables" / "main.csv").read_text() == table
    assert "Nothing to be done" in copy.run("small.yaml")


def test_code_that_changes_while_the_workflow_runs_is_refused(copy):
    copy.configure(seeds=[1])
    hook = copy.folder / "workflow" / "scripts" / "train.py"
    hook.write_text("open('sstoken/selection/methods/rho1.py', 'a').write('\\nEDITED = 1\\n')\n" + hook.read_text())
    text = copy.run("small.yaml", "--until", "train", ok=False)
    assert "rho1.py was changed after this workflow had started; start it again" in text
    assert not (copy.results("small") / "runs/mine/rho1/seed1/run.json").exists()
