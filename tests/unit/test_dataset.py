"""Signals and masks that are known before training."""

from dataclasses import replace

import pytest
import torch

from sstoken.selection import Scorer
from sstoken.selection.methods import Method, load_method
from sstoken.training.dataset import SelectionDataset, fixed_mask, prepared, uniform_signal
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


def test_sample_oracle_keeps_whole_clean_samples_and_none_of_the_others():
    data = ragged_tokens(40, response=(1, 5))
    signals = signals_for(data)
    keep = fixed_mask(load_method("sample-oracle"), SelectionDataset(data, signals))
    counts = data.response_offset.diff().tolist()
    clean = [bool((part == 0).all()) for part in signals["truth"].split(counts)]
    assert 0 < sum(clean) < 40
    assert [part.tolist() for part in keep.split(counts)] == [[c] * n for c, n in zip(clean, counts, strict=True)]


def test_the_first_five_response_tokens_are_dropped():
    data = ragged_tokens(10, turns=2)
    keep = fixed_mask(load_method("first-k-dropped"), SelectionDataset(data, {}))
    for part in keep.split(data.response_offset.diff().tolist()):
        assert part.tolist() == [False] * min(5, len(part)) + [True] * max(0, len(part) - 5)


def test_middle_perplexity_keeps_the_middle_of_the_data_set():
    data = ragged_tokens(30)
    signals = signals_for(data)
    dataset = prepared(load_method("middle-perplexity"), SelectionDataset(data, signals))
    losses, total = signals["base_loss"], len(signals["base_loss"])
    share = torch.tensor([(losses < value).sum() / total for value in losses])
    torch.testing.assert_close(dataset.signals["base_rank"], share)
    kept = losses[dataset.keep_R]
    assert len(kept) == 6 * total // 10
    assert kept.min() >= losses.quantile(0.19) and kept.max() <= losses.quantile(0.81)


def test_a_token_at_the_threshold_is_kept():
    class At(Scorer):
        needs, keep_above = frozenset({"base_loss"}), 2.0

        def score(self, signals):
            return signals.base_loss

    data = ragged_tokens(4)
    losses = torch.full((int(data.response_offset[-1]),), 2.0)
    losses[::2] = 1.999
    keep = fixed_mask(Method(name="at", scorer=At()), SelectionDataset(data, {"base_loss": losses}))
    assert torch.equal(keep, losses == 2.0)


def test_the_uniform_draw_has_a_seed_of_its_own():
    torch.manual_seed(1)
    first = uniform_signal(100, 7)
    torch.manual_seed(2)
    assert torch.equal(first, uniform_signal(100, 7))
    assert not torch.equal(first, uniform_signal(100, 8))
