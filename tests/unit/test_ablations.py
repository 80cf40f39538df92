"""Ablations: which runs they add, and which they find among those that are there."""

import json
import re
from pathlib import Path

import pytest
import yaml

from sstoken.experiment.config import check_config, load_config
from sstoken.experiment.grid import Grid
from sstoken.experiment.job_groups import Jobs
from sstoken.experiment.layout import Run
from sstoken.experiment.tickets import Tickets
from sstoken.records.documents import ConfigError


def grid_of(root, **changes) -> Grid:
    document = yaml.safe_load((root / "config" / "ci.yaml").read_text()) | changes
    return Grid(check_config(document, ["test"]))


def ablation(**changes) -> dict:
    gamma = {"name": "gamma", "models": ["tiny-llama"], "methods": ["sstoken"], "option": "parameters.loss_weight"}
    return gamma | {"values": [0, 0.25, 0.5, 1]} | changes


def test_a_value_that_a_method_has_is_that_methods_run(root):
    grid = grid_of(root, ablations=[ablation()])
    (found,) = grid.ablations
    assert [point.run for point in found.points] == [
        "semantic-aware",
        "sstoken.gamma=0.25",
        "sstoken",
        "self-modulated",
    ]
    assert grid.all_methods["sstoken.gamma=0.25"].scorer.loss_weight == 0.25


def test_keeping_everything_is_full_data_training_for_every_method(root):
    methods = ["sstoken", "random", "rho1", "tokencleaning-fixed"]
    grid = grid_of(root, ablations=[ablation(name="rho", methods=methods, option="keep_ratio", values=[0.2, 0.6, 1])])
    runs = {(point.method, point.value): point.run for point in grid.ablations[0].points}
    for method in methods:
        assert runs[method, 0.2] == f"{method}.rho=0.2"
        assert runs[method, 0.6] == method
        assert runs[method, 1] == ("full-per-sample" if method == "sstoken" else "full")


def test_an_ablation_runs_on_its_models_alone(root):
    grid = grid_of(root, methods=["base", "full"], ablations=[ablation(values=[0.25, 0.75])])
    assert grid.reported("tiny-llama") == ["base", "full", "sstoken.gamma=0.25", "sstoken.gamma=0.75"]
    assert grid.reported("tiny-qwen2") == ["base", "full"]
    run = Tickets(grid).results[grid.run_record(Run("tiny-llama", "sstoken.gamma=0.25", 0))]
    assert str(grid.losses("tiny-llama", "train", "base", 0).with_suffix(".json")) in run.ticket.records()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ["llama"]}, "ablation gamma: unknown model 'llama'. Known: tiny-llama, tiny-qwen2"),
        ({"methods": ["sstokn"]}, "ablation gamma: unknown method 'sstokn'"),
        ({"values": [0.5, 2]}, r"sstoken\.gamma=2: loss_weight \(γ\) must lie in"),
        ({"option": "parameters.gamma"}, "gamma"),
    ],
)
def test_a_wrong_ablation_says_what_is_wrong(root, changes, message):
    with pytest.raises(ValueError, match=message):
        grid_of(root, ablations=[ablation(**changes)])


def test_a_model_with_its_own_ratio_cannot_be_ablated_over_ratios(root, tmp_path):
    models = tmp_path / "models.tsv"
    models.write_text("name\tfamily\tsize\tsource\trevision\tkeep_ratio\nm\tLlama\ttiny\trandom:llama\t\t0.8\n")
    section = ablation(models=["m"], option="keep_ratio", values=[0.2, 0.4])
    with pytest.raises(ConfigError, match="m has a keep_ratio of its own"):
        grid_of(root, models=["m"], models_file=str(models), ablations=[section])


@pytest.mark.parametrize("size", [1, 3, 12, 1000])
def test_every_result_stands_in_exactly_one_job_and_after_what_it_needs(root, tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    jobs = Jobs(grid_of(root, runs_in_one_job=size, ablations=[ablation()]))
    made, left = [], set()
    for (rule, name), job in jobs.jobs.items():
        own = [result.record for result in job.results]
        assert set(job.waits) <= left, "a job waits for one that comes later"
        for place, result in enumerate(job.results):
            for record in map(Path, result.ticket.records()):
                assert jobs.made_by[record] in job.waits or record in own[:place]
            assert result.job == rule and result.model == job.results[0].model
        made += own
        left.add(jobs.done(rule, name))
    assert sorted(made) == sorted(jobs.tickets.results) and len(set(made)) == len(made)
    runs = [sum(r.run is not None and r.run.part is None for r in job.results) for job in jobs.jobs.values()]
    assert max(runs) <= max(size, 4) * 1.5 and (size > 1 or max(runs) == 1)


@pytest.mark.parametrize("size", [1, 12])
def test_the_first_models_main_table_comes_first_and_seed_by_seed(root, tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    jobs = Jobs(grid_of(root, runs_in_one_job=size, seeds=[3, 1], ablations=[ablation()]))
    (first, *others), by_file = jobs.grid.models, {jobs.done(*key): job for key, job in jobs.jobs.items()}
    priority = {file: jobs.priority(job.rule, job.name) for file, job in by_file.items()}
    waiting, seen = [], set()
    for seed in (3, 1):
        table = jobs.grid.main_table(first, seed)
        assert set(table) == set(jobs.grid.methods) and {len(paths) for paths in table.values()} == {1}
        waiting += [jobs.made_by[path] for paths in table.values() for path in paths]
        needed = set()
        while waiting:
            needed.add(file := waiting.pop())
            waiting += by_file[file].waits
        runs = [result.run for file in needed - seen for result in by_file[file].results if result.run]
        assert {run.seed for run in runs} == {seed} and {run.model for run in runs} == {first}
        assert not any("=" in run.method for run in runs), "an ablation's run is in no main table"
        later = set(priority) - needed - seen
        assert min(priority[file] for file in needed) > max(priority[file] for file in later)
        seen |= needed
    assert others and {by_file[file].results[0].model for file in later} >= set(others)


def test_what_comes_from_the_hub_comes_first_of_all(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = Jobs(Grid(load_config(root / "config" / "paper.yaml")))
    found = {rule: [jobs.priority(*key) for key in jobs.jobs if key[0] == rule] for rule, _ in jobs.jobs}
    fetches = [value for rule, values in found.items() if rule.startswith("fetch_") for value in values]
    assert len(fetches) > 10 and min(fetches) >= max(max(values) for values in found.values())
    assert max(found["evaluate"]) < max(found["train"]) < max(found["tokens"])


def test_training_waits_for_all_that_comes_from_the_hub_and_an_audit_for_no_benchmarks(workflow):
    """A benchmark that cannot be had is known before the hours of training, not after them."""
    hub = {"benchmarks_data": None, "benchmarks_file": "sstoken/evaluation/benchmarks.tsv", "benchmarks": ["arc_easy"]}
    path = workflow.configuration("hub", models=["tiny-llama"], methods=["base", "full"], seeds=[0], **hub)
    graph = workflow.run(path, "--dag")
    rules = {node: rule for node, rule in re.findall(r'(\d+)\[label = "(\w+)', graph)}
    edges = set(re.findall(r"(\d+) -> (\d+)", graph))
    fetches, trains = ([node for node, rule in rules.items() if rule == name] for name in ("fetch_benchmarks", "train"))
    assert fetches and trains and {(fetch, train) for fetch in fetches for train in trains} <= edges
    assert "fetch_benchmarks" not in workflow.run(path, "--dry-run", "--", "audit")


def test_a_job_elsewhere_reads_the_order_that_the_workflow_wrote(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = Jobs(grid_of(root, runs_in_one_job=12))
    jobs.write("of the report", "of the audit")
    elsewhere = Jobs(jobs.grid, plan=False)
    for rule, name in jobs.jobs:
        assert elsewhere.order(rule, name) == json.loads(json.dumps(jobs.order(rule, name)))
    assert elsewhere.all_done() == [] and elsewhere.report() == "of the report"


def test_the_default_configuration_has_the_ablations_of_the_paper(root):
    grid = Grid(load_config(root / "config" / "config.yaml"))
    values = {a.name: list(dict.fromkeys(point.value for point in a.points)) for a in grid.ablations}
    assert values["gamma"] == [0, 0.25, 0.5, 0.75, 1]
    assert values["rho"] == [0.2, 0.4, 0.6, 0.8, 1]
    assert values["layer"] == ["shallow", "middle", "deep"]
    assert values["history"] == ["base", "checkpoint", "ema"]
