"""The audit from its command line, on one's own rows: with a scorer of one's own, and with what it says held against runs."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from tests.campaign.places import ages
from tests.flow import Workflow
from tests.scorers import MINE

METHODS = ["full", "random", "rho1-static", "oracle"]
WORDS = ["the", "cat", "river", "stone", "blue", "walks", "seven", "over", "quiet", "house", "light", "green"]


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """A grid and an audit of the same rows, planted here; nothing of the world."""
    flow = Workflow(tmp_path_factory.mktemp("audit"))
    draw = np.random.default_rng(0)

    def text(count):
        return " ".join(draw.choice(WORDS, count)).capitalize() + "."

    rows = [{"prompt": f"{text(4)} {n}?", "completion": f"{text(7)} {text(6)}"} for n in range(60)]
    (flow.folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in [*rows, *rows[:3]]))
    (flow.folder / "my_idea.py").write_text(MINE)
    place = {"sources": ["rows.jsonl"]}
    data = {
        "train": place | {"limit": 32, "noise": {"shuffled": 0.4, "boilerplate": 0.4}},
        "reference": place | {"skip": 32, "limit": 16},
        "heldout": place | {"skip": 48},
    }
    changes = {
        "models": ["tiny-llama"],
        "methods": METHODS,
        "benchmarks": ["heldout"],
        "seeds": [0],
        "world": None,
        "runs_in_one_job": 1,
    }
    document = flow.configuration(
        "own", **changes, data=data, benchmarks_data=None, benchmarks_file="sstoken/evaluation/benchmarks.tsv"
    )
    killed(flow)
    audit(flow)
    flow.said = audit(flow, "--method", "my_idea.py")
    flow.run(document)
    return flow


COMMAND = [sys.executable, "-m", "sstoken", "audit", "own.yaml"]


def killed(flow):
    """An audit that dies with its jobs in the middle of one."""
    process = subprocess.Popen(
        COMMAND, cwd=flow.folder, env=flow.environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None and not list(flow.results("own").glob("logs/tokens/*.log")):
        time.sleep(0.02)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def audit(flow, *options):
    command = [*COMMAND, *options]
    done = subprocess.run(command, cwd=flow.folder, env=flow.environment(), capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


def test_a_scorer_of_ones_own_is_audited_beside_the_others_though_an_audit_without_it_was_there(flow):
    rows = pd.read_csv(flow.results("own") / "audit" / "audit.csv", dtype={"phase": str})
    assert set(rows["method"]) == {"random", "rho1-static", "oracle", "my-idea"}
    whole = rows[(rows["phase"] == "all") & (rows["kind"] == "all")].set_index("method")
    assert whole.loc["oracle", "auc"] == 1 and whole["auc"].between(0, 1).all()
    assert set(rows["kind"]) >= {"shuffled", "boilerplate"}
    assert "my-idea" in (flow.results("own") / "audit" / "tiny-llama" / "index.html").read_text()


def test_what_was_found_is_said_in_the_terminal(flow):
    said = flow.said.split("Does the score find the noise?")[1]
    assert "my-idea" in said and "Does it point the right way?" in said
    assert "Not audited: full, since it keeps every token." in said
    assert "results/own/audit/tiny-llama/index.html" in said and "report/index.html" not in flow.said


def test_its_direction_is_taken_from_the_rows_that_are_held_out(flow):
    direction = pd.read_csv(flow.results("own") / "audit" / "tiny-llama" / "direction.csv")
    assert set(direction["method"]) == {"full", "random", "rho1-static", "oracle", "my-idea"}
    assert (flow.results("own") / "tokens" / "tiny-llama" / "heldout.safetensors").exists()


def test_held_out_rows_are_asked_of_every_run_and_none_is_trained_on(flow):
    record = json.loads((flow.results("own") / "data" / "heldout" / "heldout.json").read_text())
    assert (record["rows"], record["left_out"]) == (12, {"train": 3})
    lines = (flow.results("own") / "data" / "heldout" / "test.jsonl").read_text().splitlines()
    assert len(lines) == 12
    samples = pd.read_parquet(flow.results("own") / "samples.parquet")
    assert samples.groupby("method").size().to_dict() == dict.fromkeys(METHODS, 6)  # evaluation.limit of ci.yaml
    table = pd.read_csv(flow.results("own") / "report" / "tables" / "heldout.csv")
    assert table["bits"].between(0.1, 50).all() and set(table["method"]) == set(METHODS)
    assert "Held-out loss" in (flow.results("own") / "report" / "index.html").read_text()


def test_a_second_run_makes_nothing_and_another_choice_of_rows_makes_what_follows(flow):
    assert "Nothing to be done" in flow.run(flow.folder / "own.yaml", "--dry-run")
    text = flow.run(flow.folder / "own.yaml", "--dry-run", "--config", "set=data.heldout.limit=10")
    assert "evaluate" in text and "heldout" in text
    assert "train_model" not in text and "rule train:" not in text


def test_the_same_audit_again_makes_nothing_and_shows_the_same_whatever_the_times_of_its_files(flow):
    draw = random.Random(0)
    ages(flow.results("own"), lambda _: draw.uniform(1e9, 1.6e9))
    said = audit(flow, "--method", "my_idea.py")
    assert "Nothing to be done" in said and "my-idea" in said.split("Does the score find the noise?")[1]


def test_precision_and_recall_are_those_of_the_runs_selection(flow):
    """Static methods keep the same tokens in the audit as in their own runs."""
    rows = pd.read_csv(flow.results("own") / "audit" / "audit.csv", dtype={"phase": str})
    whole = rows[(rows["phase"] == "all") & (rows["kind"] == "all")].set_index("method")
    selection = pd.read_csv(flow.results("own") / "selection.csv", dtype={"phase": str})
    own = selection[(selection["phase"] == "all") & (selection["kind"] == "all")].set_index("method")
    for method in ("random", "rho1-static", "oracle"):
        kept = load_file(flow.results("own") / "runs" / "tiny-llama" / method / "seed0" / "selection.safetensors")
        assert len(kept["score"])
        for column in ("auc", "precision", "recall"):
            assert whole.loc[method, column] == pytest.approx(own.loc[method, column], abs=1e-9), (method, column)
