"""make plan: the sizes it starts from, the work it counts, and that it speaks for every configuration."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from sstoken.cli import main
from sstoken.experiment.config import load_config
from sstoken.experiment.grid import Run
from sstoken.experiment.plan import Plan, Work
from sstoken.experiment.plan_text import plan_text, render
from sstoken.experiment.runtime import runtime
from sstoken.models.sizes import sizes_of
from sstoken.models.table import load_models
from sstoken.records.documents import read_table

QUESTIONS = (1267, 1172, 2376, 10042, 651, 14042, 817, 17944, 8268, 1713)
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
    record = json.loads((ci.results("ci") / "references" / "tiny-qwen2" / "train.seed0" / "base.json").read_text())[
        "cost"
    ]
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


def questions_and_rows(folder):
    (folder / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 999)
    for row in read_table("sstoken/evaluation/benchmarks.tsv", "benchmarks"):
        path = folder / "questions" / re.sub(r"{.*?}", "x", row["data"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")


@pytest.mark.parametrize("name", ["paper", "config", "when", "smollm2", "idea", "safety", "ci"])
def test_every_configuration_has_a_plan(workflow, monkeypatch, capsys, name):
    settings = ["instruct_data=rows.jsonl", "benchmarks_data=questions"] if name == "smollm2" else []
    questions_and_rows(workflow.folder)
    monkeypatch.chdir(workflow.folder)
    with pytest.raises(SystemExit) as end:
        main(["plan", f"config/{name}.yaml", *settings])
    assert not end.value.code
    text = capsys.readouterr().out
    assert "hours a job | GPUs a job" in text and "Detectable at 80 %" in text
    assert f"--configfile config/{name}.yaml" in text.rsplit("snakemake ", 1)[1]
    assert "| total |" in text and "Tokens: estimated" in text and "saved" in text


def test_the_submission_command_is_one_that_snakemake_takes(workflow, root):
    """As it is printed, the settings included; only the account and the partition are the reader's to fill in."""
    text = plan_text("config/ci.yaml", ["seeds=[0]", "models=[tiny-llama]"])
    command = next(line.strip() for line in text.splitlines() if line.strip().startswith("snakemake "))
    words = shlex.split(command.replace("ACCOUNT", "mine").replace("PARTITION", "gpu"))
    done = subprocess.run(
        [sys.executable, "-m", *words, "--dry-run"],
        cwd=workflow.folder, env=workflow.environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "tiny-llama" in done.stdout and "tiny-qwen2" not in done.stdout


def test_unknown_sizes_are_asked_for(workflow, root):
    path = workflow.configuration("open", data={"train": {"sources": ["{world}/train.jsonl"]}}, methods=["full"])
    done = subprocess.run(
        [sys.executable, "-m", "sstoken", "plan", str(path)],
        cwd=workflow.folder, env=workflow.environment() | {"PYTHONPATH": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "set plan.samples.train" in done.stderr and "Traceback" not in done.stderr


def test_hours_a_job_gpus_a_job_and_days_follow_from_the_work(paper):
    plan = paper(models=["Qwen2.5-14B"], methods=["full"], seeds=[0, 1])
    text = render(plan, [], gpus=(1, 1000))
    row = next(line for line in text.splitlines() if line.startswith("| train | Qwen2.5-14B | full "))
    cells = [cell.strip() for cell in row.split("|")]
    hours = plan.training("full", "Qwen2.5-14B").flops / 3.5e14 / 3600
    assert float(cells[11]) == pytest.approx(hours / 4, abs=0.006) and cells[12] == "4"
    longest = max(plan.job_hours(s, m, w.flops / w.jobs) for (s, m, _), w in plan.table().items() if w.jobs)
    assert f"Longest job: {longest:.2f} hours (" in text and "Most GPUs a job: 4 (train Qwen2.5-14B)." in text
    total = sum(work.flops / plan.throughput()[0][stage] for (stage, _, _), work in plan.table().items()) / 3600
    critical = hours / 4 + plan.evaluation("Qwen2.5-14B").flops / 1.5e14 / 3600
    assert plan.critical_hours() == pytest.approx(critical)
    assert f"{total / 24:.1f} on 1, {critical / 24:.1f} on 1000" in text


def test_a_job_asks_for_twice_its_estimate_and_half_an_hour(paper):
    plan = paper(models=["Llama-3.1-8B"], methods=["tokencleaning-self-evolving"], seeds=[0])
    run = Run("Llama-3.1-8B", "tokencleaning-self-evolving", 0)
    hours = plan.training(run.method, run.model).flops / 5 / 3.5e14 / 3600
    for count in (1, 20):
        asked = runtime(plan.grid, "train", run.model, [run] * count, 720)
        assert asked == pytest.approx(max(60, 120 * hours * count + 30), abs=1)
    open_plan = paper(models=["Llama-3.1-8B"], methods=["full"], plan={"flops_per_second": None})
    assert runtime(open_plan.grid, "train", run.model, [], 720) == 720


def test_the_smallest_detectable_effect_shrinks_with_questions_and_seeds(paper):
    settings = {"models": ["Llama-3.2-3B"], "methods": ["full"]}
    three = paper(**settings, seeds=[0, 1, 2]).detectable()
    assert three == pytest.approx(
        2.8016 * (0.06 * sum(1 / (100 * q) for q in QUESTIONS) + 2 * 0.0035**2 / 3) ** 0.5, rel=1e-3
    )
    assert three < paper(**settings, seeds=[0]).detectable()
    few = paper(**settings, seeds=[0, 1, 2], evaluation={"limit": 120}).detectable()
    assert few == pytest.approx(2.8016 * (0.06 / 1200 + 2 * 0.0035**2 / 3) ** 0.5, rel=1e-3)


def test_a_plan_without_adapter_without_gpu_or_for_an_unknown_benchmark_is_a_plan(paper, tmp_path):
    plan = paper(models=["Llama-3.2-3B"], methods=["full"], training={"adapter": None})
    assert plan.disk()["adapters and weights"] == 3 * 2 * plan.sizes["Llama-3.2-3B"].parameters
    assert "| total |" in render(plan, [])
    bare = paper(models=["Llama-3.2-3B"], methods=["base"], plan={"flops_per_second": None}, evaluation={"limit": 1})
    text = render(bare, [])
    assert "Throughput: unknown" in text and "Wall time" not in text and "of what it would have been" not in text
    own = paper(models=["Llama-3.2-3B"], methods=["base"], benchmarks=["mine", "arc_easy"])
    text = render(own, [])
    assert "Not counted: mine" in text and "as the number of questions is not" in text
    only = paper(models=["Llama-3.2-3B"], methods=["base"], benchmarks=["mine"])
    assert "| total |" in render(only, [])  # no token anywhere


def test_a_limit_of_tokens_bounds_the_rows_of_the_plan(paper):
    plan = paper(data={**paper().config["data"], "train": {**paper().config["data"]["train"], "limit_tokens": 60_000}})
    length = plan.settings["tokens_per_sample"]
    rows = plan.rows("Llama-3.2-3B", "train")
    assert (rows.samples, rows.tokens) == (60_000 // length, 60_000 // length * length)
    assert plan.rows("Llama-3.2-3B", "reference") == paper().rows("Llama-3.2-3B", "reference")


def test_held_out_rows_are_counted_and_in_no_detectable_average(paper):
    settings = {"models": ["Llama-3.2-3B"], "methods": ["full"]}
    ten = [name for name in paper().config["benchmarks"] if name != "heldout"]
    with_it, without = paper(**settings), paper(**settings, benchmarks=ten)
    assert with_it.questions("heldout") == 500 and with_it.detectable() == without.detectable()
    tokens = with_it.evaluation("Llama-3.2-3B").forward - without.evaluation("Llama-3.2-3B").forward
    assert tokens == 500 * round(300 * (2 - 0.65))  # each response with its prompt, and the prompt alone
    text = render(with_it, [])
    assert "Not counted" not in text and "in 10 benchmarks" in text
    only = paper(**settings, benchmarks=["heldout"])
    assert only.detectable() is None and "Detectable at 80 %: not known" in render(only, [])


def test_what_is_apart_is_in_no_average(root, monkeypatch):
    monkeypatch.chdir(root)
    plan = Plan(load_config("config/safety.yaml"))
    assert plan.averaged == ["triviaqa", "truthfulqa", "agieval", "tydiqa"] and plan.detectable() is not None
    assert sum(map(plan.questions, plan.config["benchmarks"])) == 7 * 120
