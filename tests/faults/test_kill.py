"""A run killed or damaged at any moment and started again ends as one that was left alone: a draw of the campaign."""

import json
import os
import signal
import subprocess
import time
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sstoken.training.reference_losses import ReferenceLosses
from tests.campaign.kills import kills
from tests.campaign.memory import can_limit, memory
from tests.campaign.runs import SMALL, Campaign
from tests.campaign.storage import damage


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return Campaign(tmp_path_factory.mktemp("campaign"), seed=0, minutes=60)


@pytest.fixture
def alone(campaign):
    return campaign.alone


def survived(campaign, counts):
    assert counts and not [fault for row in counts for fault in row.failures]
    assert sum(row.lost for row in counts) == 0, "what was finished before a kill is not made again"


def test_killed_again_and_again_the_results_are_the_same(campaign):
    before = dict(campaign.counts)
    kills(campaign, 2, ("snakemake", "write"))
    survived(campaign, [row for what, row in campaign.counts.items() if what not in before])


def test_damaged_files_are_named_and_made_again_as_they_were(campaign):
    before = dict(campaign.counts)
    damage(campaign, 2)
    survived(campaign, [row for what, row in campaign.counts.items() if what not in before])


@pytest.mark.skipif(not can_limit(), reason="no control groups of version 1 that this user may make")
def test_a_job_that_is_killed_for_want_of_memory_is_named_and_made_again(campaign):
    before = dict(campaign.counts)
    memory(campaign, ("train",))
    survived(campaign, [row for what, row in campaign.counts.items() if what not in before])


def test_a_job_killed_between_checkpoints_resumes_and_does_not_start_over(alone, workflow):
    """The trainer's log says from which step a resumed run went on."""
    config = workflow.configuration("kill", **SMALL | {"methods": ["full"], "benchmarks": ["arc_easy"]})
    folder = workflow.results("kill") / "checkpoints" / "tiny-llama" / "full" / "seed0"
    process = subprocess.Popen(
        workflow.command(config), cwd=workflow.folder, env=workflow.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    for _ in range(30000):
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
    workflow.run(config)
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
    end = text[text.index("job failed; all else is kept, and the same command goes on:") :]  # said once more
    assert "- train tiny-llama: full, seed 0 (results/short/logs/train/tiny-llama.full." in end
    assert "all 1 steps are warm-up, at learning rate 0" in end


def test_a_reference_file_of_other_data_is_not_read(campaign):
    flow = campaign.copy("other-losses")
    base = flow.results("kill") / "references" / "tiny-llama" / "train.seed0" / "base.safetensors"
    content = load_file(base)
    replace(ReferenceLosses.load(base), tokens_sha256="0" * 64).save(base)
    fault, _, text = campaign.judge(flow, remove=False)
    assert fault is None and f"{base.relative_to(flow.folder)} was cut, or edited by hand: made again" in text
    assert load_file(base)["loss"].equal(content["loss"])
