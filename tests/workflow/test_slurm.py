"""The workflow through a real SLURM: the same table as on this machine alone, and a cancelled job goes on where it was."""

import subprocess
import time

import pytest
import yaml

from tests.flow import same_rows
from tests.slurm import Cluster, Slurm, missing

CHANGES = {
    "models": ["tiny-llama"],
    "methods": ["base", "sstoken"],
    "seeds": [0],
    "device": "cpu",
    "runs_in_one_job": 1,
}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if reason := missing():
        pytest.skip(reason)
    running = Slurm(tmp_path_factory.mktemp("slurm"))
    yield running
    running.stop()


def test_the_profile_names_rules_that_exist(root, workflow):
    profile = yaml.safe_load((root / "workflow" / "profiles" / "slurm" / "config.yaml").read_text())
    rules = workflow.run("config/paper.yaml", "--list-rules").split()
    named = {*profile["set-threads"], *profile["groups"]}
    assert named and named <= set(rules)


@pytest.fixture(scope="module")
def cluster(slurm, tmp_path_factory):
    """A small grid that went through SLURM."""
    flow = Cluster(tmp_path_factory.mktemp("there"), slurm)
    flow.run(flow.configuration("same", **CHANGES))
    return flow


def test_slurm_makes_the_scores_that_this_machine_makes(cluster, ci):
    same_rows(cluster.results("same"), ci.results("ci"), CHANGES)
    assert (cluster.results("same") / "report" / "tables" / "main.csv").exists()
    ran = [comment for _, state, comment in cluster.slurm.jobs() if state == "COMPLETED"]
    assert any("train" in comment for comment in ran) and any("evaluate" in comment for comment in ran)


def test_a_cancelled_job_is_submitted_again_and_resumes(cluster):
    """A training run more in the folder of that grid, whose model and tokens are there."""
    path = cluster.configuration("same", **CHANGES | {"methods": ["full"]})
    document = yaml.safe_load(path.read_text())
    document["training"] |= {"epochs": 4, "checkpoint_every": 10}
    path.write_text(yaml.safe_dump(document))
    results, log = cluster.results("same"), cluster.folder / "out.txt"
    with open(log, "w") as out:
        workflow = subprocess.Popen(
            cluster.command(path, "--until", "train"),
            cwd=cluster.folder, env=cluster.environment(), stdout=out, stderr=out,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 300
            while not list(results.glob("checkpoints/**/selection_state.safetensors")):
                assert workflow.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
                time.sleep(0.2)
            running = [job for job, state, comment in cluster.slurm.jobs() if state == "RUNNING" and "train" in comment]
            assert len(running) == 1, cluster.slurm.jobs()
            cluster.slurm.halt(running[0])  # it would else be over
            cluster.slurm.run("scancel", running[0])
            assert workflow.wait(900) == 0, log.read_text()[-4000:]
        finally:
            workflow.kill()
    assert [state for job, state, _ in cluster.slurm.jobs() if job == running[0]] == ["CANCELLED"]
    assert "resuming from checkpoint-" in next(results.glob("logs/train/*full*.log")).read_text()
    steps = next(results.glob("runs/*/full/**/log.jsonl")).read_text().splitlines()
    assert len(steps) == 4 * 80 // 8
