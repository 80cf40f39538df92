"""What SelectionTrainer says of Trainer's: each thing works, or is refused in one sentence."""

import importlib.util
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, TrainerCallback

from sstoken import SelectionTrainer, load_method
from sstoken.training.dataset import SelectionDataset
from sstoken.training.record import STATE_FILE, CheckpointError
from sstoken.training.refusals import Unsupported, check_parallel
from tests.conftest import ragged_tokens, tiny_adapter, tiny_model
from tests.trainers import adapter_of, arguments, largest_difference, signals_for, trainer_for

EMA = replace(load_method("sstoken"), history="ema", history_decay=0.5)


def plain(samples):
    """Padded batches as a plain Trainer reads them."""
    ids = [s["input_ids"].long() for s in samples]
    labels = [i.masked_fill(~s["response_mask"], -100) for i, s in zip(ids, samples, strict=True)]
    padded = {"input_ids": pad_sequence(ids, batch_first=True), "labels": pad_sequence(labels, True, -100)}
    return padded | {"attention_mask": pad_sequence([torch.ones_like(i) for i in ids], batch_first=True)}


def plain_trainer(folder, model, rows, **options):
    args = arguments(folder, remove_unused_columns=False, per_device_eval_batch_size=3)
    return Trainer(model, args, train_dataset=rows, eval_dataset=rows, data_collator=plain, **options)


def test_evaluate_gives_a_plain_trainers_loss(tmp_path):
    held_out = SelectionDataset(ragged_tokens(10, seed=5, turns=2))
    model, args = tiny_adapter(tiny_model()), {"per_device_eval_batch_size": 3}
    trainer = trainer_for("sstoken", ragged_tokens(8), tmp_path, model=model, eval_dataset=held_out, args=args)
    expected = plain_trainer(tmp_path, model, held_out).evaluate()["eval_loss"]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-5)
    assert trainer.evaluate(held_out.data)["eval_loss"] == pytest.approx(expected, abs=1e-5)
    two = trainer.evaluate({"one": held_out, "other": held_out.data})
    assert two["eval_one_loss"] == two["eval_other_loss"] == pytest.approx(expected, abs=1e-5)
    assert model.get_base_model().config._attn_implementation == "sdpa"


def test_predict_gives_a_plain_trainers_logits_labels_and_metrics(tmp_path):
    rows = SelectionDataset(ragged_tokens(7, seed=5))
    model, args = tiny_adapter(tiny_model()), {"per_device_eval_batch_size": 3}

    def metrics(found):
        kept = found.label_ids[:, 1:] != -100
        return {"right": float((found.predictions.argmax(-1)[:, :-1] == found.label_ids[:, 1:])[kept].mean())}

    trainer = trainer_for("rho1", ragged_tokens(8), tmp_path, model=model, args=args, compute_metrics=metrics)
    found, expected = trainer.predict(rows), plain_trainer(tmp_path, model, rows, compute_metrics=metrics).predict(rows)
    assert np.array_equal(found.label_ids, expected.label_ids)
    inside = np.arange(found.predictions.shape[1]) < rows.data.lengths.numpy()[:, None]
    assert np.allclose(found.predictions[inside], expected.predictions[inside], atol=1e-4)
    assert found.metrics["test_loss"] == pytest.approx(expected.metrics["test_loss"], abs=1e-5)
    assert found.metrics["test_right"] == expected.metrics["test_right"]


def test_evaluating_on_the_way_changes_nothing_and_the_best_model_comes_back(tmp_path):
    held_out = SelectionDataset(ragged_tokens(6, seed=5))
    every = {"strategy": "steps", "steps": 2}
    args = {"max_steps": 6, "learning_rate": 1.0, "load_best_model_at_end": True, "metric_for_best_model": "loss"}
    args |= {f"{what}_{key}": value for what in ("eval", "save") for key, value in every.items()}
    without = trainer_for(
        EMA, ragged_tokens(24), tmp_path / "without", signals={}, args={"max_steps": 6, "learning_rate": 1.0}
    )
    without.train()
    trainer = trainer_for(EMA, ragged_tokens(24), tmp_path / "with", signals={}, args=args, eval_dataset=held_out)
    trainer.train()
    losses = {row["step"]: row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row}
    assert list(losses) == [2, 4, 6]
    assert all(torch.equal(without.record[n], v) for n, v in trainer.record.items())
    best = min(losses, key=losses.get)
    assert best < 6, "the test needs a run that gets worse"
    kept = load_file(tmp_path / "with" / f"checkpoint-{best}" / "adapter_model.safetensors")
    own = {name.replace(".default", ""): value for name, value in adapter_of(trainer).items()}
    assert largest_difference(kept, own) == 0
    assert trainer.evaluate()["eval_loss"] == pytest.approx(losses[best], abs=1e-6)


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == 5:
            raise KeyboardInterrupt


def test_resuming_with_true_brings_the_selections_state_back(tmp_path):
    args = {"max_steps": 8, "save_strategy": "steps", "save_steps": 2, "train_sampling_strategy": "random"}
    args |= {"learning_rate": 0.1}

    def make(folder):
        torch.manual_seed(0)
        return trainer_for(EMA, ragged_tokens(24), folder, model=tiny_adapter(tiny_model(), 0.1), signals={}, args=args)

    whole = make(tmp_path / "whole")
    whole.train()
    killed = make(tmp_path / "killed")
    killed.add_callback(Stop())
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed = make(tmp_path / "killed")
    resumed.train(resume_from_checkpoint=True)
    assert largest_difference(adapter_of(whole), adapter_of(resumed)) == 0
    assert largest_difference(whole.history.weights, resumed.history.weights) == 0
    assert all(torch.equal(whole.record[n], v) for n, v in resumed.record.items())


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    args = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}

    def make(method=EMA, data=None, folder=tmp_path):
        return trainer_for(method, data or ragged_tokens(24), folder, signals={}, args=args)

    with pytest.raises(ValueError, match="no checkpoint"):
        make(folder=tmp_path / "empty").train(resume_from_checkpoint=True)
    make().train()
    with pytest.raises(CheckpointError, match="other rows"):
        make(data=ragged_tokens(24, seed=1)).train(resume_from_checkpoint=True)
    with pytest.raises(CheckpointError, match="ema"):
        make(replace(EMA, history_decay=0.9)).train(resume_from_checkpoint=True)
    (tmp_path / "checkpoint-2" / STATE_FILE).unlink()
    with pytest.raises(CheckpointError, match="cut short"):
        make().train(resume_from_checkpoint=True)


def test_samples_of_like_length_can_be_grouped(tmp_path):
    data = ragged_tokens(64)
    rows = list(SelectionDataset(data))
    assert len(rows) == 64 and torch.equal(rows[-1]["input_ids"], SelectionDataset(data)[-1]["input_ids"])
    args = {"train_sampling_strategy": "group_by_length", "num_train_epochs": 1, "max_steps": -1}
    trainer = trainer_for("sstoken", data, tmp_path, args=args)
    trainer.train()
    assert (trainer.record["step"] >= 0).all()
    together = [data.lengths[trainer.record["step"] == step].float() for step in range(8)]
    apart = [data.lengths[step * 8 : step * 8 + 8].float() for step in range(8)]
    assert sum(lengths.std() for lengths in together) < 0.7 * sum(lengths.std() for lengths in apart)


def test_the_order_is_trainers_and_each_epoch_has_its_own(tmp_path):
    data = ragged_tokens(24)
    args = {"num_train_epochs": 2, "max_steps": -1, "train_sampling_strategy": "random"}
    trainer = trainer_for("sstoken", data, tmp_path, args=args)
    orders, add = [], trainer._record.add

    def watch(batch, *rest, **options):
        orders.extend(batch["position_B"].tolist())
        add(batch, *rest, **options)

    trainer._record.add = watch
    trainer.train()
    first, second = orders[:24], orders[24:]
    assert sorted(first) == sorted(second) == list(range(24)) and first != second and first != sorted(first)
    assert trainer.counted["response_tokens"] == 2 * int(data.response_mask.sum())
    assert set(trainer.record["step"].tolist()) == {3, 4, 5}, "the record is of the last time that a sample was seen"


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_the_log_goes_where_it_is_reported_to(package, tmp_path, monkeypatch):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    trainer_for("sstoken", ragged_tokens(8), tmp_path, args={"report_to": package, "max_steps": 1}).train()
    written = [p for p in tmp_path.rglob("*") if p.is_file() and ("tfevents" in p.name or p.suffix == ".wandb")]
    assert any(b"kept_share" in p.read_bytes() for p in written)


def test_push_to_hub_is_left_alone(tmp_path, monkeypatch):
    pushed = []
    monkeypatch.setattr(Trainer, "init_hf_repo", lambda self, **_: None)
    monkeypatch.setattr(Trainer, "_push_from_checkpoint", lambda self, folder: pushed.append(folder))
    args = {"push_to_hub": True, "save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    trainer_for("sstoken", ragged_tokens(8), tmp_path, args=args).train()
    assert [folder.rsplit("-", 1)[1] for folder in pushed] == ["1", "2"]


REFUSED = {
    "label_smoothing_factor": 0.1,
    "torch_compile": True,
    "neftune_noise_alpha": 5.0,
    "use_liger_kernel": True,
    "bf16_full_eval": True,
    "auto_find_batch_size": True,
    "label_names": ["labels"],
    "include_for_metrics": ["inputs"],
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_argument_that_would_be_ignored_is_refused(name, tmp_path):
    args = arguments(tmp_path)
    setattr(args, name, REFUSED[name])
    with pytest.raises(Unsupported, match=f"(?s)^[^\n]*{name}[^\n]*$"):
        SelectionTrainer(
            tiny_adapter(tiny_model()),
            args,
            method=load_method("full"),
            train_dataset=SelectionDataset(ragged_tokens(4)),
        )


@pytest.mark.parametrize(
    ("name", "value"), [("compute_loss_func", max), ("data_collator", plain), ("model_init", tiny_model)]
)
def test_an_option_that_would_be_ignored_is_refused(name, value, tmp_path):
    with pytest.raises(Unsupported, match=name):
        trainer_for("full", ragged_tokens(4), tmp_path, **{name: value})


def test_a_compiled_model_is_refused(tmp_path):
    with pytest.raises(Unsupported, match="compiled"):
        trainer_for("full", ragged_tokens(4), tmp_path, model=torch.compile(tiny_model()))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"is_deepspeed_enabled": True}, "deepspeed"),
        ({"is_fsdp_enabled": True}, "shard_frozen"),
        ({"parallelism_config": SimpleNamespace(total_size=4, dp_replicate_size=2)}, "tensor, context or sequence"),
        ({"n_gpu": 2}, "torchrun --nproc-per-node=2"),
    ],
)
def test_a_way_of_running_in_parallel_that_is_not_supported_is_refused(state, message, tmp_path):
    """These cannot be had on this machine: the check reads what Trainer would say under them."""
    trainer = trainer_for("full", ragged_tokens(4), tmp_path)
    for name, value in state.items():
        if name == "n_gpu":
            trainer.args._n_gpu = value
        elif name == "parallelism_config":
            trainer.accelerator.state.parallelism_config = value
        else:
            setattr(trainer, name, value)
    try:
        with pytest.raises(Unsupported, match=message):
            check_parallel(trainer)
    finally:
        trainer.accelerator.state.parallelism_config = None


def test_a_run_whose_loss_is_not_finite_ends_with_step_samples_and_rate(tmp_path):
    data = ragged_tokens(24)

    class Break(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **_):
            if state.global_step == 1:
                model.get_base_model().model.norm.weight.data.fill_(float("nan"))

    for args in ({"logging_steps": 1}, {"logging_strategy": "no"}, {"logging_steps": 100}):
        trainer = trainer_for("sstoken", data, tmp_path)
        for name, value in args.items():
            setattr(trainer.args, name, value)
        trainer.add_callback(Break())
        message = "step 2: the loss of sample sample-8, sample-9, sample-10, sample-11, sample-12 and 3 more.*rate 0.01"
        with pytest.raises(FloatingPointError, match=message):
            trainer.train()


def test_a_diverged_run_leaves_no_checkpoint(tmp_path):
    args = {"save_strategy": "steps", "save_steps": 2, "logging_strategy": "no"}
    trainer = trainer_for("sstoken", ragged_tokens(24), tmp_path, args=args)
    trainer.model.get_base_model().model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 1"):
        trainer.train()
    assert not list(tmp_path.rglob(STATE_FILE))


def test_an_infinite_gradient_norm_ends_a_run_unless_a_scaler_skips_its_step(tmp_path):
    def run(scaler):
        trainer = trainer_for("full", ragged_tokens(8), tmp_path, args={"max_steps": 2})
        trainer.accelerator.scaler = scaler
        trainer._clip_grad_norm = lambda model: torch.tensor(float("inf"))
        trainer.train()
        return trainer

    with pytest.raises(FloatingPointError, match="step 1: grad_norm is not finite"):
        run(None)
    trainer = run(torch.amp.GradScaler("cpu", enabled=False))
    assert [row["grad_norm"] for row in trainer.state.log_history if "grad_norm" in row] == [float("inf")] * 2
    assert json.dumps(trainer.state.log_history)


def test_signals_that_are_given_are_not_measured_again(tmp_path):
    data = ragged_tokens(8)
    signals = signals_for(data)
    trainer = trainer_for("sstoken", data, tmp_path, signals=signals)
    trainer.train()
    assert trainer.train_dataset.signals["history_loss"] is signals["history_loss"]
