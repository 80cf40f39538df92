"""A cluster that takes jobs away: a real SLURM of one node."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.campaign.runs import SMALL, Campaign, different
from tests.flow import Workflow
from tests.slurm import Cluster, Slurm, missing

LONG = {"epochs": 20, "checkpoint_every": 10}
"""Of the training: some 200 steps, so that there is something to take away."""


def preemption(campaign: Campaign) -> None:
    """One fault in a run, then the same bytes as without it, and no second command; see `CASES`."""
    if why := missing():
        raise SystemExit(f"preemption: {why}")
    with tempfile.TemporaryDirectory() as folder:
        slurm = Slurm(Path(folder), kill_wait=5)
        try:
            # through SLURM too, whose profile gives jobs more threads
            alone = long_run(Cluster(campaign.flow("preemption-alone").folder, slurm))
            alone.run(alone.folder / "kill.yaml")
            for what, (rule, strike) in CASES.items():
                if campaign.over():
                    return
                flow = long_run(Cluster(campaign.flow("preemption").folder, slurm))
                campaign.count(what).add(*trial(flow, rule, strike, alone))
                campaign.keep()
        finally:
            slurm.stop()


def long_run(flow: Workflow) -> Workflow:
    small = SMALL | {"methods": ["full", "sstoken"], "device": "cpu", "runs_in_one_job": 1}
    path = flow.configuration("kill", **small)
    document = yaml.safe_load(path.read_text())
    document["training"] |= LONG
    path.write_text(yaml.safe_dump(document))
    return flow


def trial(flow: Cluster, rule: str, strike: Callable, alone: Workflow) -> tuple[str | None, float]:
    """(what is wrong or None, seconds from the fault to the end)."""
    log = flow.folder / "out.txt"
    with open(log, "w") as out:
        workflow = subprocess.Popen(
            flow.command(flow.folder / "kill.yaml"), cwd=flow.folder, env=flow.environment(), stdout=out, stderr=out
        )
        try:
            job = None
            while job is None and workflow.poll() is None:
                begun = rule != "train" or list(flow.results("kill").glob("checkpoints/**/selection_state.safetensors"))
                running = [j for j, state, comment in flow.slurm.jobs() if state == "RUNNING" and rule in comment]
                job = running[0] if running and begun else None
                time.sleep(0.2)
            if job is None:
                return f"the run was over before a fault: {log.read_text()[-800:]}", 0.0
            start = time.monotonic()
            strike(flow.slurm, job)
            code = workflow.wait(1200)
        finally:
            workflow.kill()
    seconds = time.monotonic() - start
    if code:
        return f"exit status {code}: {log.read_text()[-1500:]}", seconds
    states = {state for number, state, _ in flow.slurm.jobs() if number == job}
    # but for a job of a node that was away, which SLURM runs again under its number
    if "COMPLETED" in states and strike is not rebooted:
        return f"the fault came too late: the job ended by itself ({states})", seconds
    if rule == "train" and not any("resuming from checkpoint-" in path.read_text() for path in logs(flow)):
        return f"no training went on from a checkpoint (the job's state: {states})", seconds
    return different(alone.results("kill"), flow.results("kill")), seconds


def logs(flow: Workflow) -> list[Path]:
    return list(flow.results("kill").glob("logs/train/*.log"))


def terminated(slurm: Slurm, job: str) -> None:
    slurm.run("scancel", "--signal=TERM", "--full", job)


def out_of_time(slurm: Slurm, job: str) -> None:
    """The limit of a running job, set to what it has used: SLURM ends it at its next look, half a minute later at most.

    The job stands still until then: it would else be over.
    """
    slurm.halt(job)
    slurm.run("scontrol", "update", f"JobId={job}", "TimeLimit=00:00:01")


def rebooted(slurm: Slurm, job: str) -> None:
    slurm.reboot()


CASES = {
    "SLURM: SIGTERM to a training job": ("train", terminated),
    "SLURM: SIGTERM to an evaluation job": ("evaluate", terminated),
    "SLURM: a training job reaches its time limit": ("train", out_of_time),
    "SLURM: an evaluation job reaches its time limit": ("evaluate", out_of_time),
    "SLURM: the node goes down with a training job, and comes back": ("train", rebooted),
}
