"""Rows chosen before the step: which are taken, what is trained, what a checkpoint remembers."""

from dataclasses import replace

import pytest
import torch

from sstoken.selection import Rows
from sstoken.selection.methods import load_method, scorers
from sstoken.selection.methods.uds import projection
from sstoken.training.reference_losses import compute_losses
from tests.conftest import ragged_tokens, tiny_model
from tests.trainers import adapter_of, largest_difference, signals_for, trainer_for


def config(name, **options):
    return scorers()[name](**options)


def with_(name, **options):
    method = load_method(name)
    return replace(method, scorer=replace(method.scorer, **options))


def chosen(trainer):
    return [i for i, step in enumerate(trainer.record["step"].tolist()) if step >= 0]


@pytest.mark.parametrize("name", ["random-rows", "maxloss", "uds"])
def test_one_row_of_four_is_trained_and_the_others_are_not_touched(name, tmp_path):
    data = ragged_tokens(24)
    trainer = trainer_for(name, data, tmp_path, micro=8, accumulation=1)
    trainer.train()
    taken = chosen(trainer)
    assert [row // 4 for row in taken] == list(range(6))
    spans = [slice(*data.response_offset[i : i + 2].tolist()) for i in range(24)]
    assert all(trainer.record["keep"][spans[i]].all().item() == (i in taken) for i in range(24))
    assert trainer.counted["response_tokens"] == sum(len(trainer.record["keep"][spans[i]]) for i in taken)
    assert trainer.counted["candidate_tokens"] == (0 if name == "random-rows" else len(data.input_ids))


def test_groups_do_not_depend_on_the_micro_batch(tmp_path):
    """What is chosen from, and divided by, is the group's: accumulation changes nothing while groups fit micro-batches."""
    data = ragged_tokens(16)
    runs = []
    for micro, accumulation in [(8, 1), (4, 2)]:
        trainer = trainer_for("maxloss", data, tmp_path, micro=micro, accumulation=accumulation, args={"max_steps": 2})
        trainer.train()
        runs.append(trainer)
    assert chosen(runs[0]) == chosen(runs[1])
    assert largest_difference(adapter_of(runs[0]), adapter_of(runs[1])) < 1e-4


def test_maxloss_takes_the_row_of_highest_mean_loss(tmp_path):
    data = ragged_tokens(8)
    trainer = trainer_for("maxloss", data, tmp_path, micro=8, accumulation=1, args={"max_steps": 1})
    losses = compute_losses(trainer.model, data)
    means = torch.tensor([part.mean() for part in losses.split(data.response_offset.diff().tolist())])
    trainer.train()
    assert chosen(trainer) == [int(means[:4].argmax()), 4 + int(means[4:].argmax())]


@pytest.mark.parametrize("name", ["random-rows", "maxloss", "uds"])
def test_taking_every_row_is_full_data_training(name, tmp_path):
    data = ragged_tokens(16)
    full = trainer_for("full-per-sample", data, tmp_path)
    full.train()
    rows = trainer_for(with_(name, candidates=4, take=4), data, tmp_path)
    rows.train()
    assert chosen(rows) == list(range(16))
    assert largest_difference(adapter_of(full), adapter_of(rows)) == 0


def test_a_smaller_last_group_gives_its_share(tmp_path):
    method, once = with_("random-rows", candidates=4, take=2), {"max_steps": 1}
    trainer = trainer_for(method, ragged_tokens(7), tmp_path, micro=7, accumulation=1, args=once)
    trainer.train()
    assert len([row for row in chosen(trainer) if row < 4]) == 2
    assert len([row for row in chosen(trainer) if row >= 4]) == 2


def test_random_rows_follow_the_seed_and_change_from_group_to_group(tmp_path):
    data, runs = ragged_tokens(32), []
    for seed in (0, 0, 1):
        trainer = trainer_for("random-rows", data, tmp_path, micro=8, args={"seed": seed, "max_steps": 2})
        trainer.train()
        runs.append([row % 4 for row in chosen(trainer)])
    assert runs[0] == runs[1] != runs[2]
    assert len(set(runs[0])) > 1


def naive_projection(logits_TV, seed, length, kept_length, kept_vocabulary):
    """Signs, FFT, real part, chosen entries, along the vocabulary and then along time, of logits padded at the end."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(size, kept):
        sign = torch.randint(0, 2, (size,), generator=generator) * 2.0 - 1.0
        return sign, torch.randint(0, size, (kept,), generator=generator)

    vocabulary = logits_TV.shape[1]
    sign, rows = drawn(vocabulary, kept_vocabulary)
    narrow = torch.fft.fft(logits_TV * sign, dim=1).real[:, rows] * (vocabulary / kept_vocabulary) ** 0.5
    sign, rows = drawn(length, kept_length)
    padded = torch.zeros(length, kept_vocabulary)
    padded[: len(narrow)] = narrow
    both = torch.fft.fft(padded * sign[:, None], dim=0).real[rows] * (length / kept_length) ** 0.5
    return both.flatten()


def test_uds_without_logits_is_uds_with_logits():
    torch.manual_seed(0)
    scorer = config("uds", length=40, memory_rows=3)
    weight, memory = torch.randn(97, 16), scorer.start(7)
    buffer = []
    for turn in range(6):
        hidden = tuple(torch.randn(int(n), 16) for n in torch.randint(2, 40, (4,)))
        found = scorer.choose(Rows(4, hidden=hidden, weight_VD=weight), 2, memory).tolist()
        logits = [h @ weight.T for h in hidden]
        utility = [torch.linalg.svdvals(a).sum() for a in logits]
        places = [naive_projection(a, 7, 40, 8, 128) for a in logits]
        distance = [sum((z - old).norm() for old in buffer) / max(len(buffer), 1) for z in places]
        total = [u + 1.5e-3 * d for u, d in zip(utility, distance, strict=True)]
        expected = sorted(range(4), key=lambda b: -total[b])[:2]
        assert found == expected, turn
        buffer = (buffer + [places[b] for b in expected])[-3:]
        torch.testing.assert_close(memory["buffer"], torch.stack(buffer), atol=0.05, rtol=1e-4)


def test_a_trained_head_is_looked_at_again():
    scorer, cache = config("uds", length=8), {}
    weight, hidden = torch.randn(30, 4), (torch.randn(5, 4), torch.randn(5, 4))
    memory = scorer.start(0)
    scorer.choose(Rows(2, hidden=hidden, weight_VD=weight, cache=cache), 1, memory)
    first = cache["found"][0]
    scorer.choose(Rows(2, hidden=hidden, weight_VD=weight, cache=cache), 1, memory)
    assert cache["found"][0] is first
    weight.mul_(2)
    scorer.choose(Rows(2, hidden=hidden, weight_VD=weight, cache=cache), 1, memory)
    torch.testing.assert_close(cache["found"][0].abs(), 2 * first.abs())


def test_the_projection_is_the_transforms():
    found = projection(12, 5, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    sign = torch.randint(0, 2, (12,), generator=generator) * 2.0 - 1.0
    rows = torch.randint(0, 12, (5,), generator=generator)
    value = torch.randn(12)
    torch.testing.assert_close(found @ value, torch.fft.fft(sign * value).real[rows] * (12 / 5) ** 0.5)


def test_a_row_longer_than_the_projection_is_an_error():
    with pytest.raises(ValueError, match=r"set parameters\.length"):
        config("uds", length=3).choose(
            Rows(1, hidden=(torch.randn(5, 4),), weight_VD=torch.randn(9, 4)),
            1,
            {"seed": 0, "buffer": torch.empty(0, 1024)},
        )


def test_a_resumed_run_chooses_as_an_undisturbed_one(tmp_path):
    data = ragged_tokens(32)
    saving = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = trainer_for("uds", data, tmp_path / "whole", micro=4, args=saving)
    whole.train()
    again = trainer_for("uds", data, tmp_path / "again", micro=4, args=saving)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert chosen(again) == chosen(whole)
    assert torch.equal(again.row_choice.memory["buffer"], whole.row_choice.memory["buffer"])
    assert again.counted == whole.counted
    assert largest_difference(adapter_of(whole), adapter_of(again)) < 1e-6


def test_the_signals_of_chosen_rows_stay_theirs(tmp_path):
    """Stored signals travel with their rows: a static mask among them."""
    data = ragged_tokens(8)
    trainer = trainer_for("random-rows", data, tmp_path, model=tiny_model(), signals=signals_for(data))
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    left = trainer.row_choice._only(batch, [1, 6])
    spans = [slice(*data.response_offset[i : i + 2].tolist()) for i in (1, 6)]
    for name, value in signals_for(data).items():
        assert torch.equal(left[name], torch.cat([value[span] for span in spans])), name
    assert left["position_B"].tolist() == [1, 6]
    assert torch.equal(left["input_ids"], torch.cat([data.sample(i)["input_ids"] for i in (1, 6)]).long())
