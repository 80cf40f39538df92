"""The control of every weighting: each token weighs what the tokens weigh on average."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``weight_i = mean_j w_j``, w the weights of another scorer, the mean over the micro-batch's response tokens.

    A weighting shortens the step too.  What it gains over this control it gains by telling tokens apart.

    of: the other scorer, a file of this folder; with its default parameters.
    """

    of: str = "dft"

    def __post_init__(self) -> None:
        if not self.other.weighs:
            raise ValueError(f"of must name a scorer with weights of its own, and {self.of!r} has none")

    @cached_property
    def other(self) -> Scorer:
        from sstoken.selection.methods import scorers  # which imports this file

        known = scorers()
        if self.of not in known or known[self.of] is Config:
            raise ValueError(f"of must name another scorer, not {self.of!r}; known: {', '.join(known)}")
        return known[self.of]()

    @property
    def needs(self) -> frozenset[str]:
        return self.other.needs

    @property
    def pools(self) -> bool:
        return True

    def weigh(self, signals: Signals, keep_BR: torch.Tensor) -> torch.Tensor:
        weight_BR = self.other.weigh(signals, keep_BR).masked_fill(~signals.mask_BR, 0.0)
        return weight_BR.sum() / signals.mask_BR.sum().clamp_min(1) * keep_BR
