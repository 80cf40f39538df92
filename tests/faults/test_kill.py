"""A run killed at any moment and started again ends with the same table as one that was left alone."""

import json
import os
import random
import signal
import subprocess
import time

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.flow import Workflow

SMALL = {
    "models": ["tiny-llama"],
    "methods": ["base", "full", "tokencleaning-self-evolving", "sstoken"],
    "benchmarks": ["arc_easy", "tydiqa"],
    "seeds": [0],
}


def kill_after(flow, config, seconds, *, whole_group):
    """SIGKILL, no clean-up: the workflow with its jobs, or Snakemake alone so that its jobs are orphaned."""
    process = subprocess.Popen(
        flow.command(config, "--nolock"), cwd=flow.folder, env=flow.environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    if process.poll() is not None:
        return True
    if whole_group:
        # a job's shell leads no group of its own: all die at once
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    return False


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    flow = Workflow(tmp_path_factory.mktemp("alone"))
    start = time.monotonic()
    flow.run(flow.configuration("kill", **SMALL))
    flow.seconds = time.monotonic() - start
    return flow


def test_killed_again_and_again_the_table_is_the_same(alone, workflow):
    config = workflow.configuration("kill", **SMALL)
    draw = random.Random(0)
    for number in range(4):
        if kill_after(workflow, config, draw.uniform(0.15, 0.45) * alone.seconds, whole_group=number % 2 == 0):
            break
    workflow.run(config, "--nolock")
    one, other = alone.results("kill"), workflow.results("kill")
    for name in ("scores.csv", "report/tables/main.csv", "report/tables/main.md"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    pd.testing.assert_frame_equal(pd.read_parquet(one / "samples.parquet"), pd.read_parquet(other / "samples.parquet"))
    for path in sorted(one.glob("runs/**/*.safetensors")):
        mine, theirs = load_file(path), load_file(other / path.relative_to(one))
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert mine[key].equal(theirs[key]) or mine[key].isnan().any(), (path, key)


def test_a_job_killed_between_checkpoints_resumes_and_does_not_start_over(alone, workflow):
    """The trainer's log says from which step a resumed run went on."""
    config = workflow.configuration("kill", **SMALL | {"methods": ["full"], "benchmarks": ["arc_easy"]})
    folder = workflow.results("kill") / "checkpoints" / "tiny-llama" / "full" / "seed0"
    process = subprocess.Popen(
        workflow.command(config, "--nolock"), cwd=workflow.folder, env=workflow.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    for _ in range(6000):
        if list(folder.rglob("selection_state.safetensors")):
            break
        time.sleep(0.03)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = sorted(path.parent.name for path in folder.rglob("selection_state.safetensors"))
    if (workflow.results("kill") / "runs" / "tiny-llama" / "full" / "seed0" / "run.json").exists():
        pytest.skip("the run was over before the kill arrived")
    assert kept
    for path in folder.rglob("selection_state.safetensors"):  # as if an hour had gone by until the kill
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        save_file(load_file(path) | {"seconds": torch.tensor(3600.0, dtype=torch.float64)}, path, metadata=metadata)
    workflow.run(config, "--nolock")
    record = workflow.results("kill") / "runs" / "tiny-llama" / "full" / "seed0" / "run.json"
    assert 3600 < json.loads(record.read_text())["cost"]["seconds"] < 3700
    log = "".join(path.read_text() for path in (workflow.results("kill") / "logs" / "train").glob("*.log"))
    assert f"resuming from {kept[-1]}" in log
    adapter = "runs/tiny-llama/full/seed0/adapter_model.safetensors"
    one, other = (load_file(flow.results("kill") / adapter) for flow in (alone, workflow))
    assert all(one[key].equal(other[key]) for key in one)


def test_a_bad_row_in_the_data_stops_the_workflow_with_its_place(workflow):
    rows = workflow.folder / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n')
    data = {"train": {"sources": [str(rows)]}}
    text = workflow.run(workflow.configuration("bad", **SMALL | {"methods": ["full"], "data": data}), ok=False)
    assert f"{rows}:2: in none of the known forms: messages (messages); prompt-completion (prompt, completion)" in text


def test_a_run_too_short_to_train_anything_says_so(workflow):
    data = {"train": {"sources": ["{world}/train.jsonl"], "limit": 8}}
    changes = SMALL | {"methods": ["full"], "benchmarks": ["arc_easy"], "data": data}
    text = workflow.run(workflow.configuration("short", **changes), ok=False)
    assert "all 1 steps are warm-up, at learning rate 0" in text


def test_a_reference_file_of_other_data_stops_the_run(alone, workflow):
    import shutil

    config = workflow.configuration("kill", **SMALL)
    shutil.copytree(alone.results("kill"), workflow.results("kill"))
    base = workflow.results("kill") / "references" / "tiny-llama" / "train.seed0" / "base.safetensors"
    part = workflow.results("kill") / "runs" / "tiny-llama" / "sstoken"
    shutil.rmtree(part)
    from dataclasses import replace

    from sstoken.training.reference_losses import ReferenceLosses

    replace(ReferenceLosses.load(base), tokens_sha256="0" * 64).save(base)
    text = workflow.run(config, "--until", "train", ok=False)
    assert "these losses belong to other tokens" in text
