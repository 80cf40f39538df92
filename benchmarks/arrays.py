"""Selection over a whole data set in flat arrays: keeping the top 60 % of 10M tokens, and loading their losses."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.memory import Memory
from sstoken.selection import keep_top
from sstoken.training.reference_losses import ReferenceLosses

TOKENS, SAMPLE = 10_000_000, 250


def array_rows(threads: int, repeats: int = 7, seed: int = 0) -> list[dict]:
    """Rows like those of step.py; peak_memory_bytes is growth over what the process held before, its arrays included."""
    torch.set_num_threads(threads)
    score_1N = torch.rand(1, TOKENS, generator=torch.Generator().manual_seed(seed))
    mask_1N = torch.ones_like(score_1N, dtype=torch.bool)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "losses.safetensors"
        ReferenceLosses(score_1N[0], torch.arange(0, TOKENS + 1, SAMPLE), "tokens", "weights").save(path)
        tasks = {
            "keep-top-10M": lambda: keep_top(score_1N, mask_1N, 0.6, scope="dataset"),
            "load-losses-10M": lambda: ReferenceLosses.load(path).loss_R.sum(),  # the sum reads every page of the map
        }
        return [_row(case, task, threads, repeats) for case, task in tasks.items()]


def _row(case, task, threads, repeats):
    task()
    memory = Memory(cpu=True)
    memory.start()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - began)
    return {
        "device": memory.device_name(threads),
        "shape": f"{TOKENS} response tokens, {SAMPLE} a sample",
        "case": case,
        "seconds": statistics.median(seconds),
        "peak_memory_bytes": memory.peak()["growth"],
        "ratio_to_hf_full": None,
        "seconds_each": seconds,
    }
