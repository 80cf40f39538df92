"""The world's base models, pre-trained by the workflow for a short time."""

import json

from sstoken.models.sources import weights_sha256


def test_a_short_pretraining_is_a_stage_like_any_other(workflow, root):
    changes = {"models": ["world-llama-small"], "methods": ["base"], "benchmarks": ["arc_easy"], "seeds": [0]}
    workflow.run(workflow.configuration("short", **changes, world={"pretrain_share": 0.02}))
    results = workflow.results("short")
    base = results / "bases" / "llama-small"
    rows = [json.loads(line) for line in (base / "pretrain.jsonl").read_text().splitlines()]
    assert rows[-1]["tokens"] <= 160_000
    assert json.loads((base / "base.json").read_text())["last_loss"] < 5.5  # untrained: 6.8
    assert weights_sha256(results / "models" / "world-llama-small") == weights_sha256(base)
    assert "pretrain" in (results / "costs.csv").read_text()
