"""A grid's jobs in this process, one after the other: what the workflow makes, without its dozens of processes."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from sstoken.evaluation import benchmarks, load_benchmarks
from sstoken.experiment.config import load_config
from sstoken.experiment.grid import Grid
from sstoken.experiment.job_groups import Jobs
from sstoken.experiment.status import status
from sstoken.jobs.evaluate import evaluate_all
from sstoken.jobs.losses import store_losses
from sstoken.jobs.prepare import store_model, store_tokens, store_world
from sstoken.jobs.train import Order, train_all
from sstoken.models.load import Weights
from sstoken.records import identity
from sstoken.report.collect import collect

CACHED = (identity.file_code, identity.code_of, identity.scorer_code, identity._imports, identity._imported,
          identity._file_of, benchmarks._our_tasks)  # fmt: skip


class Here:
    """A configuration in the working directory, ``here.yaml``; paths in it are relative."""

    def __init__(self, config: dict):
        self.config = config

    def grid(self) -> Grid:
        for function in CACHED:  # files are read as they are now, as a new process would
            function.cache_clear()
        Path("here.yaml").write_text(yaml.safe_dump(self.config))
        return Grid(load_config("here.yaml"))

    def status(self) -> dict[str, str]:
        """``stage method`` -> what changed, of all that is not current."""
        states = [state for state in status(self.grid()) if state.state != "current"]
        return {f"{state.stage} {state.method}".strip(): state.changed or "missing" for state in states}

    def again(self) -> set[str]:
        """Make what is not current, and the tidy files; say which runs and scores were made anew."""
        before = self.records()
        jobs = Jobs(grid := self.grid())
        for (rule, _), job in jobs.jobs.items():
            getattr(self, rule)(grid, job.results)
        records = [path for path in grid.cost_records() if path.exists()]
        files = {name: Path(f"{name}.csv") for name in ("scores", "costs")}
        collect(grid.evaluations(), records, samples=Path("samples.parquet"), **files)
        after = self.records()
        assert self.status() == {}
        return {name for name in after if after[name] != before.get(name)}

    def records(self) -> dict[str, tuple]:
        """Of runs and scores: when the record was made, and of what."""
        found = {}
        for kind, name in (("runs", "run.json"), ("scores", "evaluation.json")):
            for path in sorted(Path("results/here", kind).rglob(name)):
                record = json.loads(path.read_text())
                found[f"{kind} {path.parents[1].name}"] = (record["cost"]["seconds"], record["identity"])
        return found

    def model(self, grid, results):
        for result in results:
            store_model(grid.models[result.model], result.record, ticket=result.ticket)

    def world(self, grid, results):
        for result in results:
            store_world(result.record, seed=grid.world_seed(None), options=grid.config["world"]["options"],
                        rows_only=False, ticket=result.ticket)  # fmt: skip

    def tokens(self, grid, results):
        for result in results:
            store_tokens(
                model=grid.model_record(result.model).parent, sections=grid.sections(*result.key), dataset=result.key[0],
                text=grid.config["text"], out=result.record.with_suffix(".safetensors"), name=result.model,
                ticket=result.ticket,
            )  # fmt: skip

    def losses(self, grid, results):
        for result in results:
            dataset, draw, label = result.key
            run = grid.run_of(result.model, label)
            base = grid.model_record(result.model).parent
            store_losses(
                weights=Weights(base, grid.run_record(run).parent if run else None), settings=grid.config["references"],
                tokens=grid.tokens(result.model, dataset, draw), out=result.record.with_suffix(".safetensors"),
                device="cpu", name=result.model, label=label, ticket=result.ticket,
            )  # fmt: skip

    def train(self, grid, results):
        common = {"references": grid.config["references"], "device": "cpu", "threads": 1}
        train_all(
            [
                Order.of(out=result.record.parent, ticket=vars(result.ticket), **grid.order(result.run), **common)
                for result in results
            ]
        )

    def evaluate(self, grid, results):
        evaluate_all(
            [result.record for result in results],
            [grid.all_methods[result.run.method].trains for result in results],
            [result.ticket for result in results],
            benchmarks=load_benchmarks(grid.config["benchmarks_file"], grid.config["benchmarks"]),
            settings=grid.evaluation, data_root=grid.benchmarks_data, device="cpu",
        )  # fmt: skip
