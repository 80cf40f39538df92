# What every stage shares: the checked configuration, the grid that follows from it, and the names of its files.
import re
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(workflow.basedir))

import sstoken
from sstoken.experiment.check import check, remember
from sstoken.experiment.config import read_config
from sstoken.experiment.grid import Grid
from sstoken.experiment.job_groups import evaluation_groups, training_groups
from sstoken.experiment.progress import Progress
from sstoken.experiment.runtime import runtime
from sstoken.records.devices import host_memory, visible_gpus
from sstoken.records.documents import ConfigError, located
from sstoken.report.facts import facts_of, table_options
from sstoken.selection.methods import MethodError

# scripts run in processes of their own: they find the package without its being installed
sstoken.show_to_subprocesses()
# every job but those of fetch.smk runs with the hub switched off
sstoken.switch_hub_off()


# what training waits for comes first, evaluations last: nothing waits for those, and they fill the cores to the end
EARLY, TRAINING = 2, 1


def any_of(known):
    return "|".join(map(re.escape, known)) or "(?!)"


# read here and not by Snakemake, which takes 1e-3 for text, a key's second value for its first, and an override for a block
try:
    CONFIG = read_config(
        workflow.config_settings.configfiles or workflow.configfiles, workflow.config_settings.config_args or []
    )
    GRID = Grid(CONFIG)
    check(GRID)
except (ConfigError, MethodError) as error:
    raise WorkflowError(str(error)) from None

ROOT = str(GRID.root)
GPUS = visible_gpus()
REPORT = [
    f"{ROOT}/{name}"
    for name in ("scores.csv", "samples.parquet", "costs.csv", "report/tables/main.md", "report/index.html")
]


wildcard_constraints:
    base="[a-z0-9-]+",
    model=any_of(GRID.models),
    method=any_of(GRID.all_methods),
    dataset=any_of(CONFIG["data"]),
    seed="[0-9]+",
    part="[0-9]+",


def say(line):
    if line:
        print(line, file=sys.stderr, flush=True)


def names(paths):
    return [str(path) for path in paths]


# where a run takes seconds, reading rows takes less than starting Python: a model's data sets share a job
DATASETS = GRID.datasets() if CONFIG["runs_in_one_job"] > 1 else ["{dataset}"]


def datasets(wildcards):
    return [name.format(**wildcards) for name in DATASETS]


def gpus(wildcards):
    """What a job asks the scheduler for; the profile says what kind of GPU and whose account."""
    return 0 if CONFIG["device"] == "cpu" else 1


def gpus_of_run(wildcards):
    return gpus(wildcards) * GRID.parallel(wildcards.model).gpus


def memory(wildcards):
    """Of the host, in MB: a model is loaded there before it moves to its GPU."""
    return host_memory(GRID.models[wildcards.model].size)


def memory_of_run(wildcards):
    return host_memory(GRID.models[wildcards.model].size, GRID.parallel(wildcards.model).gpus)


# a machine with GPUs and no scheduler: as many of them in use at a time as there are, each job on its own (sstoken.records.devices)
if GPUS and "gpu" not in workflow.global_resources and not workflow.non_local_exec:
    workflow.register_resource("gpu", len(GPUS))
