"""The grid of one configuration: which runs there are, and what each needs.

A model's runs are those of the table (``methods``) and those of the ablations that name the model.  Where files lie is
``layout``'s to say, what is reported ``reported``'s.

Pure names and no tensors: the workflow asks it for inputs and outputs, tests ask it the same questions.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path

from sstoken.experiment.ablations import Expansion
from sstoken.experiment.conditions import reads_world
from sstoken.experiment.config import Parallel, TrainingSettings
from sstoken.experiment.fetched import HubFiles
from sstoken.experiment.layout import Run
from sstoken.experiment.own import asked_methods
from sstoken.experiment.reported import REFERENCE, Reported
from sstoken.models.table import ModelEntry, load_models
from sstoken.records.documents import ConfigError, pick
from sstoken.selection.methods import UNTRAINED, Method, build_method, entries_of, track_options

OWN_METHODS = (
    "One of your own goes under own_methods, or into a file that methods_file names (docs/how-to/own-method.md)"
)
OWN_MODELS = "One of your own goes under own_models, or into a file that models_file names (docs/how-to/own-model.md)"


class Grid(Reported):
    """Everything that follows from a checked configuration (``sstoken.experiment.config.check_config``)."""

    def __init__(self, config: dict):
        self.config = config
        self.root = Path("results") / config["experiment"]
        models = load_models(config["models_file"], config["own_models"])
        self.models: dict[str, ModelEntry] = pick("model", config["models"], models, "models", OWN_MODELS)
        self.hub = HubFiles(config, self.models, self.root)
        entries = entries_of(asked_methods(config), config["track"], config["methods_file"])
        pick("method", config["methods"], entries, "methods", OWN_METHODS)
        expanded = Expansion(config, entries).expand(list(self.models))
        self.ablations, self.under, self.conditions = expanded.ablations, expanded.under, expanded.conditions
        self.data: dict[str, dict] = dict(config.get("data") or {})
        self.worlds: dict[str, str] = {}  # data set -> the condition whose world it comes from
        for condition in self.conditions.values():
            for part in condition.changed:
                self.data[name := condition.dataset(part)] = condition.config["data"][part]
                self.worlds[name] = condition.name if condition.world and reads_world(self.data[name]) else ""
        for ablation in self.ablations:
            own = [model for model in ablation.models if self.models[model].keep_ratio is not None]
            if ablation.option == "keep_ratio" and own:
                raise ConfigError(
                    f"ablation {ablation.name}: {own[0]} has a keep_ratio of its own in {config['models_file']}"
                )
        self.entries = entries | expanded.entries
        self.all_methods = {n: build_method(n, e, config["methods_file"]) for n, e in self.entries.items()}
        self.methods: dict[str, Method] = {name: self.all_methods[name] for name in config["methods"]}
        track = track_options(config["track"])
        self.evaluation = _evaluation(config["evaluation"], track.get("evaluation", {}))
        self.seeds: list[int] = config["seeds"]
        self.training_section = _left_open(config["training"], track.get("training", {}))
        self.training_sections = {
            name: _left_open(condition.config["training"], track.get("training", {}))
            for name, condition in self.conditions.items()
        }
        self.training = TrainingSettings.of(self.training_section)
        for model in self.models:
            for method in self.needed_methods(model):
                self.dataset(method.data, f"method {method.name}")

    def method_entry(self, name: str, model: str) -> dict:
        """The method's entry as the run gets it: the track's options and the model's own keep ratio applied."""
        entry, ratio = dict(self.entries[name]), self.models[model].keep_ratio
        if ratio is not None and entry.get("keep_ratio", 1.0) < 1:
            entry["keep_ratio"] = ratio
        return entry

    @cache  # noqa: B019 one grid a process
    def needed_methods(self, model: str) -> list[Method]:
        """The methods reported, and those whose weights they are scored with, each once, needed ones first."""
        found: dict[str, Method] = {}

        def visit(name: str, trail: tuple[str, ...]) -> None:
            if name in trail:
                raise ConfigError(
                    f"{self.config['methods_file']}: methods need each other: {' -> '.join([*trail, name])}"
                )
            if name not in self.all_methods:
                pick("method", [name], self.all_methods, f"{self.config['methods_file']}, method {trail[-1]}")
            method = self.all_methods[name]
            for weights in method.weights.values():
                if weights not in UNTRAINED:
                    visit(weights, (*trail, name))
            found.setdefault(name, method)

        for name in self.reported(model):
            visit(name, ())
        return list(found.values())

    def runs(self) -> list[Run]:
        """Every run that trains, those of the reference included."""
        return [
            Run(model, method.name, seed)
            for model in self.models
            for method in self.needed_methods(model)
            if method.trains
            for seed in self.seeds_of(method.name)
        ]

    def seeds_of(self, method: str) -> list[int]:
        """The base does not depend on a seed; the reference has its own, and the grid's too where it is in the table."""
        if not self.all_methods[method].trains:
            return [self.seeds[0]]
        if self.is_reference(method):
            shown = {*self.methods, *(run for ablation in self.ablations for run in ablation.runs)}
            asked = self.seeds if method in shown else []
            return sorted({*map(self.reference_seed, self.seeds), *asked})
        return self.seeds

    def parallel(self, model: str) -> Parallel:
        """On how many GPUs a run of this model trains.

        Raises:
            ConfigError: the micro-batches of a step cannot be divided among them.
        """
        size = self.models[model].size
        found = Parallel(**{"strategy": "ddp", **self.config["parallel"].get(size, {"gpus": 1})})
        for section in (self.training_section, *self.training_sections.values()):
            if section["accumulation"] % found.gpus:
                raise ConfigError(
                    f"parallel.{size}: {found.gpus} GPUs cannot share training.accumulation {section['accumulation']} evenly"
                )
        return found

    def dataset(self, name: str, who: str = "") -> dict:
        """The first section of a data set, as rows that all seeds share are read."""
        return self.sections(name, who=who)[0]

    def sections(self, name: str, draw: int | None = None, who: str = "") -> list[dict]:
        """What a data set is read from, ``{instruct_data}`` and ``{world}`` resolved: ``train+reference`` is both, in order.

        Args:
            draw: the seed whose rows of the world they are. who: asks, for errors.

        Raises:
            ConfigError: the configuration has no such data set, or names no data of your own.
        """
        found = []
        for part in name.split("+"):
            if part not in self.data:
                known = ", ".join(self.config.get("data") or {})
                raise ConfigError(f"{who or 'the workflow'} needs the data set {part!r}; the configuration has {known}")
            section, world = dict(self.data[part]), self.worlds.get(part, "")
            section["sources"] = [self.resolve(self.hub.path_of(source), draw, world) for source in section["sources"]]
            if section.get("limit_tokens") is None:  # no part of what tokens are made from
                section.pop("limit_tokens", None)
            found.append({"skip": 0, "limit": None, "shuffle_seed": None} | section)
        return found

    def resolve(self, text: str, draw: int | None = None, condition: str = "") -> str:
        if "{instruct_data}" in text and not self.config["instruct_data"]:
            raise ConfigError(
                "this configuration trains on your own data: name a file or folder, e.g. "
                'make reproduce CONFIG=… SET="instruct_data=path/to/rows.jsonl"'
            )
        world = str(self.world_folder(draw, condition))
        return text.replace("{instruct_data}", str(self.config["instruct_data"])).replace("{world}", world)

    def is_generated(self, source: str) -> bool:
        return Path(source).is_relative_to(self.world)

    def draw(self, dataset: str, seed: int) -> int | None:
        """The seed whose rows a run of this seed reads: its own where the world makes them, else None, all seeds'."""
        if not (self.config["world"] or {}).get("data_per_seed"):
            return None
        sections = [self.data[part] for part in dataset.split("+") if part in self.data]
        return seed if any(map(reads_world, sections)) else None

    def world_seed(self, draw: int | None) -> int:
        """What the generator draws with: another world seed has other rows for every seed."""
        seed = self.config["world"]["seed"]
        return seed if draw is None else 1000 * seed + draw

    def world_options(self, condition: str = "") -> dict:
        """What the generator is told beside its seed."""
        config = self.conditions[condition].config if condition else self.config
        return config["world"]["options"]

    def is_reference(self, method: str) -> bool:
        return self.under.get(method, (method,))[0] == REFERENCE

    @property
    def benchmarks_data(self) -> str:
        """The folder of the benchmarks' rows: your own, or what is fetched from the hub."""
        return self.resolve(self.config["benchmarks_data"] or str(self.hub.benchmarks_folder))

    def labels(self, method: str, seed: int) -> dict[str, str]:
        """signal -> label of the weights that it is measured with: "base", "unconditional", or "<method>.seed<seed>"."""
        return {signal: self.label(weights, seed) for signal, weights in self.all_methods[method].weights.items()}

    def label(self, weights: str, seed: int) -> str:
        if weights in UNTRAINED:
            return weights
        return f"{weights}.seed{self.reference_seed(seed) if self.is_reference(weights) else seed}"

    def reference_seed(self, seed: int) -> int:
        """Of the reference that a run of this seed is scored with: its own where its rows are, else everyone's."""
        method = self.all_methods.get(REFERENCE)
        own = method is not None and self.draw(method.data, seed) is not None
        return seed if own else self.config["reference_seed"]

    def run_of(self, model: str, label: str) -> Run | None:
        if label in UNTRAINED:
            return None
        method, _, seed = label.rpartition(".seed")
        return Run(model, method, int(seed))

    def order(self, run: Run) -> dict:
        """What the run's job must be told, its files apart."""
        method = self.method_of(run)
        return {
            "model": run.model,
            "method": run.method,
            "entry": self.method_entry(run.method, run.model),
            "labels": self.labels(run.method, run.seed),
            "draw": self.draw(method.data, run.seed),
            "training": self.training_of(method),
            "parallel": asdict(self.parallel(run.model)),
        }

    def method_of(self, run: Run) -> Method:
        return build_method(run.method, self.method_entry(run.method, run.model), self.config["methods_file"])

    def training_of(self, method: Method) -> dict:
        """The recipe, with the method's own factors on its learning rate and its steps."""
        under = self.under.get(method.name)
        training = dict(self.training_sections[under[1].name] if under else self.training_section)
        training["learning_rate"] *= method.learning_rate_factor
        if method.steps_factor != 1 and training["max_steps"] > 0:
            training["max_steps"] = max(1, round(training["max_steps"] * method.steps_factor))
        training["epochs"] *= method.steps_factor
        return training

    def part(self, run: Run) -> int:
        return self.all_methods[run.method].parts - 1 if run.part is None else run.part

    def previous(self, run: Run) -> Run | None:
        """The part of the chain that this one trains on from."""
        part = self.part(run)
        return Run(run.model, run.method, run.seed, part - 1) if part > 0 else None


def _evaluation(settings: dict, track: dict) -> dict:
    """The configuration's settings, those that it leaves open as the track says."""
    if settings["limit"] is not None:
        track = {key: value for key, value in track.items() if key != "limit_fraction"}
    return _left_open(settings, track)


def _left_open(settings: dict, track: dict) -> dict:
    """The configuration's settings, those that are null as the track says."""
    return {**settings, **{key: value for key, value in track.items() if settings[key] is None}}
