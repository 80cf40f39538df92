"""ci.yaml from end to end: every file of the interface, and that the numbers in them hang together."""

import base64
import json
import random
import re

import pandas as pd
import pytest
import yaml

from sstoken.experiment.config import load_config
from sstoken.experiment.grid import Grid
from tests.campaign.places import ages


@pytest.fixture(scope="module")
def grid(root):
    return Grid(load_config(root / "config" / "ci.yaml"))


@pytest.fixture(scope="module")
def scores(ci):
    return pd.read_csv(ci.results("ci") / "scores.csv", dtype={"task_version": str})


def test_scores_hold_every_run_and_benchmark_once(grid, scores):
    columns = ["model", "method", "seed", "benchmark", "metric", "score", "stderr", "n_questions", "task_version"]
    assert list(scores.columns) == columns
    runs = sum(len(grid.seeds_of(method)) for method in grid.methods) * len(grid.models)
    assert len(scores) == runs * len(grid.config["benchmarks"])
    assert not scores.duplicated(["model", "method", "seed", "benchmark"]).any()
    assert scores["score"].between(0, 1).all()
    assert (scores["n_questions"] == grid.config["evaluation"]["limit"]).all()
    assert scores["task_version"].str.len().gt(0).all()


def test_a_score_is_the_mean_of_its_questions(ci, scores):
    samples = pd.read_parquet(ci.results("ci") / "samples.parquet")
    assert list(samples.columns) == ["model", "method", "seed", "benchmark", "question_id", "cluster_id", "score"]
    keys = ["model", "method", "seed", "benchmark"]
    means = samples.groupby(keys)["score"].agg(["mean", "size"])
    joined = scores.set_index(keys).join(means)
    assert (joined["score"] - joined["mean"]).abs().max() < 1e-12
    assert (joined["n_questions"] == joined["size"]).all()


def test_costs_hold_a_row_for_every_job(ci, grid):
    costs = pd.read_csv(ci.results("ci") / "costs.csv")
    columns = "stage model method seed tokens kept_tokens forward_tokens backward_tokens flops"
    columns += " seconds cpu_seconds peak_memory_bytes device"
    assert list(costs.columns) == columns.split()
    assert len(costs) == len(grid.cost_records())
    train = costs[costs["stage"] == "train"]
    assert (train["flops"] > 0).all()
    assert (train["peak_memory_bytes"] > 0).all()
    whole = train.groupby(["model", "method", "seed"])[["tokens", "kept_tokens"]].sum()
    full, half = whole.xs("full", level="method"), whole.xs("sstoken", level="method")
    assert (full["tokens"] == half["tokens"]).all()
    assert (half["kept_tokens"] / full["kept_tokens"]).between(0.55, 0.75).all()
    assert (costs[costs["stage"] == "evaluate"]["forward_tokens"] > 0).all()


def test_the_table_shows_the_mean_over_seeds_and_its_interval(ci, grid, scores):
    table = pd.read_csv(ci.results("ci") / "report" / "tables" / "main.csv")
    assert len(table) == len(grid.models) * len(grid.methods)
    row = table[(table["model"] == "tiny-llama") & (table["method"] == "sstoken")].iloc[0]
    mine = scores[(scores["model"] == "tiny-llama") & (scores["method"] == "sstoken")]
    assert row["Average"] == pytest.approx(100 * mine.groupby("seed")["score"].mean().mean())
    assert row["runs"] == len(grid.seeds)
    lines = (ci.results("ci") / "report" / "tables" / "main.md").read_text().splitlines()
    line = next(line for line in lines if "tiny-llama" in line and " sstoken " in line)
    assert f" {row['Average']:.2f}" in line


def test_the_costs_count_what_scoring_needs(ci):
    costs = pd.read_csv(ci.results("ci") / "report" / "tables" / "costs.csv").set_index(["model", "method"])
    assert costs.notna().all(axis=None) or costs["peak_memory_bytes"].isna().sum() == 2  # the base does not train
    assert (costs.xs("full", level="method")["reference_flops"] == 0).all()
    one_pass = costs.xs("sstoken", level="method")["reference_flops"]
    assert (one_pass > 0).all()
    assert (costs.xs("rho1-static", level="method")["reference_flops"] > 2 * one_pass).all()


def test_every_run_leaves_weights_provenance_log_and_selection(ci, grid):
    for run in grid.runs():
        folder = (ci.folder / grid.run_record(run)).parent
        record = json.loads((folder / "run.json").read_text())
        for name in ("adapter_model.safetensors", "adapter_config.json", "selection.safetensors", "log.jsonl"):
            assert (folder / name).exists(), folder
        assert record["software"]["versions"]["torch"]
        assert len((folder / "log.jsonl").read_text().splitlines()) == record["steps"]
        assert record["cost"]["seed"] == run.seed
        assert not (folder / "README.md").exists(), "PEFT's card says nothing of this run"
    assert not list(ci.results("ci").glob("checkpoints/**/*.safetensors"))


def test_methods_and_seeds_really_trained_differently(ci, grid):
    hashes = {}
    for run in grid.runs():
        record = json.loads((ci.folder / grid.run_record(run)).read_text())
        hashes.setdefault(record["weights_sha256"], []).append((run.model, run.method, run.seed))
    assert all(len(runs) == 1 for runs in hashes.values()), [runs for runs in hashes.values() if len(runs) > 1]


def test_a_second_run_has_nothing_to_do_and_shows_the_table_and_the_page(ci):
    said = ci.run("config/ci.yaml")
    assert "Nothing to be done" in said
    assert (ci.results("ci") / "report/tables/main.md").read_text().strip() in said
    assert "results/ci/report/index.html" in said


def test_what_a_killed_workflow_leaves_is_made_again_without_being_asked(ci):
    """A lock, and a file that was being written: Snakemake alone asks for --unlock and for --rerun-incomplete."""
    left = ci.folder / ".snakemake"
    written = left / "incomplete" / base64.urlsafe_b64encode(b"results/ci/scores.csv").decode()
    marks = {written: '{"external_jobid": null}', left / "locks" / "0.output.lock": "results/ci/scores.csv\n"}
    for path, text in marks.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    said = ci.run("config/ci.yaml", "--workflow-profile", "none")  # for real: a dry run takes no lock
    for path in marks:
        path.unlink(missing_ok=True)
    assert dict(re.findall(r"^(\w+) +(\d+)$", said, re.M)) == {"tables": "1", "all": "1", "total": "2"}


def test_times_of_files_decide_nothing(ci):
    draw = random.Random(0)
    ages(ci.results("ci"), lambda _: draw.uniform(1e9, 1.6e9))
    assert "Nothing to be done" in ci.run("config/ci.yaml", "--dry-run")


def test_a_dry_run_of_other_settings_leaves_the_finished_report_current(ci):
    """Its stamp goes only with a run that replaces the report."""
    assert "train" in ci.run("config/ci.yaml", "--dry-run", "--config", "set=training.learning_rate=0.01")
    assert "Nothing to be done" in ci.run("config/ci.yaml", "--dry-run")


def test_losses_of_the_base_are_computed_once_for_all_methods(ci, grid):
    for model in grid.models:
        for seed in grid.seeds:  # each has rows of its own
            folder = ci.results("ci") / "references" / model / f"train.seed{seed}"
            found = sorted(path.name for path in folder.glob("*.safetensors"))
            assert found == ["base.safetensors", f"reference.seed{seed}.safetensors"]


def test_lint_is_clean(ci):
    assert "Congratulations" in ci.run("config/ci.yaml", "--lint")


def test_every_rule_has_log_benchmark_and_resources(root):
    for path in (root / "workflow" / "rules").glob("*.smk"):
        rules = path.read_text().split("\nrule ")[1:]
        for rule in rules:
            head = rule.split("\nuse rule ")[0]
            for directive in ("log:", "benchmark:", "resources:", "conda:", "threads:"):
                assert directive in head, f"{path.name}: rule {head.splitlines()[0]} lacks {directive}"


def test_a_wrong_configuration_stops_before_any_job_with_one_clear_line(workflow):
    path = workflow.configuration("wrong", trainin={})
    text = workflow.run(path, ok=False)
    assert "unknown key 'trainin'. Did you mean 'training'?" in text
    assert "Traceback" not in text
    assert not workflow.results("wrong").exists()


def test_configurations_do_not_leak_into_each_other(workflow, root):
    """A --configfile that names no world has none, whatever the default configuration says."""
    path = workflow.configuration("alone")
    document = yaml.safe_load(path.read_text())
    del document["world"], document["data"]["clean"]
    document |= {
        "methods": ["full"],
        "benchmarks_file": "sstoken/evaluation/benchmarks.tsv",
        "benchmarks_data": None,
    }
    (workflow.folder / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    document["data"]["train"]["sources"] = [str(workflow.folder / "rows.jsonl")]
    path.write_text(yaml.safe_dump(document))
    assert "rule world" not in workflow.run(path, "--dry-run")


def test_numbers_in_lists_and_mappings_of_the_command_line_are_numbers(workflow):
    options = ("--dry-run", "--config", "experiment=typed", "seeds=[3]", "world={seed: 7}", "runs_in_one_job=1")
    text = workflow.run("config/ci.yaml", *options)
    assert "train tiny-llama: full, seed 3" in text
    assert "seed 0" not in text.replace("base, seed 0", "")
