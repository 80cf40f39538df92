"""What would stop a grid is found before its first job, in one list; settings that differ from the last run's are named."""

import json

import pytest
import yaml

from sstoken.experiment.check import check, remember
from sstoken.experiment.config import check_config, read_config
from sstoken.experiment.grid import Grid
from sstoken.records.documents import ConfigError
from tests.unit.test_config import MINIMAL

ROW = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c"}]}
WORLD = {"world": {}, "benchmarks_data": "{world}/benchmarks", "benchmarks_file": "sstoken/world/benchmarks.tsv"}
WORLD |= {"data": {"train": {"sources": ["{world}/train.jsonl"]}}}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    folder = tmp_path / "benchmarks" / "arc" / "ARC-Easy"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text("{}\n")
    return tmp_path


def faults(**settings):
    config = MINIMAL | {"data": {"train": {"sources": ["rows.jsonl"]}}, "benchmarks_data": "benchmarks"} | settings
    check(Grid(check_config(config, ["x.yaml"])))


def local(source, **row):
    return {"models": ["m"], "own_models": [{"name": "m", "family": "Llama", "size": "1B", "source": source, **row}]}


def held_out(train, heldout):
    rows = {"sources": ["rows.jsonl"]}
    return {"benchmarks": ["arc_easy", "heldout"], "data": {"train": rows | train, "heldout": rows | heldout}}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        WORLD,
        WORLD | {"methods": ["oracle"]},
        {"benchmarks_data": None},
        held_out({"limit": 3}, {"skip": 3}),
        held_out({"limit": 3}, {"shuffle_seed": 1}),  # which rows these are is known once they are read
        held_out({"limit": 3}, {"skip": 3}) | {"benchmarks": ["heldout"], "benchmarks_data": None},
    ],
)
def test_a_grid_that_has_all_it_needs_passes(here, settings):
    faults(**settings)


@pytest.mark.parametrize("name", ["config", "ci", "idea", "paper", "beyond", "safety"])
def test_every_shipped_configuration_passes(root, name, monkeypatch):
    monkeypatch.chdir(root)
    check(Grid(read_config([f"config/{name}.yaml"], [])))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"benchmarks": ["gsm8k"]}, r"benchmarks.tsv: unknown benchmark 'gsm8k'"),
        (
            {"benchmarks": ["mmlu"]},
            r"benchmark mmlu: no file mmlu/\{.*\}.jsonl in benchmarks_data benchmarks",
        ),
        ({"benchmarks_data": "nowhere"}, "benchmarks_data: no folder nowhere"),
        ({"methods": ["oracle"]}, "method oracle: it needs to know which tokens are noise, and no row of data.train"),
        ({"data": {"train": {"sources": ["row.jsonl"]}}}, "data.train: row.jsonl: no such file or folder"),
        ({"data": {"train": {"sources": ["benchmarks"]}}}, "benchmarks: no file in this folder ends in .jsonl"),
        ({"data": {"train": {"sources": ["{world}/train.jsonl"]}}}, r"add world: \{\} to generate it"),
        ({"benchmarks_data": "{world}/benchmarks"}, r"add world: \{\} to generate it"),
        (local("local:nowhere"), "model m: no folder nowhere"),
        (local("local:benchmarks"), "model m: no config.json in benchmarks"),
        (local("gguf:nothing_of_that_name/x.gguf"), "model m: the package nothing_of_that_name"),
        (local("world:llama-medium"), "the embedded world has no base 'llama-medium'; it has llama-large"),
        ({"parallel": {"tiny": {"gpus": 3}}}, "parallel.tiny: 3 GPUs cannot share"),
        ({"evaluation": {"limit": 3, "limit_fraction": 0.5}}, "limit and limit_fraction are both set"),
        ({"evaluation": {"backend": "vllm"}}, "the package vllm is not installed"),
        (
            {"benchmarks": ["heldout"], "benchmarks_data": None},
            "benchmark heldout: say which rows are held out: data.heldout",
        ),
        (
            {"benchmarks": ["refusal"], "benchmarks_data": None},
            r"benchmark refusal: its rows are your own: name the folder that holds refusal/\{split\}.jsonl",
        ),
        (
            WORLD | {"models": ["world-llama-small-refusing"], "world": {"pretrain_share": 0.5}},
            "it is a tuned base, .*; leave world.pretrain_share out",
        ),
        (
            WORLD | {"models": ["world-llama-small"], "world": {"options": {"facts": 1}}},
            "model world-llama-small: it knows other names than world.options.facts: 1; .* world.pretrain_share: 1",
        ),
        (
            WORLD | {"models": ["tiny-llama"], "world": {"pretrain_share": 1, "options": {"facts": 1}}},
            "model tiny-llama: it knows other names than world.options.facts: 1",
        ),
        (
            WORLD | {"models": ["world-llama-small"], "world": {"pretrain_share": 1, "options": {"facts": "other"}}},
            "world.options.facts: 'other': a whole number",
        ),
        (
            WORLD | {"models": ["world-llama-small"], "world": {"pretrain_share": 1, "options": {"facts": 2**64}}},
            "world.options.facts: 18446744073709551616: a whole number from 0",
        ),
        (
            WORLD | {"models": ["world-llama-small-refusing"], "world": {"options": {"facts": 1}}},
            "it is a tuned base, .*; leave world.options.facts out",
        ),
        (held_out({}, {}), "data.train takes every row of the same sources; give it a limit, and this a skip"),
        (
            held_out({"limit": 3}, {"skip": 2}),
            r"its rows are those of data.train too \(from 2\); set skip to 3 or more",
        ),
        (held_out({"skip": 5}, {"limit": 6}), r"those of data.train too|data.train takes every row"),
        (held_out({"limit": 3}, {"skip": 3, "noise": {"typos": 0.1}}), "data.heldout: noise is planted"),
        (
            held_out({"limit": 3}, {"skip": 3, "limit_tokens": 9}),
            "data.heldout: limit_tokens counts a model's own tokens",
        ),
        (held_out({"limit": 3}, {"sources": ["row.jsonl"]}), "data.heldout: row.jsonl: no such file"),
    ],
)
def test_what_would_stop_it_is_named_before_the_first_job(here, settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        faults(**settings)
    assert "\n" not in str(caught.value)


def test_all_faults_come_in_one_list(here):
    with pytest.raises(ConfigError) as caught:
        faults(benchmarks=["gsm8k", "mmlu"], methods=["oracle"], data={"train": {"sources": ["rows.jsonl", "row"]}})
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 things would stop this experiment:" and len(lines) == 4
    for word in ("'gsm8k'", "benchmark mmlu", "row: no such file"):
        assert sum(word in line for line in lines) == 1


def test_rows_that_say_what_is_noise_are_enough_for_the_oracle(here):
    row = json.loads(json.dumps(ROW))
    row["messages"][1]["noise"] = [[0, 1, "made-up"]]
    (here / "rows.jsonl").write_text(json.dumps(ROW) + "\n" + json.dumps(row) + "\n")
    faults(methods=["oracle"])


def test_settings_that_differ_from_the_last_runs_are_named(here):
    config = check_config(MINIMAL, ["x.yaml"])
    folder = here / "results" / "x"
    assert remember(config, folder) is None
    assert remember(json.loads(json.dumps(config)), folder) is None
    other = check_config(MINIMAL | {"training": {"learning_rate": 0.5}, "seeds": [0, 1]}, ["x.yaml"])
    line = remember(other, folder)
    assert "training.learning_rate was 0.0001, is 0.5" in line and "seeds was [0], is [0, 1]" in line
    assert "\n" not in line and line.count(" was ") == 2
    assert remember(other, folder) is None


def test_the_workflow_stops_at_once_with_one_line(workflow):
    path = workflow.configuration("bad", benchmarks=["gsm8k"], seeds=[0])
    text = workflow.run(path, ok=False)
    assert "unknown benchmark 'gsm8k'" in text and "Traceback" not in text and "rule model" not in text
    document = yaml.safe_load(path.read_text()) | {
        "benchmarks": ["arc_easy"],
        "data": {"train": {"sources": ["no.jsonl"]}},
    }
    path.write_text(yaml.safe_dump(document | {"methods": ["full"]}))
    text = workflow.run(path, ok=False)
    assert "data.train: no.jsonl: no such file or folder" in text and "MissingInput" not in text


def test_settings_reach_the_workflow_by_points_and_change_nothing_else(workflow):
    path = workflow.configuration("dotted")
    text = workflow.run(path, "--dry-run", "--config", "set=training.learning_rate=1e-3 methods=[full, base]")
    assert "Traceback" not in text
    workflow.run(path, "--until", "world", "--config", "set=training.learning_rate=1e-3")
    written = json.loads((workflow.results("dotted") / "config.json").read_text())
    assert (written["training"]["learning_rate"], written["training"]["adapter"]["rank"]) == (1e-3, 4)
    said = workflow.run(path, "--until", "model", "--config", "training={learning_rate: 0.02}")
    assert "training.learning_rate was 0.001, is 0.02" in said
