"""The grid of one configuration: which runs there are, and what each needs.

A model's runs are those of the table (``methods``) and those of the ablations that name the model.  Where files lie is
``layout``'s to say, what is reported ``reported``'s.

Pure names and no tensors: the workflow asks it for inputs and outputs, tests ask it the same questions.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path

from sstoken.experiment.ablations import Ablation, expand
from sstoken.experiment.config import Parallel, TrainingSettings
from sstoken.experiment.fetched import HubFiles
from sstoken.experiment.layout import Run
from sstoken.experiment.own import asked_methods
from sstoken.experiment.reported import REFERENCE, Reported
from sstoken.models.table import ModelEntry, load_models
from sstoken.records.documents import ConfigError, pick
from sstoken.selection.methods import Method, build_method, entries_of, track_options


class Grid(Reported):
    """Everything that follows from a checked configuration (``sstoken.experiment.config.check_config``)."""

    def __init__(self, config: dict):
        self.config = config
        self.root = Path("results") / config["experiment"]
        models = load_models(config["models_file"], config["own_models"])
        self.models: dict[str, ModelEntry] = pick("model", config["models"], models, config["models_file"])
        self.hub = HubFiles(config, self.models, self.root)
        entries = entries_of(asked_methods(config), config["track"], config["methods_file"])
        pick("method", config["methods"], entries, config["methods_file"])
        self.ablations: list[Ablation]
        self.ablations, added = expand(
            config["ablations"], entries, list(self.models), config["methods"], config["methods_file"]
        )
        for ablation in self.ablations:
            own = [model for model in ablation.models if self.models[model].keep_ratio is not None]
            if ablation.option == "keep_ratio" and own:
                raise ConfigError(
                    f"ablation {ablation.name}: {own[0]} has a keep_ratio of its own in {config['models_file']}"
                )
        self.entries = entries | added
        self.all_methods = {n: build_method(n, e, config["methods_file"]) for n, e in self.entries.items()}
        self.methods: dict[str, Method] = {name: self.all_methods[name] for name in config["methods"]}
        self.evaluation = _evaluation(config["evaluation"], track_options(config["track"]).get("evaluation", {}))
        self.seeds: list[int] = config["seeds"]
        self.training = TrainingSettings.of(config["training"])
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
                if weights != "base":
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
        if method == REFERENCE:
            asked = self.seeds if REFERENCE in self.methods else []
            return sorted({self.config["reference_seed"], *asked})
        return self.seeds

    def parallel(self, model: str) -> Parallel:
        """On how many GPUs a run of this model trains.

        Raises:
            ConfigError: the micro-batches of a step cannot be divided among them.
        """
        size = self.models[model].size
        found = Parallel(**{"strategy": "ddp", **self.config["parallel"].get(size, {"gpus": 1})})
        if self.training.accumulation % found.gpus:
            raise ConfigError(
                f"parallel.{size}: {found.gpus} GPUs cannot share training.accumulation {self.training.accumulation} evenly"
            )
        return found

    def dataset(self, name: str, who: str = "") -> dict:
        """The data set's section with ``{instruct_data}`` and ``{world}`` resolved."""
        sets = self.config.get("data") or {}
        if name not in sets:
            raise ConfigError(
                f"{who or 'the workflow'} needs the data set {name!r}; the configuration has {', '.join(sets)}"
            )
        section = dict(sets[name])
        section["sources"] = [self.resolve(self.hub.path_of(source)) for source in section["sources"]]
        return {"skip": 0, "limit": None, "shuffle_seed": None} | section

    def resolve(self, text: str) -> str:
        if "{instruct_data}" in text and not self.config["instruct_data"]:
            raise ConfigError(
                "this configuration trains on your own data: name a file or folder, e.g. "
                'make reproduce CONFIG=… SET="instruct_data=path/to/rows.jsonl"'
            )
        return text.replace("{instruct_data}", str(self.config["instruct_data"])).replace("{world}", str(self.world))

    @property
    def benchmarks_data(self) -> str:
        """The folder of the benchmarks' rows: your own, or what is fetched from the hub."""
        return self.resolve(self.config["benchmarks_data"] or str(self.hub.benchmarks_folder))

    def labels(self, method: str, seed: int) -> dict[str, str]:
        """signal -> label of the weights that it is measured with: "base", or "<method>.seed<seed>"."""
        return {signal: self.label(weights, seed) for signal, weights in self.all_methods[method].weights.items()}

    def label(self, weights: str, seed: int) -> str:
        if weights == "base":
            return "base"
        return f"{weights}.seed{self.config['reference_seed'] if weights == REFERENCE else seed}"

    def run_of(self, model: str, label: str) -> Run | None:
        if label == "base":
            return None
        method, _, seed = label.rpartition(".seed")
        return Run(model, method, int(seed))

    def order(self, run: Run) -> dict:
        """What the run's job must be told, its files apart."""
        labels = self.labels(run.method, run.seed)
        return {
            "model": run.model,
            "method": run.method,
            "entry": self.method_entry(run.method, run.model),
            "labels": labels,
            "parallel": asdict(self.parallel(run.model)),
        }

    def previous(self, run: Run) -> Run | None:
        """The part of the chain that this one trains on from."""
        last = self.all_methods[run.method].parts - 1
        part = last if run.part is None else run.part
        return Run(run.model, run.method, run.seed, part - 1) if part > 0 else None

    def run_inputs(self, run: Run) -> list[Path]:
        """Files that a run (or part) needs to exist."""
        method = self.all_methods[run.method]
        files = [self.model_record(run.model), self.tokens(run.model, method.data)]
        files += [self.losses(run.model, method.data, label) for label in self.labels(run.method, run.seed).values()]
        before = self.previous(run)
        return files + ([self.run_record(before)] if before else [])

    def evaluation_inputs(self, run: Run) -> list[Path]:
        generated = self.benchmarks_data.startswith(str(self.world))
        files = [self.world / "world.json"] if generated else self.hub.benchmarks
        trained = [self.run_record(run)] if self.all_methods[run.method].trains else []
        return [self.model_record(run.model), *files, *trained]

    def label_inputs(self, model: str, label: str) -> list[Path]:
        run = self.run_of(model, label)
        return [self.run_record(run)] if run else []

    def datasets(self) -> list[str]:
        """Those that a run of the grid trains on."""
        needed = [method for model in self.models for method in self.needed_methods(model)]
        return list(dict.fromkeys(method.data for method in needed if method.trains))

    def dataset_inputs(self, dataset: str) -> list[Path]:
        """What must be there before the data set's rows can be read; a change of these files makes their tokens anew."""
        sources = self.dataset(dataset)["sources"]
        files = [Path(source) for source in sources if not source.startswith(str(self.world))]
        generated = any(source.startswith(str(self.world)) for source in sources)
        return files + ([self.world / "world.json"] if generated else [])


def _evaluation(settings: dict, track: dict) -> dict:
    """The configuration's settings, those that it leaves open as the track says."""
    left_open = {key: value for key, value in track.items() if settings[key] is None}
    if settings["limit"] is not None:
        left_open.pop("limit_fraction", None)
    return {**settings, **left_open}
