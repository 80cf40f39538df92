"""Fifty steps of two methods: a change that should change no number leaves their losses as they were."""

import json
from dataclasses import replace

import pytest
import torch

from sstoken.selection.methods import load_method
from tests.conftest import ragged_tokens, tiny_adapter, tiny_model
from tests.trainers import trainer_for

# scored at each step, against an EMA of its own weights; a mask that is known before the first step
METHODS = {
    "sstoken": {"history": "ema", "history_decay": 0.9, "normalisation": "samples"},
    "tokencleaning-fixed": {"normalisation": "tokens"},
}


def trajectory(name, folder):
    torch.manual_seed(0)
    method = replace(load_method(name), **METHODS[name])
    model = tiny_adapter(tiny_model(), dropout=0.1)
    trainer = trainer_for(method, ragged_tokens(400), folder, model=model, args={"max_steps": 50, "seed": 3})
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("name", METHODS)
def test_the_losses_are_those_that_are_stored(name, root, tmp_path):
    stored = json.loads((root / "tests" / "golden" / "loss_trajectory.json").read_text())[name]
    assert len(set(stored)) == 50
    assert trajectory(name, tmp_path) == pytest.approx(stored, abs=1e-6)
