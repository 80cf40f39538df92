"""Costs of a job are its own."""

import time
from types import SimpleNamespace

import numpy as np

from sstoken.evaluation.vllm import Counting
from sstoken.records import provenance
from sstoken.records.provenance import COST_COLUMNS, Cost, measured


def fill(megabytes):
    return np.ones(megabytes * 2**20, dtype=np.uint8).sum()


def peak_of(megabytes) -> int:
    cost = Cost("train")
    with measured(cost, "cpu"):
        fill(megabytes)
        time.sleep(0.1)
    return cost.peak_memory_bytes


def test_a_run_after_a_larger_one_has_its_own_peak():
    small, large, again = peak_of(5), peak_of(300), peak_of(5)
    assert large - small > 250 * 2**20
    assert abs(again - small) < 60 * 2**20


def test_where_the_mark_cannot_be_reset_memory_is_looked_at(monkeypatch):
    real = provenance.Path.write_text

    def refuse(path, text, **options):
        if str(path) == "/proc/self/clear_refs":
            raise PermissionError(path)
        return real(path, text, **options)

    monkeypatch.setattr(provenance.Path, "write_text", refuse)
    cost = Cost("train")
    with measured(cost, "cpu"):
        held = np.ones(300 * 2**20, dtype=np.uint8)
        time.sleep(0.2)
        del held
    assert cost.peak_memory_bytes - peak_of(5) > 200 * 2**20


def test_seconds_of_the_cpu_are_not_those_of_the_wall():
    cost = Cost("train")
    with measured(cost, "cpu"):
        time.sleep(0.3)
    assert cost.seconds >= 0.3 and cost.cpu_seconds < 0.2
    assert COST_COLUMNS.index("cpu_seconds") == COST_COLUMNS.index("seconds") + 1


def test_tokens_that_vllm_reads_and_writes_are_counted():
    model = SimpleNamespace()
    outputs = [
        SimpleNamespace(prompt_token_ids=[1] * 7, outputs=[SimpleNamespace(token_ids=[1, 2, 3])]),
        SimpleNamespace(prompt_token_ids=[1] * 5, outputs=[SimpleNamespace(token_ids=[1])]),
    ]
    engine = Counting(SimpleNamespace(generate=lambda *args, **options: outputs, other=3), model)
    assert engine.generate([], use_tqdm=False) is outputs and engine.other == 3
    assert model.tokens_elsewhere == 7 + 2 + 5
