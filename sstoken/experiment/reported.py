"""What a grid reports: which runs its tables, figures and costs speak of."""

from __future__ import annotations

from pathlib import Path

from sstoken.experiment.layout import Layout, Run

REFERENCE = "reference"  # the entry of methods.yaml whose run is everyone's reference model


class Reported(Layout):
    """The part of a grid (``sstoken.experiment.grid``) that the report asks."""

    def reported(self, model: str) -> list[str]:
        """The methods whose runs of this model are evaluated: the table's, then those of its ablations."""
        ablated = [run for ablation in self.ablations if model in ablation.models for run in ablation.runs]
        return list(dict.fromkeys([*self.methods, *ablated]))

    def reported_seeds(self, method: str) -> list[int]:
        return self.seeds if method == REFERENCE else self.seeds_of(method)

    def noisy_runs(self) -> list[Run]:
        """The runs that are reported and whose data carries the truth about its noise: that of the embedded world."""
        methods = {
            m.name for m in self.all_methods.values() if m.trains and m.data != "clean" and self._planted(m.data)
        }
        return [
            Run(model, method, seed)
            for model in self.models
            for method in self.reported(model)
            if method in methods
            for seed in self.reported_seeds(method)
        ]

    def _planted(self, dataset: str) -> bool:
        sets = self.config.get("data") or {}
        sources = [source for part in dataset.split("+") for source in sets.get(part, {}).get("sources", [])]
        return bool(sources) and all("{world}" in source for source in sources)

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
