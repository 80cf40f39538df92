"""The trainer: what is kept, what the loss is divided by, what is logged."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback

from sstoken.selection import Scorer
from sstoken.selection.methods import Method, load_method, load_methods
from sstoken.selection.methods import sstoken as sstoken_method
from sstoken.training.reference_losses import compute_losses
from tests.conftest import ragged_tokens, tiny_adapter, tiny_model
from tests.trainers import adapter_of, largest_difference, signals_for, trainer_for

METHODS = {name: method for name, method in load_methods().items() if method.trains}


@pytest.mark.parametrize("name", METHODS)
def test_one_times_eight_equals_eight_times_one(name, tmp_path):
    data = ragged_tokens(24)
    adapters = []
    if METHODS[name].pools:
        pytest.skip("what it trains depends on the micro-batch")
    for micro, accumulation, options in [(8, 1, {}), (1, 8, {}), (4, 2, {"dropped_loss_every": 0})]:
        trainer = trainer_for(name, data, tmp_path, micro=micro, accumulation=accumulation, **options)
        trainer.train()
        adapters.append(adapter_of(trainer))
    assert largest_difference(adapters[0], adapters[1]) < 1e-4
    assert largest_difference(adapters[0], adapters[2]) < 1e-4


def naive_loss(model, data, keep_R, normalisation):
    """The objective by hand: a sample at a time, full logits, cross-entropy over kept tokens."""
    sums, counts = [], []
    for index in range(len(data)):
        sample = data.sample(index)
        ids, mask = sample["input_ids"].long(), sample["response_mask"]
        loss = cross_entropy(model(input_ids=ids[None]).logits[0, :-1], ids[1:], reduction="none")[mask[1:]]
        keep = keep_R[data.response_offset[index] : data.response_offset[index + 1]]
        sums.append((loss * keep).sum())
        counts.append(keep.sum())
    if normalisation == "samples":
        return sum(s / c.clamp_min(1) for s, c in zip(sums, counts, strict=True)) / len(data)
    return sum(sums) / sum(counts)


@pytest.mark.parametrize("normalisation", ["tokens", "samples"])
@pytest.mark.parametrize("name", ["full", "tokencleaning-fixed", "sstoken", "semantic-aware"])
def test_gradient_is_that_of_the_mean_over_kept_tokens(name, normalisation, tmp_path):
    data = ragged_tokens(8)
    method = replace(load_method(name), normalisation=normalisation)
    trainer = trainer_for(
        method, data, tmp_path, micro=8, accumulation=1, args={"max_steps": 1, "learning_rate": 1e-30}
    )
    found = {}

    class Grab(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **_):
            found.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    trainer.args.max_grad_norm = 0
    trainer.add_callback(Grab())
    trainer.train()
    model = tiny_adapter(tiny_model())
    naive_loss(model, data, trainer.record["keep"], normalisation).backward()
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, atol=1e-5, rtol=1e-4)


def test_micro_batch_normalisation_averages_the_means_of_micro_batches(tmp_path):
    """The release's objective: unlike the mean over all kept tokens, it depends on how samples are grouped."""
    data = ragged_tokens(8)
    method = replace(load_method("tokencleaning-fixed"), normalisation="micro-batch")
    trainer = trainer_for(method, data, tmp_path, args={"max_steps": 1, "learning_rate": 1e-30, "max_grad_norm": 0})
    found = {}

    class Grab(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **_):
            found.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    trainer.add_callback(Grab())
    trainer.train()
    model, keep, half = tiny_adapter(tiny_model()), trainer.record["keep"], int(data.response_offset[4])
    parts = [(data.slice(0, 4), keep[:half]), (data.slice(4, 8), keep[half:])]
    (sum(naive_loss(model, part, mask, "tokens") for part, mask in parts) / 2).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_prompt_padding_and_dropped_tokens_get_exactly_zero_gradient(tmp_path):
    """Change a dropped token's target, or a prompt token's place as a target: the gradient must not move at all."""
    data = ragged_tokens(4, prompt=(3, 9), response=(6, 12))
    trainer = trainer_for("tokencleaning-fixed", data, tmp_path, micro=4, accumulation=1)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    hidden = {}

    def gradient_at_states(batch):
        from sstoken.training.packing import packed_attention

        lm = trainer.model.get_base_model()
        handle = lm.model.norm.register_forward_hook(lambda m, i, out: (out.retain_grad(), hidden.update(state=out))[0])
        with packed_attention(trainer.model):
            trainer.model.train()
            trainer.compute_loss(
                trainer.model, batch, num_items_in_batch=torch.tensor(sum(batch["kept_counts"]))
            ).backward()
        handle.remove()
        return hidden["state"].grad[0].abs().sum(-1)

    gradient_R = gradient_at_states(batch)  # the states before response tokens are the only ones that come so far
    assert torch.equal(gradient_R > 0, batch["keep"])


def test_self_modulated_keeps_what_fell_most_since_its_history(tmp_path):
    """REL is history minus current: with the sign turned round the other tokens would be kept."""
    data = ragged_tokens(8, response=(10, 20))
    model = tiny_adapter(tiny_model())
    current = compute_losses(model, data)
    history = (
        current
        + torch.linspace(-1, 1, len(current))[torch.randperm(len(current), generator=torch.Generator().manual_seed(0))]
    )
    trainer = trainer_for(
        "self-modulated", data, tmp_path, model=model, micro=8, accumulation=1, signals={"history_loss": history},
        args={"max_steps": 1},
    )  # fmt: skip
    trainer.train()
    for index in range(len(data)):
        place = slice(int(data.response_offset[index]), int(data.response_offset[index + 1]))
        rel, keep = (history - current)[place], trainer.record["keep"][place]
        assert keep.sum() == -(-6 * len(rel) // 10)
        assert rel[keep].min() > rel[~keep].max()


def test_every_module_is_in_training_but_for_the_pass_over_the_history(tmp_path):
    model = tiny_adapter(tiny_model()).eval()
    method = replace(load_method("self-modulated"), history="ema", history_decay=0.5)
    trainer = trainer_for(method, ragged_tokens(8), tmp_path, model=model, accumulation=1)
    modes = []
    model.get_base_model().register_forward_pre_hook(lambda *_: modes.append({m.training for m in model.modules()}))
    trainer.train()
    assert modes == [{False}, {True}] * 3 or modes == [{True}, {False}] * 3
    assert not {"train", "parameters"} & set(vars(model)), "nothing of the model's own is replaced"
    model.eval()
    assert not any(module.training for module in model.modules())


def test_early_phase_ranks_by_attention_alone(tmp_path):
    data = ragged_tokens(8, response=(8, 12))
    keeps = {}
    for name, options in {
        "early": {"loss_weight": 0.5, "attention_only_samples": 4},
        "attention": {"loss_weight": 0.0},
        "both": {"loss_weight": 0.5},
    }.items():
        method = replace(load_method("sstoken"), scorer=sstoken_method.Config(**options))
        trainer = trainer_for(
            method, data, tmp_path, micro=4, accumulation=1, args={"max_steps": 2, "learning_rate": 1e-30}
        )
        trainer.train()
        keeps[name] = trainer.record["keep"]
    half = int(data.response_offset[4])
    assert torch.equal(keeps["early"][:half], keeps["attention"][:half])
    assert torch.equal(keeps["early"][half:], keeps["both"][half:])
    assert not torch.equal(keeps["attention"], keeps["both"])


def test_log_means_are_those_of_the_record(tmp_path):
    data = ragged_tokens(8)
    trainer = trainer_for("rho1", data, tmp_path, micro=2, accumulation=4, args={"max_steps": 1})
    losses = compute_losses(trainer.model, data)
    trainer.train()
    row, keep = trainer.state.log_history[0], trainer.record["keep"]
    assert row["kept_share"] == pytest.approx(keep.float().mean().item())
    assert row["loss_kept"] == pytest.approx(losses[keep].mean().item(), abs=1e-5)
    assert row["loss_response"] == pytest.approx(losses.mean().item(), abs=1e-5)
    excess = losses - trainer.train_dataset.signals["reference_loss"]
    assert row["excess_loss_kept"] == pytest.approx(excess[keep].mean().item(), abs=1e-5)
    assert row["excess_loss_dropped"] == pytest.approx(excess[~keep].mean().item(), abs=1e-5)
    torch.testing.assert_close(trainer.record["score"], excess, atol=1e-5, rtol=1e-5)
    assert set(trainer.record["step"].tolist()) == {0}
    assert trainer.counted["kept_tokens"] == int(keep.sum())


def test_the_log_shows_rels_range_beside_what_rounding_makes_of_it(tmp_path):
    data = ragged_tokens(8)
    trainer = trainer_for("self-modulated", data, tmp_path, micro=4, accumulation=2, args={"max_steps": 1})
    losses = compute_losses(trainer.model, data)
    trainer.train()
    rel = trainer.train_dataset.signals["history_loss"] - losses
    parts = rel.split(data.response_offset.diff().tolist())
    row = trainer.state.log_history[0]
    assert row["rel_range"] == pytest.approx(sum(float(p.max() - p.min()) for p in parts) / 8, rel=1e-4)
    assert row["rel_floor"] == pytest.approx(2**-23 * float(losses.mean()), rel=1e-4)  # float32's step


def test_a_diverged_run_says_so(tmp_path):
    data = ragged_tokens(8)
    signals = signals_for(data) | {"history_loss": torch.full((int(data.response_offset[-1]),), float("nan"))}
    with pytest.raises(FloatingPointError, match="step 1: rel"):
        trainer_for("sstoken", data, tmp_path, signals=signals).train()


def test_a_missing_signal_is_named(tmp_path):
    with pytest.raises(ValueError, match="rho1 needs reference_loss"):
        trainer_for("rho1", ragged_tokens(4), tmp_path, signals={})
    with pytest.raises(ValueError, match="does not train"):
        trainer_for("base", ragged_tokens(4), tmp_path)


def test_full_fine_tuning_trains_the_output_projection_too(tmp_path):
    model = tiny_model().train()
    before = model.lm_head.weight.detach().clone()
    trainer = trainer_for("sstoken", ragged_tokens(8), tmp_path, model=model, args={"max_steps": 1})
    trainer.train()
    assert not torch.equal(before, model.lm_head.weight)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_and_keeps_its_share(name, tmp_path):
    data = ragged_tokens(24)
    trainer = trainer_for(name, data, tmp_path)
    trainer.train()
    method, keep = load_method(name), trainer.record["keep"]
    assert isinstance(method, Method)
    assert isinstance(method.scorer, Scorer)
    if method.chooses:
        assert (trainer.record["step"] >= 0).sum() == 6  # of 24, one of each four
        return
    if method.scorer.keep_above is None:
        assert keep.float().mean().item() == pytest.approx(method.keep_ratio, abs=0.05)
    assert (trainer.record["step"] >= 0).all()
    assert trainer.record["score"].isfinite().all()
