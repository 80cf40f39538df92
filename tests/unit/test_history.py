"""What a run remembers: the history that it is compared with, and what survives a kill."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from sstoken.selection.methods import load_method
from sstoken.training.record import STATE_FILE
from tests.conftest import ragged_tokens, tiny_adapter, tiny_model
from tests.trainers import adapter_of, largest_difference, trainer_for


def test_ema_history_follows_the_weights_and_starts_at_the_base(tmp_path):
    data = ragged_tokens(16)
    method = replace(load_method("self-modulated"), history="ema", history_decay=0.5)
    trainer = trainer_for(method, data, tmp_path, model=tiny_adapter(tiny_model(), random=False), signals={})
    before = adapter_of(trainer)
    snapshots = [before]

    class Watch(TrainerCallback):
        def on_step_end(self, *_, **__):
            snapshots.append(adapter_of(trainer))

    trainer.add_callback(Watch())
    trainer.train()
    expected = before
    for now in snapshots[1:]:
        expected = {name: 0.5 * expected[name] + 0.5 * now[name] for name in expected}
    assert largest_difference(trainer.history.weights, expected) < 1e-6
    assert trainer.state.log_history[0]["rel_kept"] == pytest.approx(0, abs=1e-6)
    assert trainer.state.log_history[2]["rel_kept"] != pytest.approx(0, abs=1e-4)


def test_a_checkpoint_history_is_the_runs_own_weights_of_the_last_multiple(tmp_path):
    data = ragged_tokens(20)
    method = replace(load_method("self-modulated"), history="checkpoint", history_steps=3)
    model = tiny_adapter(tiny_model(), random=False)
    trainer = trainer_for(method, data, tmp_path, model=model, signals={}, args={"max_steps": 7})
    weights, histories = [adapter_of(trainer)], []

    class Watch(TrainerCallback):
        def on_step_end(self, *_, **__):
            weights.append(adapter_of(trainer))
            histories.append({name: value.clone() for name, value in trainer.history.weights.items()})

    trainer.add_callback(Watch())
    trainer.train()
    assert len(histories) == 7
    for step, history in enumerate(histories, 1):
        assert largest_difference(history, weights[step // 3 * 3]) < 1e-6, step


class Stop(TrainerCallback):
    """Ends training the hard way after a step, as a kill would between two checkpoints."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("history", ["base", "ema", "checkpoint"])
def test_a_killed_run_resumes_to_the_same_adapter_record_and_log(history, tmp_path):
    data, method = (
        ragged_tokens(24),
        replace(load_method("sstoken"), history=history, history_decay=0.9, history_steps=3),
    )
    args = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}

    def make(folder):
        torch.manual_seed(0)
        return trainer_for(method, data, folder, model=tiny_adapter(tiny_model(), dropout=0.1), args=args)

    whole = make(tmp_path / "whole")
    whole.train()
    killed = make(tmp_path / "killed")
    killed.add_callback(Stop(5))
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    assert (tmp_path / "killed" / "checkpoint-4" / STATE_FILE).exists()
    resumed = make(tmp_path / "killed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "killed" / "checkpoint-4"))
    assert largest_difference(adapter_of(whole), adapter_of(resumed)) == 0
    for name, value in whole.record.items():
        assert torch.equal(value, resumed.record[name]), name
    assert whole.counted == resumed.counted
    spent = [float(load_file(tmp_path / "killed" / f"checkpoint-{step}" / STATE_FILE)["seconds"]) for step in (2, 4, 6)]
    assert 0 < spent[0] < spent[1] == resumed.seconds_before < spent[2]
    strip = [{k: v for k, v in row.items() if "loss" in k} for row in whole.state.log_history if "loss" in row]
    again = [{k: v for k, v in row.items() if "loss" in k} for row in resumed.state.log_history if "loss" in row]
    assert json.dumps(strip) == json.dumps(again)
