"""Ablations over settings of data and training: what they add and share, and that no value stands for another."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sstoken.experiment.audited import audit_inputs
from sstoken.experiment.config import check_config, load_config
from sstoken.experiment.grid import Grid
from sstoken.experiment.job_groups import Jobs
from sstoken.experiment.layout import Run
from sstoken.experiment.plan import Plan
from sstoken.experiment.tickets import Tickets
from sstoken.records.documents import ConfigError
from sstoken.world import generate
from sstoken.world.facts import build_world
from sstoken.world.generate import _rows, instruction_items, questions_of
from sstoken.world.noise import DEFAULT_NOISE, rates_of

NOISE = {
    "name": "noise",
    "models": ["tiny-llama"],
    "methods": ["rho1", "sstoken"],
    "option": "world.options.noise_factor",
}
NOISE |= {"values": [0, 1, 1.7]}
RATE = {"name": "rate", "models": ["tiny-llama"], "methods": ["rho1"], "option": "training.learning_rate"}
RATE |= {"values": [0.01, 0.02]}
METHODS = ["base", "full", "rho1", "sstoken"]


@pytest.fixture
def grid_of(root):
    def grid(*ablations: dict, **changes) -> Grid:
        document = yaml.safe_load((root / "config" / "ci.yaml").read_text()) | {"methods": METHODS} | changes
        return Grid(check_config(document | {"ablations": list(ablations)}, ["test"]))

    return grid


def test_every_value_has_its_own_full_data_training_beside_each_method(grid_of):
    (found,) = grid_of(NOISE).ablations
    assert [(p.method, p.value, p.run, p.against) for p in found.points] == [
        ("full", 0, "full.noise=0", "full.noise=0"),
        ("full", 1, "full", "full"),
        ("full", 1.7, "full.noise=1.7", "full.noise=1.7"),
        ("rho1", 0, "rho1.noise=0", "full.noise=0"),
        ("rho1", 1, "rho1", "full"),
        ("rho1", 1.7, "rho1.noise=1.7", "full.noise=1.7"),
        ("sstoken", 0, "sstoken.noise=0", "full.noise=0"),
        ("sstoken", 1, "sstoken", "full"),
        ("sstoken", 1.7, "sstoken.noise=1.7", "full.noise=1.7"),
    ]


def test_what_training_does_not_touch_is_the_same_run_at_every_value(grid_of):
    (found,) = grid_of(NOISE | {"methods": ["base"]}).ablations
    assert {p.run for p in found.points if p.method == "base"} == {"base"}


def test_a_value_is_trained_on_its_own_rows_with_its_own_reference(grid_of):
    grid = grid_of(NOISE)
    tickets = Tickets(grid)
    run = tickets.results[grid.run_record(Run("tiny-llama", "rho1.noise=0", 1))].ticket
    made_of = all_needs(tickets, run)
    ours, other = "noise=0", ("train.seed", "reference.seed", "world/seed", "noise=1.7")
    assert any(f"references/tiny-llama/train.{ours}.seed1/reference.{ours}.seed1" in path for path in made_of)
    assert any(path.endswith(f"data/world/{ours}/seed1/world.json") for path in made_of)
    assert not [path for path in made_of if any(word in path for word in other)], "rows or weights of another value"
    assert grid.sections("train.noise=0", 1)[0]["sources"] == ["results/ci/data/world/noise=0/seed1/train.jsonl"]
    assert grid.sections("train", 1)[0]["sources"] == ["results/ci/data/world/seed1/train.jsonl"]


def all_needs(tickets: Tickets, ticket) -> set[str]:
    found = set(ticket.records())
    for path in ticket.records():
        found |= all_needs(tickets, tickets.results[Path(path)].ticket)
    return found


def test_only_what_a_setting_moves_is_made_anew(grid_of):
    """Another learning rate: new runs and references, the same rows. Fewer training rows: the same reference."""
    rate = Tickets(grid_of(RATE))
    assert not [path for path in rate.results if "rate=" in str(path) and {"tokens", "data"} & set(path.parts)]
    assert rate.results[rate.grid.run_record(Run("tiny-llama", "reference.rate=0.02", 0))]
    rows = {
        "name": "rows",
        "models": ["tiny-llama"],
        "methods": ["rho1"],
        "option": "data.train.limit",
        "values": [40, 80],
    }
    fewer = Tickets(grid_of(rows))
    found = {(r.stage, Path(path).parts[2:]) for path, r in fewer.results.items() if "rows=40" in str(path)}
    assert Counter(stage for stage, _ in found) == {"tokens": 2, "train": 4, "references": 2, "evaluate": 4}
    assert "reference.rows=40" not in fewer.grid.all_methods
    assert fewer.grid.dataset("train.rows=40")["limit"] == 40


def test_no_two_values_have_one_identity(grid_of):
    results = Tickets(grid_of(NOISE, RATE)).results
    names = Counter(result.ticket.name for result in results.values() if result.stage != "evaluate" or not result.run)
    assert max(names.values()) == 1
    worlds = {
        result.ticket.made_from.get("world.options.noise_factor", 1)
        for result in results.values()
        if result.stage == "world"
    }
    assert worlds == {0, 1, 1.7}


def test_results_that_no_ablation_asks_for_keep_their_names(grid_of):
    """An ablation added to a grid leaves its finished results current."""
    bare, more = (Tickets(grid_of(*ablations)).results for ablations in ((), (NOISE, RATE)))
    assert set(bare) < set(more)
    assert all(more[path].ticket.name == result.ticket.name for path, result in bare.items())


def test_options_written_out_as_they_are_anyhow_are_the_same_results_and_others_are_not(grid_of):
    def names(**options):
        tickets = Tickets(grid_of(models=["world-llama-small"], world={"pretrain_share": 1, "options": options}))
        return {path: result.ticket.name for path, result in tickets.results.items()}

    assert names() == names(facts=0, noise=None, questions=120, noise_factor=1)
    assert not set(names().values()) & set(names(facts=1).values())


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_every_result_is_made_after_what_it_needs(grid_of, tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    jobs = Jobs(grid_of(NOISE, RATE, runs_in_one_job=size))
    left, made = set(), []
    for (rule, name), job in jobs.jobs.items():
        assert set(job.waits) <= left
        own = [result.record for result in job.results]
        for place, result in enumerate(job.results):
            for record in map(Path, result.ticket.records()):
                assert jobs.made_by[record] in job.waits or record in own[:place]
        made += own
        left.add(jobs.done(rule, name))
    assert sorted(made) == sorted(jobs.tickets.results)
    jobs.write("report", "audit")
    elsewhere = Jobs(jobs.grid, plan=False)
    for rule, name in jobs.jobs:
        assert elsewhere.order(rule, name) == json.loads(json.dumps(jobs.order(rule, name)))


def test_a_run_is_told_its_own_training_and_all_others_the_grids(grid_of):
    grid = grid_of(RATE)
    for method, rate in (("full.rate=0.02", 0.02), ("reference.rate=0.02", 0.02), ("full", 0.01), ("sstoken", 0.01)):
        assert grid.order(Run("tiny-llama", method, 0))["training"]["learning_rate"] == rate
    assert grid.order(Run("tiny-llama", "rho1.rate=0.02", 1))["labels"] == {
        "reference_loss": "reference.rate=0.02.seed1"
    }


def test_a_mappings_keys_stand_for_its_values(grid_of):
    kinds = NOISE | {"name": "kind", "option": "world.options.noise"}
    kinds |= {"values": {"wrong": {"wrong_answer": 0.4}, "phrase": {"boilerplate": 0.4}}}
    grid = grid_of(kinds)
    assert list(grid.conditions) == ["kind=wrong", "kind=phrase"]
    assert grid.world_options("kind=wrong") == {"noise": {"wrong_answer": 0.4}} and grid.world_options() == {}


def test_a_mapping_replaces_what_the_configuration_has(grid_of):
    kinds = NOISE | {"option": "world.options.noise", "values": {"a": {"boilerplate": 0.4}, "b": {"gibberish": 0.4}}}
    grid = grid_of(kinds, world={"options": {"noise": {"wrong_answer": 0.2}}})
    assert grid.world_options("noise=a")["noise"] == {"boilerplate": 0.4}


def test_a_value_that_is_the_configurations_own_in_other_words_is_the_table_itself(grid_of):
    kinds = NOISE | {"option": "world.options.noise", "values": {"usual": DEFAULT_NOISE, "none": {}}}
    assert set(grid_of(kinds).conditions) == {"noise=none"}
    shared = (NOISE, NOISE | {"name": "again", "values": [0, 0.5]})
    assert set(grid_of(*shared).conditions) == {"noise=0", "noise=1.7", "again=0.5"}, "one value, made once"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"option": "world.options.noise_facto"},
            "ablation noise, .*the world has no option 'noise_facto'. Known: noise,",
        ),
        ({"option": "world.options.questions", "values": [6, 12]}, "benchmarks and corpus are the same for all values"),
        ({"option": "world.options.facts", "values": [0, 1]}, "benchmarks and corpus are the same for all values"),
        ({"option": "world.seed", "values": [1, 2]}, "key"),
        ({"option": "training.learning_rat"}, "unknown key 'training.learning_rat'.*Did you mean 'learning_rate'"),
        ({"option": "training.epochs"}, "training.epochs: 0 is less than or equal to the minimum"),
        ({"option": "data.train.sources", "values": {"a": ["x"], "b": ["y"]}}, "sources cannot be varied"),
        ({"values": [1, 6]}, r"noise_factor=6: noise: the rate of wrong_answer is 1\.2"),
        ({"values": [1, -1]}, "noise_factor is -1; it must not be negative"),
        ({"values": [1, "much"]}, "noise_factor=much"),
        ({"values": {"a/b": 1, "c": 2}}, "values"),
        ({"values": ["../up", "c"]}, "values"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_runs(grid_of, changes, message):
    with pytest.raises(ValueError, match=message):
        grid_of(NOISE | changes)


def test_a_world_that_no_rows_come_from_cannot_be_varied(grid_of):
    with pytest.raises(ConfigError, match="no data set of this configuration comes from the embedded world"):
        grid_of(NOISE, data={"train": {"sources": ["rows.jsonl"]}}, methods=["full"])


def test_micro_batches_that_gpus_cannot_share_are_refused_at_every_value(grid_of):
    section = RATE | {"option": "training.accumulation", "values": [2, 3]}
    grid = grid_of(section, parallel={"tiny": {"gpus": 2}})
    with pytest.raises(ConfigError, match=r"2 GPUs cannot share training\.accumulation 3 evenly"):
        grid.parallel("tiny-llama")


def test_the_audit_reads_the_configurations_own_rows(grid_of):
    assert audit_inputs(grid_of(NOISE, RATE), "tiny-llama") == audit_inputs(grid_of(), "tiny-llama")


def test_the_plan_counts_every_value(grid_of):
    bare, varied = (
        Plan(grid_of(*a, plan={"samples": {"train": 80, "reference": 24}}).config) for a in ((), (RATE, NOISE))
    )
    before, after = bare.table(), varied.table()
    assert after["train", "tiny-llama", "full"].jobs == 2 * (1 + 1 + 2)
    assert after["train", "tiny-qwen2", "full"] == before["train", "tiny-qwen2", "full"]
    long = RATE | {"option": "training.epochs", "values": [1, 3]}
    plan = Plan(grid_of(long, plan={"samples": {"train": 80, "reference": 24}}).config)
    assert plan.training("full.rate=3", "tiny-llama").flops == pytest.approx(
        3 * plan.training("full", "tiny-llama").flops
    )


def test_the_plan_asks_the_worlds_own_questions(root, monkeypatch):
    monkeypatch.chdir(root)
    plan = Plan(load_config("config/config.yaml"))
    counts = {name: plan.questions(name) for name in plan.config["benchmarks"]}
    assert set(counts.values()) == {120} and plan.evaluation("world-llama-small").forward == pytest.approx(
        61_848, rel=0.02
    )
    # 2.80·sqrt(0.16 / 1200 + 2 · 0.007² / 3)
    assert plan.detectable() == pytest.approx(0.0361, abs=1e-4)
    fewer = Plan(load_config("config/config.yaml", world={"options": {"questions": 50}}))
    assert fewer.questions("arc_easy") == 50 and fewer.questions("tydiqa") == 48
    assert Plan(load_config("config/ci.yaml")).questions("triviaqa") == 6
    assert Plan(load_config("config/paper.yaml", ablations=[])).questions("arc_easy") == 2376


def test_the_worlds_questions_are_as_many_as_the_plan_says(tmp_path):
    generate(tmp_path, seed=0, rows=1, reference_rows=1, questions=50, documents=0)
    for name in ("arc_easy", "tydiqa"):
        files = (tmp_path / "benchmarks" / name).rglob("test.jsonl")
        assert sum(len(file.read_text().splitlines()) for file in files) == questions_of(name, 50)


def test_when_is_the_default_experiment_with_one_setting_moved_at_a_time(root, monkeypatch):
    monkeypatch.chdir(root)
    when, default = (load_config(f"config/{name}.yaml") for name in ("when", "config"))
    shared = (
        "benchmarks",
        "benchmarks_file",
        "benchmarks_data",
        "seeds",
        "world",
        "data",
        "training",
        "references",
        "evaluation",
    )
    assert {key: when[key] for key in shared} == {key: default[key] for key in shared}
    grid = Grid(when)
    assert {a.name: len({p.value for p in a.points}) for a in grid.ablations} == {
        "noise": 5, "kind": 5, "rho": 5, "learning-rate": 4, "length": 4,
    }  # fmt: skip
    for condition in grid.conditions.values():
        before, after = default | {"ablations": None}, condition.config | {"ablations": None}
        moved = [key for key in shared if before[key] != after[key]]
        assert len(moved) == 1, (condition.name, moved)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 5))
def test_a_higher_factor_plants_what_a_lower_one_plants(low, more, seed):
    """Rows and places are shared: only noise differs."""
    high = min(low + more, 1.7)
    items = instruction_items(build_world(), seed, 21)
    few, many = (_rows(items, "train", seed, rates_of(factor=factor)) for factor in (low, high))
    assert few[1] == many[1], "the clean rows are the same"
    for fewer, row in zip(few[0], many[0], strict=True):
        assert fewer["messages"][0] == row["messages"][0]
        kinds = [{kind for *_, kind in r["messages"][1]["noise"]} for r in (fewer, row)]
        lost = kinds[0] - kinds[1]
        assert not lost or (lost == {"wrong_answer"} and "other_prompt" in kinds[1])
