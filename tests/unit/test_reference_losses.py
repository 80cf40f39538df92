"""Stored losses belong to their data and weights, or are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sstoken.training.reference_losses import (
    ReferenceLosses,
    ReferenceMismatch,
    compute_losses,
    length_batches,
    without_prompts,
)
from tests.conftest import ragged_tokens, tiny_model


@pytest.fixture
def stored(tmp_path):
    data = ragged_tokens(6)
    losses = ReferenceLosses(compute_losses(tiny_model(), data), data.response_offset, data.sha256, "weights-a")
    losses.save(tmp_path / "base.safetensors")
    return data, losses, tmp_path / "base.safetensors"


def test_losses_come_back_by_sample(stored):
    data, losses, path = stored
    again = ReferenceLosses.load(path, data=data, weights_sha256="weights-a")
    for index in range(len(data)):
        assert torch.equal(again.sample(index), losses.sample(index))
        assert len(again.sample(index)) == int(data.sample(index)["response_mask"].sum())


def test_losses_of_other_tokens_are_refused(stored):
    _, _, path = stored
    with pytest.raises(ReferenceMismatch, match="other tokens"):
        ReferenceLosses.load(path, data=ragged_tokens(6, seed=1))


def test_losses_of_the_same_ids_with_another_mask_are_refused(stored):
    from dataclasses import replace

    data, _, path = stored
    mask = data.response_mask.clone()
    mask[int(data.offset[1]) - 1] = False
    with pytest.raises(ReferenceMismatch, match="other tokens"):
        ReferenceLosses.load(path, data=replace(data, response_mask=mask))


def test_losses_of_other_weights_are_refused(stored):
    data, _, path = stored
    with pytest.raises(ReferenceMismatch, match="other weights"):
        ReferenceLosses.load(path, data=data, weights_sha256="weights-b")


def test_a_cut_file_is_refused(stored):
    _, _, path = stored
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ReferenceMismatch, match="not a readable file"):
        ReferenceLosses.load(path)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_file_with_a_loss_that_is_not_finite_is_refused_by_name(stored, value):
    """Not taken for a run that has diverged, which is what it would look like at the first step."""
    data, losses, path = stored
    loss_R = losses.loss_R.clone()
    loss_R[1] = float(value)
    replace(losses, loss_R=loss_R).save(path)
    with pytest.raises(ReferenceMismatch, match=f"{path.name}: holds losses that are not finite"):
        ReferenceLosses.load(path, data=data)


def test_a_loss_that_is_not_finite_names_its_sample():
    data, model = ragged_tokens(4), tiny_model()
    with torch.no_grad():
        model.model.embed_tokens.weight[int(data.sample(2)["input_ids"][0])] = float("nan")
    with pytest.raises(FloatingPointError, match="sample-"):
        compute_losses(model, data)


@given(st.lists(st.integers(1, 50), min_size=0, max_size=40), st.integers(1, 120))
def test_batches_hold_each_sample_once_within_the_budget(lengths, budget):
    lengths = np.array(lengths, dtype=np.int64)
    batches = length_batches(lengths, budget)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(lengths[batch].sum() <= budget or len(batch) == 1 for batch in batches)


def test_responses_without_their_prompts_keep_their_tokens_behind_one_other():
    data = ragged_tokens(9, prompt=(1, 6), response=(1, 6), turns=2)
    alone = without_prompts(data)
    assert torch.equal(alone.response_offset, data.response_offset)
    assert torch.equal(alone.input_ids[alone.response_mask], data.input_ids[data.response_mask])
    model = tiny_model()
    found = compute_losses(model, alone)
    for index in range(len(data)):
        sample = data.sample(index)
        response = sample["input_ids"][sample["response_mask"]].long()
        before = sample["input_ids"][int(sample["response_mask"].nonzero()[0]) - 1].long()
        logits = model(input_ids=torch.cat([before[None], response])[None]).logits[0, :-1]
        place = slice(*data.response_offset[index : index + 2].tolist())
        naive = torch.nn.functional.cross_entropy(logits, response, reduction="none")
        torch.testing.assert_close(found[place], naive, atol=1e-5, rtol=1e-4)
