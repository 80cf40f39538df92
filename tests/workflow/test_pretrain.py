"""The world's base models, pre-trained by the workflow for a short time."""

import json

from sstoken.models.load import load_tokenizer
from sstoken.models.sources import weights_sha256
from sstoken.world.facts import build_world
from sstoken.world.tokenizer import build_tokenizer


def test_a_short_pretraining_is_a_stage_like_any_other(workflow, root):
    changes = {"models": ["world-llama-small"], "methods": ["base"], "benchmarks": ["arc_easy"], "seeds": [0]}
    world = {"pretrain_share": 0.02, "options": {"facts": 1}}  # names that the shipped bases do not know
    workflow.run(workflow.configuration("short", **changes, world=world))
    results = workflow.results("short")
    knows = [load_tokenizer(results / "models" / "world-llama-small"), build_tokenizer(1), build_tokenizer()]
    assert knows[0].get_vocab() == knows[1].get_vocab() != knows[2].get_vocab()
    asked = (results / "data" / "world" / "benchmarks" / "arc_easy" / "test.jsonl").read_text()
    assert any(name in asked for name in set(build_world(1).people["test"]) - set(build_world().people["test"]))
    base = results / "bases" / "llama-small"
    rows = [json.loads(line) for line in (base / "pretrain.jsonl").read_text().splitlines()]
    assert rows[-1]["tokens"] <= 160_000
    assert json.loads((base / "base.json").read_text())["last_loss"] < 5.5  # untrained: 6.8
    assert weights_sha256(results / "models" / "world-llama-small") == weights_sha256(base)
    assert "pretrain" in (results / "costs.csv").read_text()
