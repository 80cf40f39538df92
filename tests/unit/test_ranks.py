"""One run on two ranks is the same run: masks, losses and adapters. Real processes over gloo."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

METHODS = ["sstoken", "random", "eaft"]  # scored at each step; a mask known beforehand; weights
RANKS = {"alone": 1, "ddp": 2, "fsdp": 2}
CASES = [(method, strategy) for method in METHODS for strategy in ("ddp", "fsdp")]


def run(folder, root, strategy):
    for method in METHODS:
        (folder / method).mkdir(parents=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS[strategy]}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *(launcher if RANKS[strategy] > 1 else []), str(root / "tests" / "ranks.py")]
    done = subprocess.run(
        [*command, str(folder), strategy, *METHODS], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory, root):
    base = tmp_path_factory.mktemp("ranks")
    done = {strategy: run(base / strategy, root, strategy) for strategy in RANKS}
    return {(method, strategy): folder / method for method in METHODS for strategy, folder in done.items()}


@pytest.mark.parametrize(("method", "strategy"), CASES)
def test_two_ranks_train_what_one_does(folders, method, strategy):
    alone, ranks = folders[method, "alone"], folders[method, strategy]
    one, two = (load_file(folder / "record.safetensors") for folder in (alone, ranks))
    assert one["keep"].any() and one["keep"].all() == (method == "eaft") and (one["step"] >= 0).all()
    assert one["keep"].equal(two["keep"]) and one["step"].equal(two["step"])
    assert (one["score"] - two["score"]).abs().max() < 1e-4
    first, second = (json.loads((folder / "log.json").read_text()) for folder in (alone, ranks))
    assert len(first["loss"]) == 5
    assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)
    assert first["counted"] == second["counted"]
    own, other = (load_file(folder / "adapter.safetensors") for folder in (alone, ranks))
    assert own.keys() == other.keys() and len(own) > 0
    assert max((own[name] - other[name]).abs().max().item() for name in own) < 1e-4
    assert max(value.abs().max().item() for value in own.values()) > 1e-2


@pytest.mark.parametrize(("method", "strategy"), CASES)
def test_a_checkpoint_holds_the_record_of_every_rank(folders, method, strategy):
    one, two = (
        load_file(folders[method, how] / "checkpoints" / "checkpoint-3" / "selection_state.safetensors")
        for how in ("alone", strategy)
    )
    assert (one["record.step"] >= 0).sum() == 24
    assert one["record.keep"].equal(two["record.keep"]) and one["counted"].equal(two["counted"])
