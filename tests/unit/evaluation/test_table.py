"""The table of benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from sstoken.evaluation import load_benchmarks
from sstoken.records.documents import ConfigError

TABLE = Path(__file__).parents[3] / "sstoken" / "evaluation" / "benchmarks.tsv"
PAPER = [
    "winogrande",
    "arc_challenge",
    "arc_easy",
    "hellaswag",
    "logiqa",
    "mmlu",
    "truthfulqa_mc2",
    "triviaqa",
    "agieval",
    "tydiqa",
]


def test_the_papers_ten_are_there():
    rows = {b.name: b for b in load_benchmarks(TABLE)}
    assert set(PAPER) <= set(rows)
    assert {name: rows[name].shots for name in PAPER if rows[name].shots} == {"mmlu": 5, "tydiqa": 1}
    assert all(0 <= b.chance < 1 and b.column for b in rows.values())


def test_asked_for_order_is_kept():
    assert [b.name for b in load_benchmarks(TABLE, ["mmlu", "arc_easy"])] == ["mmlu", "arc_easy"]


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ConfigError, match=r"'helaswag'.*'hellaswag'.*Known: winogrande, "):
        load_benchmarks(TABLE, ["helaswag"])
