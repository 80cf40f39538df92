"""TOSS-Pro (arXiv 2603.01185): more rows for the harmful reference, taken from the data that is to be cleaned."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = max_{j in sample} L_u(x_j) - L_h(x_j)``, one value a sample.

    The paper walks the tokens from the highest risk ``L_u - L_h`` down and takes the samples that they belong to, each once,
    until it has k: those of highest risk at their worst token.  Here k is a share of the tokens, the entry's keep ratio, and
    what is not taken has no loss, on the harmful rows and the custom ones together; the last sample may be taken in part.
    The paper keeps all harmful rows.  Here they stand high, since θ_h was tuned on them, but some may fall below the cut.
    """

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference_loss:harmful", "reference_loss:utility"})

    def score(self, signals: Signals) -> torch.Tensor:
        risk_BR = signals.references["utility"] - signals.references["harmful"]
        worst_B1 = risk_BR.masked_fill(~signals.mask_BR, -torch.inf).amax(-1, keepdim=True)
        return torch.where(signals.mask_BR, worst_B1, 0.0)
