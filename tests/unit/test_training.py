"""The trainer: what is kept, what the loss is divided by, what is logged, what survives a kill."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback, TrainingArguments

from sstoken.dataset import SelectionDataset, fixed_mask, uniform_signal
from sstoken.methods import Method, load_method, load_methods
from sstoken.methods import sstoken as sstoken_method
from sstoken.references import compute_losses
from sstoken.selection import Scorer
from sstoken.training import STATE_FILE, SelectionTrainer
from tests.conftest import ragged_tokens, tiny_adapter, tiny_model

METHODS = [name for name, method in load_methods().items() if method.trains]


def signals_for(data, seed=1):
    """Every stored signal, random, but for the losses of the base that the tests need to be true."""
    total, generator = int(data.response_offset[-1]), torch.Generator().manual_seed(seed)
    names = ("base_loss", "reference_loss", "history_loss", "uniform")
    signals = {name: torch.rand(total, generator=generator) * 4 for name in names}
    return signals | {"truth": torch.randint(0, 3, (total,), generator=generator).to(torch.uint8)}


def trainer_for(method, data, folder, *, model=None, micro=4, accumulation=2, signals=None, **options):
    settings = {"max_steps": 3, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "save_strategy": "no"}
    settings |= options.pop("args", {})
    args = TrainingArguments(
        str(folder), per_device_train_batch_size=micro, gradient_accumulation_steps=accumulation, logging_steps=1,
        report_to="none", disable_tqdm=True, use_cpu=True, train_sampling_strategy="sequential", **settings,
    )  # fmt: skip
    method = load_method(method) if isinstance(method, str) else method
    model = model or tiny_adapter(tiny_model())
    dataset = SelectionDataset(data, signals_for(data) if signals is None else signals)
    return SelectionTrainer(model, args, method=method, train_dataset=dataset, chunk_size=8, **options)


def adapter_of(trainer):
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}


def largest_difference(one, other):
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize("name", METHODS)
def test_one_times_eight_equals_eight_times_one(name, tmp_path):
    data = ragged_tokens(24)
    adapters = []
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
    from dataclasses import replace

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
    from dataclasses import replace

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
        from sstoken.packed import packed_attention

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


def test_early_phase_ranks_by_attention_alone(tmp_path):
    from dataclasses import replace

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


def test_ema_history_follows_the_weights_and_starts_at_the_base(tmp_path):
    from dataclasses import replace

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
    assert largest_difference(trainer.history, expected) < 1e-6
    assert trainer.state.log_history[0]["rel_kept"] == pytest.approx(0, abs=1e-6)
    assert trainer.state.log_history[2]["rel_kept"] != pytest.approx(0, abs=1e-4)


def test_a_checkpoint_history_is_the_runs_own_weights_of_the_last_multiple(tmp_path):
    from dataclasses import replace

    data = ragged_tokens(20)
    method = replace(load_method("self-modulated"), history="checkpoint", history_steps=3)
    model = tiny_adapter(tiny_model(), random=False)
    trainer = trainer_for(method, data, tmp_path, model=model, signals={}, args={"max_steps": 7})
    weights, histories = [adapter_of(trainer)], []

    class Watch(TrainerCallback):
        def on_step_end(self, *_, **__):
            weights.append(adapter_of(trainer))
            histories.append({name: value.clone() for name, value in trainer.history.items()})

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
    from dataclasses import replace

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


@pytest.mark.parametrize("scope", ["sample", "dataset"])
def test_fixed_masks_keep_the_exact_count_in_their_scope(scope):
    from dataclasses import replace

    data = ragged_tokens(40)
    method = replace(load_method("tokencleaning-fixed"), scope=scope)
    keep = fixed_mask(method, SelectionDataset(data, signals_for(data)))
    counts = data.response_offset.diff().tolist()
    per_sample = [int(part.sum()) for part in keep.split(counts)]
    if scope == "sample":
        assert per_sample == [6 * n // 10 for n in counts]
    else:
        assert int(keep.sum()) == 6 * sum(counts) // 10
        assert per_sample != [6 * n // 10 for n in counts]


def test_oracle_keeps_just_the_clean_tokens():
    data = ragged_tokens(10)
    signals = signals_for(data)
    keep = fixed_mask(load_method("oracle"), SelectionDataset(data, signals))
    assert torch.equal(keep, signals["truth"] == 0)


def test_the_uniform_draw_has_a_seed_of_its_own():
    torch.manual_seed(1)
    first = uniform_signal(100, 7)
    torch.manual_seed(2)
    assert torch.equal(first, uniform_signal(100, 7))
    assert not torch.equal(first, uniform_signal(100, 8))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_and_keeps_its_share(name, tmp_path):
    data = ragged_tokens(24)
    trainer = trainer_for(name, data, tmp_path)
    trainer.train()
    method, keep = load_method(name), trainer.record["keep"]
    assert isinstance(method, Method)
    assert isinstance(method.scorer, Scorer)
    if method.scorer.keep_above is None:
        assert keep.float().mean().item() == pytest.approx(method.keep_ratio, abs=0.05)
    assert (trainer.record["step"] >= 0).all()
    assert trainer.record["score"].isfinite().all()
