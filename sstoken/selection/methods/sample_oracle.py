"""The bound of sample selection: keep the samples that are known to be clean throughout (data with planted noise only)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = 1`` in a sample without a planted token, ``0`` in every other, which is dropped whole.

    What a perfect filter of samples reaches.  The distance to ``oracle`` is what choosing tokens can add to it.
    """

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"truth"})

    @property
    def keep_above(self) -> float | None:
        return 0.5

    def score(self, signals: Signals) -> torch.Tensor:
        clean_B1 = ~((signals.truth != 0) & signals.mask_BR).any(-1, keepdim=True)
        return clean_B1.float().expand_as(signals.mask_BR)
