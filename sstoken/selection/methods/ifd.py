"""Instruction-following difficulty of a token: how much the prompt helps to predict it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = L_base(y_i given y_<i) - L_base(y_i given x, y_<i)``: the token's mutual information with the prompt.

    T-SHIRT (arXiv 2506.01317) makes a choice of samples of it; this token form is ours, published nowhere as such.
    """

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"base_loss", "unconditional_loss"})

    def score(self, signals: Signals) -> torch.Tensor:
        return signals.unconditional_loss - signals.base_loss
