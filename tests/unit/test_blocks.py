"""Blocks of samples: nothing lost on the way there and back, no more padding than allowed, attention's own gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from sstoken.blocks import Blocks

CPU = torch.device("cpu")


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(0, 2000))
def test_tokens_come_back_and_the_rest_is_zero(lengths, pairs):
    blocks = Blocks.of(tuple(lengths), pairs, CPU)
    token_N = torch.arange(1, 1 + 2 * sum(lengths)).view(-1, 2)
    spread = blocks.spread(token_N)
    assert [tuple(block.shape[:2]) for block in spread] == list(blocks.shapes)
    assert blocks.gather(spread).equal(token_N)
    assert sum(int((block != 0).sum()) for block in spread) == token_N.numel()
    # a row is a sample: its tokens in order from the left, then padding
    rows = [row[: int((row[:, 0] != 0).sum())] for block in spread for row in block]
    samples = token_N.split(lengths)
    assert sorted(row.tolist() for row in rows) == sorted(sample.tolist() for sample in samples)
    for block in spread:
        filled = (block[..., 0] != 0).sum(1)
        assert int(filled.max()) == block.shape[1]
        assert block.shape[1] ** 2 - int(filled.min()) ** 2 <= pairs


def test_without_an_allowance_only_equal_lengths_share_a_block():
    assert Blocks.of((3, 5, 3, 4), 0, CPU).shapes == ((1, 5), (1, 4), (2, 3))
    apart = Blocks.of((3, 5, 4), 0, CPU)
    assert apart.shapes == ((1, 3), (1, 5), (1, 4)) and apart.place_N is None


@pytest.mark.parametrize("pairs", [0, 60, 10**6])
def test_attention_and_its_gradients_are_those_of_one_sample_at_a_time(pairs):
    lengths, generator = (7, 1, 12, 9, 12), torch.Generator().manual_seed(0)
    draw = [torch.randn(sum(lengths), 4, 8, dtype=torch.float64, generator=generator) for _ in range(4)]

    def attend(blocks):
        leaves = [tensor.clone().requires_grad_() for tensor in draw[:3]]
        rows = []
        for query, key, value in zip(*map(blocks.spread, leaves), strict=True):
            parts = (x.transpose(1, 2) for x in (query, key, value))
            rows.append(scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2))
        output = blocks.gather(rows)
        output.backward(draw[3])
        return output.detach(), *(leaf.grad for leaf in leaves)

    expected = attend(Blocks(tuple((1, n) for n in lengths), None))
    for found, wanted in zip(attend(Blocks.of(lengths, pairs, CPU)), expected, strict=True):
        torch.testing.assert_close(found, wanted)
