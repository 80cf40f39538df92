# What every stage shares: the checked configuration, the grid that follows from it, and the names of its files.
import re
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(workflow.basedir))

import sstoken
from sstoken.experiment.audited import audit_entries, audit_inputs, audit_losses
from sstoken.experiment.check import PASSED, check, remember
from sstoken.experiment.config import read_config
from sstoken.experiment.grid import Grid
from sstoken.experiment.layout import Run
from sstoken.experiment.own import own_scorers
from sstoken.experiment.runtime import runtime
from sstoken.experiment.warm import use_warm_jobs
from sstoken.jobs.warm import LIBRARIES
from sstoken.records.devices import host_memory, visible_gpus
from sstoken.records.documents import ConfigError, located
from sstoken.report.facts import facts_of, table_options
from sstoken.selection.methods import MethodError

# scripts run in processes of their own: they find the package without its being installed
sstoken.show_to_subprocesses()
# a run is what the configuration says, not what a shell has set for another program
if left_out := sstoken.drop_settings_of_the_environment():
    print(f"not used here, since they change numbers: {', '.join(left_out)}", file=sys.stderr)
# every job but those of fetch.smk runs with the hub switched off
sstoken.switch_hub_off()


def any_of(known):
    return "|".join(map(re.escape, known)) or "(?!)"


def faults_of_scorers(grid):
    """Of one's own, tried on made-up signals before the first job."""
    if not (own := own_scorers(grid.all_methods.values())):
        return []
    from sstoken.training.scorer_trial import faults_of  # which takes seconds to load

    return faults_of(own)


# read here and not by Snakemake, which takes 1e-3 for text, a key's second value for its first, and an override for a block
try:
    CONFIG = read_config(
        workflow.config_settings.configfiles or workflow.configfiles, workflow.config_settings.config_args or []
    )
    GRID = Grid(CONFIG)
    if workflow.is_main_process and CONFIG not in PASSED:
        check(GRID)
    if workflow.is_main_process and (faults := faults_of_scorers(GRID)):
        raise ConfigError("\n".join(faults))
except (ConfigError, MethodError) as error:
    raise WorkflowError(str(error)) from None

ROOT = str(GRID.root)
GPUS = visible_gpus()
REPORT = [
    f"{ROOT}/{name}"
    for name in ("scores.csv", "samples.parquet", "costs.csv", "report/tables/main.md", "report/index.html")
]


wildcard_constraints:
    job="[^/]+",
    model=any_of(GRID.models),


include: "jobs.smk"


def gpus(wildcards):
    """What a job asks the scheduler for; the profile says what kind of GPU and whose account."""
    return 0 if CONFIG["device"] == "cpu" else 1


def gpus_of_run(wildcards):
    return gpus(wildcards) * GRID.parallel(order("train", "model")(wildcards)).gpus


def minutes(rule, stage, default):
    """What a job asks for, more at each attempt: of the plan, where the throughput is known."""

    def of_job(wildcards, attempt):
        runs = [Run(**result["run"]) for result in order(rule, "results")(wildcards) if result["run"]]
        return attempt * runtime(GRID, stage, order(rule, "model")(wildcards), runs, default)

    return of_job


def memory(rule):
    """Of the host, in MB: a model is loaded there before it moves to its GPU."""

    def of_job(wildcards):
        model = order(rule, "model")(wildcards)
        return host_memory(GRID.models[model].size, GRID.parallel(model).gpus if rule == "train" else 1)

    return of_job


# imports are most of a small job; a real model's hours do without
if workflow.is_main_process and not GPUS and not workflow.non_local_exec:
    use_warm_jobs(LIBRARIES)


# a machine with GPUs and no scheduler: as many of them in use at a time as there are, each job on its own (sstoken.records.devices)
if GPUS and "gpu" not in workflow.global_resources and not workflow.non_local_exec:
    workflow.register_resource("gpu", len(GPUS))
