"""GPUs are handed out one job each. The bookkeeping only: names, locks and processes are real, GPUs are not needed."""

import os
import subprocess
import sys

import pytest

from sstoken.records.devices import host_memory, own_gpus, visible_gpus

HOLD = (
    "import sys; from pathlib import Path; from sstoken.records.devices import own_gpus\n"
    "with own_gpus(int(sys.argv[1]), folder=Path(sys.argv[2]), poll=0.05) as mine:\n"
    "    print(','.join(mine), flush=True); sys.stdin.readline()"
)


@pytest.fixture
def four(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b,GPU-c,GPU-d")


@pytest.fixture
def hold(tmp_path, root):
    started = []

    def start(count):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(count), str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=os.environ | {"PYTHONPATH": str(root)},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def names(process):
    return process.stdout.readline().strip().split(",")


def test_jobs_at_a_time_have_gpus_of_their_own(four, hold, tmp_path):
    first, second = names(hold(1)), names(hold(2))
    with own_gpus(1, folder=tmp_path) as third:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == third[0]
        assert sorted([*first, *second, *third]) == ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]
    assert visible_gpus() == ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]


def test_a_job_waits_for_one_that_ends_or_is_killed(four, hold):
    running = [hold(2), hold(1)]
    held = {name for process in running for name in names(process)}
    waiting = hold(2)
    running[0].kill()
    found = names(waiting)
    assert len(found) == 2 and len(held & set(found)) >= 1


def test_without_a_choice_nothing_changes(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with own_gpus(1, folder=tmp_path) as mine:
        assert mine == ["3"] and os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    with own_gpus(0, folder=tmp_path) as mine:
        assert mine == ["3"]
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


@pytest.mark.parametrize(("options", "limit"), [((), 2), (("--resources", "gpu=1"), 1)])
def test_snakemake_starts_no_more_jobs_than_there_are_gpus(workflow, monkeypatch, options, limit):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    path = workflow.configuration("gpus", models=["tiny-llama"], methods=["full"])
    text = workflow.run(path, "--until", "world", *options, "--quiet", "reason")
    assert f'Provided resources: gpu=Resource("gpu", {limit})' in text


def test_memory_grows_with_the_model_and_the_processes_that_load_it():
    assert host_memory("tiny") == host_memory("135M") == 16000
    assert host_memory("8B") == 8000 + 24000
    assert host_memory("14B", 4) == 8000 + 4 * 42000


@pytest.mark.parametrize(("value", "names"), [("-1", []), ("", []), ("0,1", ["0", "1"]), ("1,-1,0", ["1"])])
def test_a_gpu_that_does_not_exist_is_none(monkeypatch, value, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == names
