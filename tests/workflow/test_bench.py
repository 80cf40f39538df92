"""The step benchmark, run for real on a model of the embedded world: every kind of case, both precisions."""

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("options", "cases"),
    [
        ([], ["hf-full", "all-attentions", "full", "random", "sstoken"]),
        (["--mixed"], ["hf-full", "last-layer-recompute", "full"]),
    ],
)
def test_every_case_is_measured_beside_both_full_data_steps(root, tmp_path, options, cases):
    out = tmp_path / "step.json"
    command = [
        sys.executable, str(root / "benchmarks" / "step.py"), "--model", str(root / "sstoken/world/weights/llama-small"),
        "--samples", "5+7", "6+9", "--repeats", "2", "--warm-up", "1", "--cpu", "--out", str(out), "--cases", *cases,
    ]  # fmt: skip
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = {row["case"]: row for row in json.loads(out.read_text())}
    assert sorted(rows) == sorted(cases)
    for name, row in rows.items():
        assert row["seconds"] > 0 and row["peak_memory_bytes"] > 0
        for against in ("ratio_to_hf_full", "ratio_to_own_full"):
            assert len(row[f"{against}_each"]) == 2, name
    assert rows["hf-full"]["ratio_to_hf_full"] == rows["full"]["ratio_to_own_full"] == 1
    assert rows["hf-full"]["selection_share"] == 0
    assert "sstoken" not in rows or rows["sstoken"]["selection_share"] > 0
