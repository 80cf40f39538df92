"""One run on two ranks is the same run: masks, losses and adapters. Real processes over gloo."""

import json
import os
import socket
import subprocess
import sys

import pytest
from safetensors.torch import load_file

# scored at each step; a mask over the data set, known beforehand; divided by samples, of which 3 even out the ranks;
# compared with a base that the trainer measures; weights
METHODS = ["sstoken", "random", "eaft", "sstoken-with-means-of-samples", "sstoken-with-losses-of-its-own"]
RANKS = {"alone": 1, "ddp": 2, "fsdp": 2, "nodes": 2}
CASES = [(method, strategy) for method in METHODS for strategy in ("ddp", "fsdp", "nodes")]


def run(folder, root, strategy):
    for method in METHODS:
        (folder / method).mkdir(parents=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    if strategy == "nodes":  # two launchers that meet at a port, as on two machines
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meet = [
                "--nnodes=2",
                "--nproc-per-node=1",
                "--master-addr=127.0.0.1",
                f"--master-port={free.getsockname()[1]}",
            ]
        starts = [[*launcher, *meet, f"--node-rank={rank}"] for rank in (0, 1)]
    else:
        starts = [[*launcher, "--standalone", "--nproc-per-node=2"] if RANKS[strategy] > 1 else [sys.executable]]
    script = [str(root / "tests" / "ranks.py"), str(folder), strategy, *METHODS]
    running = [subprocess.Popen([*s, *script], env=environment, stderr=subprocess.PIPE, text=True) for s in starts]
    try:
        for process in running:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors[-4000:]
    finally:
        for process in running:
            process.kill()
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
    assert second["evaluation"] == pytest.approx(first["evaluation"], abs=1e-5)
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
