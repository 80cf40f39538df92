# What every stage shares: the checked configuration, the grid that follows from it, and the names of its files.
import re
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(workflow.basedir))

import sstoken
from sstoken.config import ConfigError, check_config
from sstoken.grid import REFERENCE, Grid, Run
from sstoken.methods import MethodError

# scripts run in processes of their own: they find the package without its being installed
sstoken.show_to_subprocesses()


def any_of(known):
    return "|".join(map(re.escape, known))


try:
    CONFIG = check_config(config, workflow.configfiles)
    GRID = Grid(CONFIG)
except (ConfigError, MethodError) as error:
    raise WorkflowError(str(error)) from None

ROOT = str(GRID.root)
SEEDS = GRID.seeds
REPORT = [f"{ROOT}/{name}" for name in ("scores.csv", "samples.parquet", "costs.csv", "report/tables/main.md")]


# methods with a run for each seed, and those with one that all seeds share (the untrained base, the reference model)
SEEDED = [name for name, method in GRID.all_methods.items() if method.trains and name != REFERENCE]
SHARED = [name for name in GRID.all_methods if name not in SEEDED]


wildcard_constraints:
    model=any_of(GRID.models),
    method=any_of(GRID.all_methods),
    dataset=any_of(CONFIG["data"]),
    seed="[0-9]+",
    part="[0-9]+",


def names(paths):
    return [str(path) for path in paths]


def seeds_of_job(wildcards):
    """The seeds that one job stands for: its own, or all of them where they share a process."""
    return [int(wildcards.seed)] if hasattr(wildcards, "seed") else SEEDS


def per_seed(pattern):
    """A job's output: one file for its seed, or one for every seed where they share a process."""
    return expand(pattern, seed=SEEDS, allow_missing=True) if CONFIG["seeds_in_one_job"] else pattern


def job_log(stage):
    """The log and benchmark file of a job that may stand for one seed or for all."""
    return f"{ROOT}/logs/{stage}/{{model}}/{{method}}{'' if CONFIG['seeds_in_one_job'] else '.seed{seed}'}"


def gpus(wildcards):
    """What a job asks the scheduler for; the profile says what kind of GPU and whose account."""
    return 0 if CONFIG["device"] == "cpu" else 1
