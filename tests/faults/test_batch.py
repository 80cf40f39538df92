"""Several runs in one process: one that fails takes nothing from the others."""

import shutil
from dataclasses import asdict

import pytest

from sstoken.experiment.config import load_config
from sstoken.experiment.grid import Grid
from sstoken.experiment.layout import Run
from sstoken.experiment.tickets import Tickets
from sstoken.jobs.train import Order, train_all


def test_runs_of_a_failed_job_are_not_trained_again(ci, root, tmp_path, monkeypatch):
    grid = Grid(load_config(root / "config" / "ci.yaml"))
    monkeypatch.chdir(tmp_path)
    for part in ("models", "tokens", "references"):
        shutil.copytree(ci.results("ci") / part / "tiny-llama", grid.root / part / "tiny-llama")
    runs = [Run("tiny-llama", method, 0) for method in ("full", "self-modulated", "random")]
    common = {"references": grid.config["references"], "device": "cpu", "threads": 1}
    results, orders = Tickets(grid).results, []
    for run in runs:
        record = grid.run_record(run)
        orders.append(Order.of(out=record.parent, ticket=asdict(results[record].ticket), **grid.order(run), **common))
    lost = grid.losses("tiny-llama", "train", "base", 0)
    lost.rename(kept := lost.with_name("elsewhere"))
    with pytest.raises(RuntimeError, match="1 of 3 failed, the others are kept:\ntiny-llama, self-modulated, seed0"):
        train_all(orders)
    assert [grid.run_record(run).exists() for run in runs] == [True, False, True]
    adapter = [grid.run_record(run).with_name("adapter_model.safetensors") for run in runs]
    time, content = adapter[0].stat().st_mtime_ns, adapter[2].read_bytes()
    shutil.rmtree(adapter[2].parent)  # as a person may do
    kept.rename(lost)
    train_all(orders)
    assert all(grid.run_record(run).exists() for run in runs)
    assert adapter[0].stat().st_mtime_ns == time and adapter[2].read_bytes() == content
    assert not any(order.checkpoints.exists() for order in orders)
