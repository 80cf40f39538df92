"""DFT (arXiv 2508.05629): the token loss, weighted by the probability that the model gives the token."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``weight_i = sg(p_i)``, ``p_i = exp(-L_θ(x_i))``; divided by all response tokens.

    The gradient of ``-p`` up to a sign: likely tokens are learnt, unlikely ones left alone.  Code: yongliang-wu/DFT at
    e153181, which takes the mean of a micro-batch; here of the global batch.
    """

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"probability"})

    def weigh(self, signals: Signals, keep_BR: torch.Tensor) -> torch.Tensor:
        return signals.probability * keep_BR
