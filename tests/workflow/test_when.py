"""An ablation over the noise, run for real: every value on its own rows, compared with full-data training on the same rows."""

import json

import pandas as pd
import pytest
import yaml
from safetensors import safe_open

from sstoken.experiment.config import load_config
from sstoken.experiment.grid import Grid
from sstoken.experiment.status import status

NOISE = {
    "name": "noise",
    "models": ["tiny-llama"],
    "methods": ["rho1", "oracle"],
    "option": "world.options.noise_factor",
}


def test_values_are_run_on_their_own_rows_and_stand_beside_full(workflow, monkeypatch):
    changes = {"models": ["tiny-llama"], "methods": ["base", "full"], "seeds": [0], "benchmarks": ["arc_easy"]}
    path = workflow.configuration("when", **changes, ablations=[NOISE | {"values": [0, 1.7]}])
    workflow.run(path)
    root = workflow.results("when")
    monkeypatch.chdir(workflow.folder)

    # what each run was trained on, and scored with
    truth = {}
    for factor in (0, 1.7):
        train = root / "tokens" / "tiny-llama" / f"train.noise={factor}.seed0.safetensors"
        with safe_open(train, framework="np") as file:
            truth[factor] = (file.get_tensor("truth") > 0).mean()
            tokens = file.metadata()["sha256"]
        for method in ("full", "rho1", "oracle"):
            run = root / "runs" / "tiny-llama" / f"{method}.noise={factor}" / "seed0"
            assert json.loads((run / "run.json").read_text())["tokens_sha256"] == tokens
            with safe_open(run / "selection.safetensors", framework="np") as file:
                assert file.metadata()["tokens_sha256"] == tokens
    assert truth[0] == 0 and truth[1.7] > 0.1
    prompts = [
        [json.loads(line)["messages"][0] for line in (root / "data" / "world" / place / "seed0" / "train.jsonl").open()]
        for place in ("", "noise=0", "noise=1.7")
    ]
    assert prompts[0] == prompts[1] == prompts[2], "only the noise differs"
    assert not list((root / "data" / "world" / "noise=0").glob("**/benchmarks")), "all values share the benchmarks"

    # nothing is wrong at 0: the oracle is full-data training
    weights = [
        (root / "runs" / "tiny-llama" / f"{method}.noise=0" / "seed0" / "adapter_model.safetensors").read_bytes()
        for method in ("full", "oracle", "rho1")
    ]
    assert weights[0] == weights[1] != weights[2]

    # the table says what the scores say, against full at the same value
    table = pd.read_csv(root / "report" / "tables" / "ablations.csv").set_index(["method", "value"])
    scores = pd.read_csv(root / "scores.csv").set_index("method")["score"] * 100
    for factor in (0, 1.7):
        name = f"{factor:g}"
        assert table.loc[("rho1", factor), "minus_full"] == pytest.approx(
            scores[f"rho1.noise={name}"] - scores[f"full.noise={name}"]
        )
        assert table.loc[("rho1", factor), "noise"] == pytest.approx(1 - precision(root, f"full.noise={name}"))
    assert table.loc[("full", 0), "noise"] == 0 and table.loc[("full", 1.7), "noise"] > 0.2
    assert table.loc[("oracle", 0), "minus_full"] == 0
    page = (root / "report" / "index.html").read_text()
    assert (
        "When does it help? Over noise" in page
        and "Over noise" in page
        and "noise (world.options.noise_factor)" in page
    )
    assert (root / "report" / "tables" / "ablation-noise.tex").exists()

    # all is current; another value asks for its own results alone, and an edited rate makes none of the others stale
    assert {state.state for state in status(Grid(load_config(path)))} == {"current"}
    document = yaml.safe_load(path.read_text())
    document["ablations"][0]["values"] = [0, 1.7, 0.5]
    path.write_text(yaml.safe_dump(document))
    states = status(Grid(load_config(path)))
    open_ = {state.record for state in states if state.state != "current"}
    assert open_ and all("noise=0.5" in str(record) for record in open_)
    assert not any("noise=0.5" in str(state.record) for state in states if state.state == "current")


def precision(root, method: str) -> float:
    table = pd.read_csv(root / "selection.csv").query("phase == 'all' and kind == 'all'")
    return table[table["method"] == method]["precision"].mean()
