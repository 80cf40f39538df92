"""TokenCleaning (arXiv 2502.01968): influence of a token, as seen by two frozen models."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = L_base(x_i) - L_ref(x_i)`` (TokenCleaning, Eq. 4).

    With ``reference: reference`` this is fixed-model cleaning; with ``reference: previous`` and several ``parts`` it is
    self-evolving cleaning, whose reference is the model trained on the parts before; ranked within the sample it is the
    static form of RHO-1 that TokenCleaning's tables call Rho.
    """

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"base_loss", "reference_loss"})

    def parts(self, signals: Signals) -> dict[str, torch.Tensor]:
        return {"excess_loss": signals.base_loss - signals.reference_loss}

    def score(self, signals: Signals) -> torch.Tensor:
        return signals.base_loss - signals.reference_loss
