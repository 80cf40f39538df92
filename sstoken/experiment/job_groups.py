"""Which runs share a process: one each, or several where a run takes seconds and starting Python takes as long."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sstoken.experiment.grid import Grid, Run


@dataclass(frozen=True)
class JobGroup:
    """The runs of one job, as a rule with wildcards.

    rule: its name. models: for which there is such a job. runs: in order; ``{model}`` stands for the model, and
    ``{method}``, ``{seed}``, ``{part}`` where they are wildcards of the rule too. record: where a run's record lies.
    """

    rule: str
    models: tuple[str, ...]
    runs: tuple[Run, ...]
    record: Callable[[Run], Path]

    @property
    def outputs(self) -> list[str]:
        return [str(self.record(run)) for run in self.runs]

    @property
    def log(self) -> str:
        """The stem of the job's log, below the stage's folder."""
        run = self.runs[0]
        if "{" not in run.method:
            return f"{{model}}/{self.rule}"
        return f"{{model}}/{{method}}.seed{{seed}}{'' if run.part is None else '.part{part}'}"

    @property
    def title(self) -> str:
        """What the job is, for a line in the terminal; wildcards are filled in by the workflow."""
        names = list(dict.fromkeys(run.method for run in self.runs))
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        title = f"{{model}}: {shown}" + (
            f", {len(self.runs)} runs" if len(self.runs) > 1 else f", seed {self.runs[0].seed}"
        )
        title += f", part {self.runs[0].part}" if self.runs[0].part is not None and len(self.runs) == 1 else ""
        return re.sub(r"{(\w+)}", r"{wildcards.\1}", title)

    def of(self, wildcards: Mapping[str, str]) -> list[Run]:
        """The runs of the job with these wildcards."""
        named = dict(wildcards.items())

        def filled(value) -> str:
            return str(value).format(**named)

        return [
            Run(filled(r.model), filled(r.method), int(filled(r.seed)), None if r.part is None else int(filled(r.part)))
            for r in self.runs
        ]

    def inputs(self, needed: Callable[[Run], list[Path]]) -> Callable[[Mapping[str, str]], list[str]]:
        """An input function: what all runs need and the job does not make itself."""

        def function(wildcards) -> list[str]:
            runs = self.of(wildcards)
            own = {self.record(run) for run in runs}
            return list(dict.fromkeys(str(file) for run in runs for file in needed(run) if file not in own))

        return function


def training_groups(grid: Grid) -> list[JobGroup]:
    """Every run, and the parts of a chain in their order."""
    if grid.config["runs_in_one_job"] == 1:
        models = tuple(grid.models)
        run = Run("{model}", "{method}", "{seed}")
        part = Run("{model}", "{method}", "{seed}", "{part}")
        return [
            JobGroup("train", models, (run,), grid.run_record),
            JobGroup("train_part", models, (part,), grid.run_record),
        ]

    def runs_of(method: str) -> list[Run]:
        parts = range(grid.all_methods[method].parts - 1) if grid.all_methods[method].trains else ()
        return [Run("{model}", method, seed, p) for seed in grid.seeds_of(method) for p in (*parts, None)]

    wanted = {model: [m.name for m in grid.needed_methods(model) if m.trains] for model in grid.models}
    return _grouped(grid, "train", wanted, runs_of, grid.run_record)


def evaluation_groups(grid: Grid) -> list[JobGroup]:
    """Every run that is reported."""
    if grid.config["runs_in_one_job"] == 1:
        run = Run("{model}", "{method}", "{seed}")
        return [JobGroup("evaluate", tuple(grid.models), (run,), grid.evaluation_record)]

    def runs_of(method: str) -> list[Run]:
        return [Run("{model}", method, seed) for seed in grid.reported_seeds(method)]

    wanted = {model: grid.reported(model) for model in grid.models}
    return _grouped(grid, "evaluate", wanted, runs_of, grid.evaluation_record)


def _grouped(grid: Grid, rule: str, wanted: dict[str, list[str]], runs_of, record) -> list[JobGroup]:
    """Whole methods together, up to ``runs_in_one_job`` runs, none with another that it needs."""
    size, together = grid.config["runs_in_one_job"], {}
    for method in dict.fromkeys(name for names in wanted.values() for name in names):
        models = tuple(model for model, names in wanted.items() if method in names)
        together.setdefault((models, _level(grid, method)), []).append(method)
    found = []
    for (models, _), methods in together.items():
        for chunk in _chunks([runs_of(method) for method in methods], size):
            found.append(JobGroup(f"{rule}_{len(found) + 1}", models, chunk, record))
    return found


def _level(grid: Grid, method: str) -> int:
    """How many runs must have been trained, one after the other, before this one can start."""
    weights = [name for name in grid.all_methods[method].weights.values() if name != "base"]
    return 1 + max((_level(grid, name) for name in weights), default=-1)


def _chunks(methods: Iterable[list[Run]], size: int) -> list[tuple[Run, ...]]:
    """About equal numbers of runs each, a chain counting once: the last job must not be left with a single one."""
    methods = list(methods)
    counts = [sum(run.part is None for run in runs) for runs in methods]
    jobs = max(1, round(sum(counts) / size))
    chunks: list[list[Run]] = [[] for _ in range(jobs)]
    done = 0
    for runs, count in zip(methods, counts, strict=True):
        chunks[min(int(done * jobs / sum(counts)), jobs - 1)] += runs
        done += count
    return [tuple(chunk) for chunk in chunks if chunk]
