"""Samples of similar length side by side: one attention call for several, where a call costs more than padding them.

Shapes: N tokens of all samples end to end, P positions of all blocks end to end, padding included.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.autograd.function import once_differentiable

CALL = {"cpu": 5e5, "cuda": 2e9}
"""Multiplications that take about as long as one more attention call, forwards and backwards: measured on a CPU (best of
0.2 to 1 million for samples of 20 to 70 tokens); on CUDA an estimate, 40 microseconds of a GPU that is half busy."""


@dataclass(frozen=True)
class Blocks:
    """Samples of similar length as rows of one block, padded on the right: one attention call a block, not one a sample.

    shapes: samples and positions of each block.
    place_N: int64, each token's position in [0, P); None where every sample is a block, in order.
    """

    shapes: tuple[tuple[int, int], ...]
    place_N: torch.Tensor | None

    @classmethod
    def of(cls, lengths: tuple[int, ...], pairs: float, device: torch.device) -> Blocks:
        """A sample joins the next longer ones where padding it means no more than ``pairs`` more pairs of positions."""
        order = sorted(range(len(lengths)), key=lambda sample: -lengths[sample])
        blocks: list[list[int]] = []
        for sample in order:
            if not blocks or lengths[blocks[-1][0]] ** 2 - lengths[sample] ** 2 > pairs:
                blocks.append([])
            blocks[-1].append(sample)
        if len(blocks) == len(lengths):
            return cls(tuple((1, length) for length in lengths), None)
        shapes = tuple((len(block), lengths[block[0]]) for block in blocks)
        start, starts = 0, [0] * len(lengths)
        for block, (count, longest) in zip(blocks, shapes, strict=True):
            for row, sample in enumerate(block):
                starts[sample] = start + row * longest
            start += count * longest
        place_N = torch.cat([torch.arange(n) + start for n, start in zip(lengths, starts, strict=True)])
        return cls(shapes, place_N.to(device, non_blocking=True))

    def spread(self, token_N: torch.Tensor) -> list[torch.Tensor]:
        """[N, …] -> a tensor [samples, positions, …] for each block, 0 where there is no token."""
        if self.place_N is not None:
            padded = token_N.new_zeros(sum(n * m for n, m in self.shapes), *token_N.shape[1:])
            token_N = padded.index_copy(0, self.place_N, token_N)
        parts = token_N.split([n * m for n, m in self.shapes])
        return [part.unflatten(0, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def gather(self, blocks: list[torch.Tensor]) -> torch.Tensor:
        """The way back."""
        token_P = torch.cat([block.flatten(0, 1) for block in blocks])
        return token_P if self.place_N is None else _Take.apply(token_P, self.place_N)


class _Take(torch.autograd.Function):
    """``index_select`` of distinct rows: its gradient is a copy, where PyTorch's adds row by row."""

    @staticmethod
    def forward(ctx, value_P, index_N):
        ctx.save_for_backward(index_N)
        ctx.rows = len(value_P)
        return value_P.index_select(0, index_N)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_N):
        (index_N,) = ctx.saved_tensors
        return grad_N.new_zeros(ctx.rows, *grad_N.shape[1:]).index_copy_(0, index_N, grad_N), None
