"""How a step grows: with sequence length at a fixed number of tokens, with the vocabulary, and with the batch.

The model is a small Llama with random weights.  A cost that goes as ``x ** e`` has exponent e: the slope of a straight line
through the logarithms.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import numpy as np
from transformers import LlamaConfig

from benchmarks.turns import measure, rows_of

TOKENS = 8192
AXES = {
    "sequence length": (256, 1024, 4096, 8192),
    "vocabulary": (32_000, 64_000, 128_000, 152_000),
    "batch": (1, 2, 4, 8),
}


def _point(axis: str, value: int) -> tuple[int, list[tuple[int, int]]]:
    """(vocabulary, samples); a quarter of each sample is prompt."""
    length = value if axis == "sequence length" else 256
    count = {"sequence length": TOKENS // length, "vocabulary": 4, "batch": value}[axis]
    return (value if axis == "vocabulary" else 32_000), [(length // 4, length - length // 4)] * count


def growth_rows(options, cases: list[str]) -> tuple[list[dict], list[dict]]:
    """(rows like those of step.py, exponents: axis, case and the exponents of seconds and of the memory's growth)."""
    rows, exponents = [], []
    for axis, values in AXES.items():
        found = [_measure(axis, value, options, cases) for value in values]
        rows += [row for point in found for row in point]
        for case in cases:
            own = [next(row for row in point if row["case"] == case) for point in found]
            exponents.append(
                {
                    "axis": axis,
                    "values": values,
                    "case": case,
                    "seconds": _slope(values, [row["seconds"] for row in own]),
                    "cpu_seconds": _slope(values, [row["cpu_seconds"] for row in own]),
                    "peak_growth_bytes": _slope(values, [row["peak_growth_bytes"] for row in own]),
                }
            )
    return rows, exponents


def _measure(axis, value, options, cases):
    vocabulary, samples = _point(axis, value)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        point = copy.copy(options)
        point.model, point.random, point.samples, point.repeats = Path(folder), True, samples, 3
        measured = measure(cases, point)
    shape = f"Llama 4 x 256, vocabulary {vocabulary}, {len(samples)} x {sum(samples[0])}; over {axis}"
    return rows_of(measured, shape)


def _slope(x, y):
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def growth_table(exponents: list[dict]) -> str:
    lines = [f"{'exponent over':18} {'case':22} {'seconds':>8} {'CPU s':>8} {'memory growth':>14}"]
    for row in exponents:
        cells = f"{row['seconds']:8.2f} {row['cpu_seconds']:8.2f} {row['peak_growth_bytes']:14.2f}"
        lines.append(f"{row['axis']:18} {row['case']:22} {cells}")
    return "\n".join(lines)
