"""What a grid reports: which runs its tables, figures and costs speak of."""

from __future__ import annotations

from functools import cache, cached_property
from pathlib import Path

from sstoken.experiment.layout import Layout, Run
from sstoken.records.documents import read_table

REFUSED, KEPT, ANSWERED = "refused", "kept", "answered"
"""Metrics of benchmarks of refusal: a request refused, its secret not told, a harmless look-alike answered."""
REFERENCE = "reference"  # the entry of methods.yaml whose run is everyone's reference model


class Reported(Layout):
    """The part of a grid (``sstoken.experiment.grid``) that the report asks."""

    def reported(self, model: str) -> list[str]:
        """The methods whose runs of this model are evaluated: the table's, then those of its ablations."""
        ablated = [run for ablation in self.ablations if model in ablation.models for run in ablation.runs]
        return list(dict.fromkeys([*self.methods, *ablated]))

    def reported_seeds(self, method: str) -> list[int]:
        return self.seeds if self.is_reference(method) else self.seeds_of(method)

    @cached_property
    def refusal_benchmarks(self) -> list[str]:
        """Benchmarks of refusal, by their metric: they stand in a table of their own and in no average."""
        rows = read_table(self.config["benchmarks_file"], "benchmarks")
        metrics = {row["name"]: row["metric"] for row in rows}
        return [name for name in self.config["benchmarks"] if metrics.get(name) in (REFUSED, KEPT, ANSWERED)]

    def noisy_runs(self) -> list[Run]:
        """The runs that are reported and whose data says which tokens are noise: planted by the world or here, or labelled."""
        methods = {
            m.name
            for m in self.all_methods.values()
            if m.trains and m.data.partition(".")[0] != "clean" and self._planted(m.data)
        }
        return [
            Run(model, method, seed)
            for model in self.models
            for method in self.reported(model)
            if method in methods
            for seed in self.reported_seeds(method)
        ]

    @cache  # noqa: B019 one grid a process
    def _planted(self, dataset: str) -> bool:
        parts = [self.data[part] for part in dataset.split("+") if part in self.data]
        sources = [source for section in parts for source in section["sources"]]
        planted = any(any(section.get("noise") or {}) for section in parts)
        return planted or any("{world}" in source or self._labelled(source) for source in sources)

    def _labelled(self, source: str) -> bool:
        """Whether a file of rows carries labels of noise, by the key's name in its text; a folder, if one of its files does."""
        path = Path(self.resolve(source)) if "{instruct_data}" not in source or self.config["instruct_data"] else None
        if path is None or source.startswith("hub:"):
            return False
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        return any(_mentions(file, b'"noise"') for file in files if file.suffix in (".jsonl", ".json"))

    def selection_source(self, run: Run) -> dict:
        """Where the run's scores and masks lie, and the tokens that they speak of."""
        parts = [Run(run.model, run.method, run.seed, p) for p in range(self.all_methods[run.method].parts - 1)]
        folders = [str(self.run_record(part).parent) for part in (*parts, run)]
        data = self.all_methods[run.method].data
        tokens = str(self.tokens(run.model, data, self.draw(data, run.seed)))
        return {"model": run.model, "method": run.method, "seed": run.seed, "tokens": tokens, "folders": folders}

    def evaluations(self) -> list[Path]:
        return list(self.evaluated())

    def evaluated(self) -> dict[Path, Run]:
        """Record -> run, of everything that is scored on the benchmarks."""
        runs = (
            Run(model, method, seed)
            for model in self.models
            for method in self.reported(model)
            for seed in self.reported_seeds(method)
        )
        return {self.evaluation_record(run): run for run in runs}

    def main_table(self, model: str, seed: int | None = None) -> dict[str, list[Path]]:
        """method -> records of its scores, of the model's rows of the main table; of one seed where it is given.

        A method that has one run for all seeds stands in the table of each.
        """
        runs = {}
        for method in self.methods:
            seeds = self.reported_seeds(method)
            runs[method] = [Run(model, method, s) for s in seeds if seed in (None, s) or len(seeds) == 1]
        return {method: [self.evaluation_record(run) for run in own] for method, own in runs.items()}

    def asked_losses(self, model: str) -> list[tuple[str, str, int | None]]:
        """(data set, label of the weights, draw), each once, of every pass over the data that a method's scores need."""
        found = {
            (m.data, label, self.draw(m.data, s)): None
            for m in self.needed_methods(model)
            for s in self.seeds_of(m.name)
            for label in self.labels(m.name, s).values()
        }
        return list(found)

    def passes(self) -> dict[str, list[tuple[str, int | None]]]:
        """method -> (weights, their seed; None for the base) that its first run's scores are measured with."""
        found = {}
        for method in self.methods:
            seed = self.reported_seeds(method)[0]
            labels = {label: self.run_of("", label) for label in self.labels(method, seed).values()}
            found[method] = [(run.method, run.seed) if run else (label, None) for label, run in labels.items()]
        return found

    def cost_records(self) -> list[Path]:
        """The records of every job, in the order of the workflow: each holds one row of costs.csv."""
        records = [*self.hub.records, *self.hub.benchmarks]
        records += [self.heldout_record] if self.heldout_record else []
        records += [record for model in self.models if (record := self.base_record(model))]
        records += [self.model_record(model) for model in self.models]
        for model in self.models:
            trained = [(m, s) for m in self.needed_methods(model) if m.trains for s in self.seeds_of(m.name)]
            read = dict.fromkeys((m.data, self.draw(m.data, s)) for m, s in trained)
            records += [self.tokens(model, *drawn).with_suffix(".json") for drawn in read]
            records += [self.losses(model, *asked).with_suffix(".json") for asked in self.asked_losses(model)]
        for run in self.runs():
            parts = range(self.all_methods[run.method].parts - 1)
            records += [self.run_record(Run(run.model, run.method, run.seed, part)) for part in parts]
            records.append(self.run_record(run))
        return records + self.evaluations()

    def progress(self) -> dict[Path, tuple[str, str]]:
        """Record -> (stage, model), of every run trained and evaluated: what a person waits for."""
        trained = {self.run_record(run): ("trained", run.model) for run in self.runs()}
        return trained | {path: ("evaluated", path.parents[2].name) for path in self.evaluations()}


def _mentions(file: Path, word: bytes) -> bool:
    if not file.is_file():
        return False
    with open(file, "rb") as lines:
        return any(word in line for line in lines)
