"""Configurations: closed, filled in, explained; pins in one place; the house's rules."""

import re
import tomllib
from dataclasses import fields
from importlib.metadata import requires, version

import pytest
import yaml
from packaging.requirements import Requirement

from sstoken.evaluation import EvaluationSettings
from sstoken.experiment.config import AdapterSettings, TrainingSettings, check_config, load_config
from sstoken.experiment.grid import Grid
from sstoken.experiment.layout import Run
from sstoken.experiment.reference import END, START, keys_reference
from sstoken.experiment.tickets import Tickets
from sstoken.models.table import load_models
from sstoken.records.documents import ConfigError, read_table, schema

MINIMAL = {"experiment": "x", "models": ["tiny-llama"], "methods": ["full"], "benchmarks": ["arc_easy"]}
MINIMAL |= {"data": {"train": {"sources": ["a"]}}}


def with_settings(**settings):
    return check_config(MINIMAL | settings, ["config/x.yaml"])


@pytest.mark.parametrize("name", ["config", "ci", "smollm2"])
def test_shipped_configurations_are_valid(root, name):
    settings = {"instruct_data": "rows.jsonl"} if name == "smollm2" else {}
    Grid(load_config(root / "config" / f"{name}.yaml", **settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainin": {}}, r"config/x.yaml: unknown key 'trainin'. Did you mean 'training'"),
        ({"training": {"learning_rat": 1}}, r"unknown key 'training.learning_rat'. Did you mean 'learning_rate'"),
        ({"training": {"adapter": {"r": 1}}}, r"unknown key 'training.adapter.r'"),
        ({"seeds": []}, r"seeds: \[\] should be non-empty"),
        ({"training": {"epochs": "one"}}, r"training.epochs: 'one' is not of type 'number'"),
        ({"data": {"train": {"sources": ["a"], "limits": 1}}}, r"unknown key 'data.train.limits'"),
        ({"evaluation": {"dtype": "int8"}}, r"evaluation.dtype: 'int8' is not one of"),
    ],
)
def test_a_wrong_configuration_names_file_key_and_what_would_do(settings, message):
    with pytest.raises(ConfigError, match=message):
        with_settings(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ["tiny-lama"]}, r"unknown model 'tiny-lama'. Did you mean 'tiny-llama'"),
        ({"methods": ["sstokn"]}, r"unknown method 'sstokn'. Did you mean 'sstoken'"),
        ({"methods": ["rho1"]}, r"method reference needs the data set 'reference'"),
        ({"data": {"train": {"sources": ["{instruct_data}"]}}}, r"name a file or folder"),
    ],
)
def test_names_that_do_not_exist_are_errors_before_anything_runs(settings, message):
    with pytest.raises(ConfigError, match=message):
        Grid(with_settings(**settings))


def test_settings_classes_and_schema_have_the_same_keys():
    training = schema("config")["properties"]["training"]["properties"]
    assert set(training) == {f.name for f in fields(TrainingSettings)}
    assert set(training["adapter"]["properties"]) == {f.name for f in fields(AdapterSettings)}
    evaluation = schema("config")["properties"]["evaluation"]["properties"]
    assert set(evaluation) == {f.name for f in fields(EvaluationSettings)}


def every_object(rules, place=""):
    if isinstance(rules, dict):
        if "properties" in rules:
            yield place, rules
        for key, value in rules.items():
            yield from every_object(value, f"{place}.{key}")


@pytest.mark.parametrize("name", ["config", "methods", "models", "benchmarks"])
def test_every_schema_is_closed(name):
    for place, rules in every_object(schema(name)):
        closed = rules.get("additionalProperties")
        assert closed is False or isinstance(closed, dict), place


def test_every_key_is_described_and_the_configs_readme_is_made_from_that(root):
    for place, rules in every_object(schema("config")):
        for key, value in rules["properties"].items():
            assert value.get("description") or "$ref" in value, f"{place}.{key}"
    _, _, made = (root / "config" / "README.md").read_text().partition(START)
    assert made.partition(END)[0].strip() == keys_reference(), (
        "run: python -m sstoken.experiment.reference config/README.md"
    )
    for place, rules in every_object(schema("config")):
        for key in rules["properties"]:
            assert f"| `{key}` |" in made, f"{place}.{key}"


def test_a_table_error_names_file_and_line(tmp_path):
    path = tmp_path / "models.tsv"
    head = "name\tfamily\tsize\tsource\trevision\tkeep_ratio\n"
    path.write_text(head + "a\tLlama\t1B\tnowhere:x\t\t\n")
    with pytest.raises(ConfigError, match=r"models.tsv:2: source: 'nowhere:x' does not match"):
        load_models(path)
    path.write_text(head + "# fine\na\tLlama\t1B\n")
    with pytest.raises(ConfigError, match=r"models.tsv:3: expected 6 columns"):
        load_models(path)
    path.write_text(head + "a\tLlama\t1B\tlocal:x\t\t\n" * 2)
    with pytest.raises(ConfigError, match=r"models.tsv:3: 'a' stands in line 2 already"):
        read_table(path, "models")


def test_what_a_method_is_scored_with_is_added_and_shared():
    data = {name: {"sources": ["a"]} for name in ("train", "reference")}
    grid = Grid(
        with_settings(methods=["rho1", "tokencleaning-fixed", "sstoken"], seeds=[3, 4], reference_seed=7, data=data)
    )
    reference = Run("tiny-llama", "reference", 7)
    assert reference in grid.runs()
    assert len(grid.runs()) == 1 + 3 * 2
    runs = [Run("tiny-llama", method, seed) for seed in (3, 4) for method in grid.methods]
    losses = {path for run in runs for path in made_of(grid, run) if "references" in path}
    folder = "results/x/references/tiny-llama/train"
    assert losses == {f"{folder}/base.json", f"{folder}/reference.seed7.json"}


def made_of(grid, run) -> list[str]:
    return Tickets(grid).results[grid.run_record(run)].ticket.records()


def test_a_history_can_be_the_end_of_another_run_of_the_grid(tmp_path, root):
    document = yaml.safe_load((root / "sstoken" / "selection" / "methods" / "methods.yaml").read_text())
    document["methods"]["second"] = {"extends": "sstoken", "history": "full"}
    document["methods"]["loop"] = {"extends": "sstoken", "history": "loop"}
    path = tmp_path / "methods.yaml"
    path.write_text(yaml.safe_dump(document))
    grid = Grid(with_settings(methods=["second"], seeds=[5], methods_file=str(path)))
    assert [m.name for m in grid.needed_methods("tiny-llama")] == ["full", "second"]
    losses = grid.losses("tiny-llama", "train", "full.seed5").with_suffix(".json")
    assert str(losses) in made_of(grid, Run("tiny-llama", "second", 5))
    full = str(grid.run_record(Run("tiny-llama", "full", 5)))
    assert full in Tickets(grid).results[losses].ticket.records()
    with pytest.raises(ConfigError, match="loop -> loop"):
        Grid(with_settings(methods=["loop"], methods_file=str(path)))


def test_a_chain_is_a_chain_of_jobs():
    grid = Grid(with_settings(methods=["tokencleaning-self-evolving"]))
    end = Run("tiny-llama", "tokencleaning-self-evolving", 0)
    parts, run = [], end
    while run := grid.previous(run):
        parts.append(run.part)
    assert parts == [3, 2, 1, 0]
    assert str(grid.run_record(Run(*[end.model, end.method, 0], 3))) in made_of(grid, end)


def test_a_models_own_keep_ratio_reaches_selecting_methods_only(tmp_path):
    path = tmp_path / "models.tsv"
    path.write_text("name\tfamily\tsize\tsource\trevision\tkeep_ratio\nbig\tQwen2\t14B\tlocal:x\t\t0.8\n")
    grid = Grid(with_settings(models=["big"], models_file=str(path), methods=["full", "sstoken"]))
    assert grid.method_entry("sstoken", "big")["keep_ratio"] == 0.8
    assert "keep_ratio" not in grid.method_entry("full", "big")


def pins(path):
    """Package -> version of a file of requirements."""
    lines = path.read_text().splitlines()
    found = [line.split()[0].split("==") for line in lines if "==" in line and line[0] not in "# "]
    return {name.lower().replace("_", "-"): version for name, version in found}


def test_every_line_of_the_lock_has_hashes(root):
    entries = re.split(r"\n(?=\w)", (root / "requirements.lock").read_text().rstrip("\n"))[1:]
    assert len(entries) == len(pins(root / "requirements.lock")) > 100
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==[\w.]+( \\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry[:200]


def test_pins_are_the_same_everywhere(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = pins(root / "requirements.lock")
    product = [*project["dependencies"], *(p for extra in ("workflow", "eval", "report") for p in extras[extra])]
    asked = [Requirement(text) for text in [*product, *extras["smollm2"], *extras["test"]]]
    for requirement in asked:
        assert requirement.specifier.contains(names[requirement.name.lower().replace("_", "-")]), requirement
    wanted = [Requirement(text).name for text in [*product, *extras["smollm2"]] if not text.startswith("llm-")]
    expected = [f"{name}=={names[name.lower().replace('_', '-')]}" for name in wanted]
    for path in ("environment.yml", "workflow/envs/sstoken.yaml"):
        assert yaml.safe_load((root / path).read_text())["dependencies"][-1]["pip"] == expected, path


def test_the_lowest_version_asked_for_is_one_that_the_suite_runs_on(root):
    """Of requirements-oldest.txt where it names the package, else of the lock."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    tested = pins(root / "requirements.lock") | pins(root / "requirements-oldest.txt")
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["workflow"], *extras["eval"], *extras["report"]]:
        requirement = Requirement(text)
        lowest = next(s.version for s in requirement.specifier if s.operator in (">=", "=="))
        pin = tested[requirement.name.lower().replace("_", "-")]
        assert pin == lowest or pin.startswith(f"{lowest}."), f"{text}: tested on {pin}"


def test_the_library_alone_is_small(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    names = {Requirement(text).name.lower() for text in project["dependencies"]}
    assert not names & {
        "snakemake",
        "lm-eval",
        "pandas",
        "matplotlib",
        "scipy",
        "statsmodels",
        "jinja2",
        "pytest",
        "trl",
    }


@pytest.mark.parametrize("package", ["torch", "trl", "transformers", "peft", "accelerate", "datasets"])
def test_libraries_have_all_that_they_ask_for(package):
    """The lock is installed without dependencies, so nobody else looks whether its packages fit: beside TRL, too."""
    for text in requires(package):
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            assert requirement.specifier.contains(version(requirement.name), prereleases=True), text
