"""RHO-1 (arXiv 2404.07965): train on tokens whose loss still exceeds that of a reference model."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = L_θ(x_i) - L_ref(x_i)``, θ = the current model at each step (RHO-1, Eq. 3).

    *Current minus reference*: the opposite order from ssToken's REL, which is *history minus current*.
    """

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"loss", "reference_loss"})

    def parts(self, signals: Signals) -> dict[str, torch.Tensor]:
        return {"excess_loss": signals.loss - signals.reference_loss}

    def score(self, signals: Signals) -> torch.Tensor:
        return signals.loss - signals.reference_loss
