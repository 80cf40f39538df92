"""Signals and masks that are known before training."""

from dataclasses import replace

import pytest
import torch

from sstoken.selection.methods import load_method
from sstoken.training.dataset import SelectionDataset, fixed_mask, uniform_signal
from tests.conftest import ragged_tokens
from tests.trainers import signals_for


@pytest.mark.parametrize("scope", ["sample", "dataset"])
def test_fixed_masks_keep_the_exact_count_in_their_scope(scope):
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
