"""How long a job asks its scheduler for."""

from __future__ import annotations

import csv
import math
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

from sstoken.experiment.grid import Grid, Run
from sstoken.records.devices import is_gpu
from sstoken.records.documents import ConfigError

if TYPE_CHECKING:
    from sstoken.experiment.plan import Plan


STAGES = ("references", "train", "evaluate")


def throughput(grid: Grid) -> tuple[dict[str, float], str]:
    """FLOP/s of one GPU by stage, and where they come from: ``costs.csv`` of the experiment, or ``plan.flops_per_second``."""
    path = grid.root / "costs.csv"
    measured = defaultdict(list)
    if path.exists():
        with open(path) as file:
            for row in csv.DictReader(file):
                if row["stage"] in STAGES and is_gpu(row["device"]) and float(row["seconds"]) > 0:
                    measured[row["stage"]].append(float(row["flops"]) / float(row["seconds"]))
    given = grid.config["plan"]["flops_per_second"] or {}
    rates = {**given, **{stage: statistics.median(values) for stage, values in measured.items()}}
    rates = {stage: rate for stage, rate in rates.items() if rate > 0}
    kind = f"measured in {path}" if measured else "given by plan.flops_per_second" if given else "unknown"
    return rates, kind


def runtime(grid: Grid, stage: str, model: str, runs: list[Run], default: int) -> int:
    """Minutes that a job asks its scheduler for: twice the plan's estimate and half an hour more, at least one hour.

    Args:
        stage: "references" (``runs`` is not read), "train" or "evaluate". runs: those of the job.
        default: minutes where no throughput is known.
    """
    if grid.config["device"] == "cpu" or stage not in throughput(grid)[0]:
        return default
    try:
        plan = _plan_of(grid)
        if stage == "train":
            flops = sum(plan.run_flops(run) for run in runs)
        elif stage == "evaluate":
            flops = plan.evaluation(model).flops * len(runs)
        else:
            flops = max((plan.losses(model, dataset).flops for dataset, _ in plan.pairs(model)), default=0)
        hours = plan.job_hours(stage, model, flops)
    except ConfigError:  # sizes that are not known: `sstoken plan` says which
        return default
    return default if hours is None else max(60, math.ceil(120 * hours + 30))


_PLANS: dict[int, Plan] = {}


def _plan_of(grid: Grid) -> Plan:
    """One plan a grid: it takes seconds."""
    if id(grid) not in _PLANS:
        # imported here: whoever only reads the workflow must not pay for transformers
        from sstoken.experiment.plan import Plan

        _PLANS[id(grid)] = Plan(grid.config)
    return _PLANS[id(grid)]
