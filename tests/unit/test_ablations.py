"""Ablations: which runs they add, and which they find among those that are there."""

import pytest
import yaml

from sstoken.experiment.config import check_config, load_config
from sstoken.experiment.grid import Grid, Run
from sstoken.experiment.job_groups import evaluation_groups, training_groups
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
    assert grid.losses("tiny-llama", "train", "base") in grid.run_inputs(Run("tiny-llama", "sstoken.gamma=0.25", 0))


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
def test_every_run_stands_in_exactly_one_batch_and_after_what_it_needs(root, size):
    grid = grid_of(root, runs_in_one_job=size, ablations=[ablation()])
    done = set()
    for batch in training_groups(grid):
        for model in batch.models if size > 1 else ():
            for run in batch.of({"model": model}):
                before = grid.previous(run)
                assert before is None or before in done
                done.add(run)
    if size > 1:
        assert {run for run in done if run.part is None} == set(grid.runs())
        records = [
            str(grid.evaluation_record(run))
            for batch in evaluation_groups(grid)
            for model in batch.models
            for run in batch.of({"model": model})
        ]
        assert sorted(records) == sorted(map(str, grid.evaluations()))


def test_a_job_asks_for_all_that_its_runs_need_and_nothing_of_its_own(root):
    grid = grid_of(root, runs_in_one_job=12)
    for batch in training_groups(grid):
        inputs = batch.inputs(grid.run_inputs)({"model": "tiny-llama"})
        own = {str(grid.run_record(run)) for run in batch.of({"model": "tiny-llama"})}
        assert not own & set(inputs)
        assert str(grid.tokens("tiny-llama", "train")) in inputs


def test_the_default_configuration_has_the_ablations_of_the_paper(root):
    grid = Grid(load_config(root / "config" / "config.yaml"))
    values = {a.name: list(dict.fromkeys(point.value for point in a.points)) for a in grid.ablations}
    assert values["gamma"] == [0, 0.25, 0.5, 0.75, 1]
    assert values["rho"] == [0.2, 0.4, 0.6, 0.8, 1]
    assert values["layer"] == ["shallow", "middle", "deep"]
    assert values["history"] == ["base", "checkpoint", "ema"]
