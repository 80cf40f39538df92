"""make plan: the sizes it starts from, the work it counts, and that it speaks for every configuration."""

import json
import subprocess
import sys

import pytest

from sstoken.experiment.config import load_config
from sstoken.experiment.plan import Plan, Work
from sstoken.models.sizes import sizes_of
from sstoken.models.table import load_models

PUBLISHED = {"Llama-3.2-3B": 3.21e9, "Llama-3.1-8B": 8.03e9, "Qwen2.5-7B": 7.62e9, "Qwen2.5-14B": 14.77e9}


@pytest.fixture
def paper(root, monkeypatch):
    monkeypatch.chdir(root)
    return lambda **changes: Plan(load_config("config/paper.yaml", **({"ablations": []} if changes else {}) | changes))


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_have_the_published_number_of_parameters(root, tmp_path, name):
    sizes = sizes_of(load_models(root / "sstoken" / "models" / "models.tsv")[name], tmp_path)
    assert sizes.parameters == pytest.approx(PUBLISHED[name], rel=2e-3)


def test_the_adapters_of_the_plan_are_those_of_peft(ci, root, monkeypatch):
    """Trained parameters as counted in a run, against the plan's, for a model that is there."""
    monkeypatch.chdir(ci.folder)
    plan = Plan(load_config("config/ci.yaml"))
    from safetensors.torch import load_file

    run = ci.results("ci") / "runs" / "tiny-llama" / "sstoken" / "seed0"
    trained = sum(value.numel() for value in load_file(run / "adapter_model.safetensors").values())
    assert plan.sizes["tiny-llama"].shape.trained_parameters == trained


def test_a_run_that_exists_cost_what_the_plan_says(ci, monkeypatch):
    """FLOPs of the plan against those that each job counted."""
    monkeypatch.chdir(ci.folder)
    plan = Plan(load_config("config/ci.yaml"))
    for method in ("full", "random", "sstoken", "rho1", "tokencleaning-self-evolving"):
        records = (ci.results("ci") / "runs" / "tiny-qwen2" / method / "seed0").rglob("run.json")
        counted = [json.loads(path.read_text())["cost"] for path in records]
        planned = plan.training(method, "tiny-qwen2")
        assert planned.flops == pytest.approx(sum(cost["flops"] for cost in counted), rel=0.02), method
        assert planned.forward == pytest.approx(sum(cost["forward_tokens"] for cost in counted), rel=0.02), method
    rows = plan.rows("tiny-qwen2", "train")
    record = json.loads((ci.results("ci") / "references" / "tiny-qwen2" / "train" / "base.json").read_text())["cost"]
    assert rows.measured and plan.losses("tiny-qwen2", "train").flops == record["flops"]


def test_sharing_saves_every_pass_but_one(paper):
    plan = paper(models=["Qwen2.5-7B"], methods=["rho1", "tokencleaning-fixed", "sstoken"], seeds=[0, 1, 2])
    base = plan.losses("Qwen2.5-7B", "train").flops
    reference = plan.training("reference", "Qwen2.5-7B").flops
    # rho1: a reference and its pass; tokencleaning-fixed: the same and the base's pass; sstoken: the base's pass
    assert plan.alone() == 3 * (base + reference) + 3 * (2 * base + reference) + 3 * base
    assert plan.shared() == 2 * base + reference


def test_selection_costs_what_it_must(paper):
    plan = paper(models=["Llama-3.1-8B"])
    full, sstoken = plan.training("full", "Llama-3.1-8B"), plan.training("sstoken", "Llama-3.1-8B")
    assert 0.9 < sstoken.flops / full.flops <= 1
    chain = plan.training("tokencleaning-self-evolving", "Llama-3.1-8B")
    assert chain.jobs == 5 and chain.forward_passes == pytest.approx(full.forward_passes + 4 / 5)


def test_memory_fits_the_gpus_that_the_configuration_gives(paper):
    plan = paper()
    for model in plan.grid.models:
        for stage in ("train", "references", "evaluate"):
            assert plan.sizes[model].parameters < plan.memory(model, stage) < 80e9, (model, stage)


def test_work_adds_up():
    assert Work(1, 2, 3, 4, 5, 6) + Work(1, 1, 1, 1, 1, 1) * 2 == Work(3, 4, 5, 6, 7, 8)


@pytest.mark.parametrize("name", ["paper", "config", "smollm2", "idea", "ci"])
def test_every_configuration_has_a_plan(workflow, root, name):
    settings = ["instruct_data=Snakefile", "benchmarks_data=workflow"] if name == "smollm2" else []
    done = subprocess.run(
        [sys.executable, "-m", "sstoken.experiment.plan", f"config/{name}.yaml", *settings],
        cwd=workflow.folder, env=workflow.environment() | {"PYTHONPATH": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| total |" in done.stdout and "Tokens: estimated" in done.stdout and "saved" in done.stdout


def test_unknown_sizes_are_asked_for(workflow, root):
    path = workflow.configuration("open", data={"train": {"sources": ["{world}/train.jsonl"]}}, methods=["full"])
    done = subprocess.run(
        [sys.executable, "-m", "sstoken.experiment.plan", str(path)],
        cwd=workflow.folder, env=workflow.environment() | {"PYTHONPATH": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "set plan.samples.train" in done.stderr and "Traceback" not in done.stderr
