"""Forgetting (arXiv 2508.04329): learn the tokens of high influence, unlearn the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = L_base(x_i) - L_ref(x_i)``; ``loss = mean_P L_θ - λ·mean_N L_θ``, P the kept tokens, N the others.

    ``λ = (most - 1e-5) · step / steps`` from 0 on; each mean over its own count in the micro-batch.  As weights of the
    micro-batch's mean over P: ``1`` in P, ``-λ·|P|/|N|`` in N.  Code: AliTaheri2002/Forgetting at 46b7712, which leaves
    out the last token of the longest row (a slip), and one token of the data set where ρ·n is not whole.

    most: λ at the end of the run, >= 1e-5.  Nothing bounds the loss from below: the log shows N's mean loss.
    """

    most: float = 0.25

    def __post_init__(self) -> None:
        if not self.most >= 1e-5:
            raise ValueError(f"most must be at least 1e-5, not {self.most}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"base_loss", "reference_loss", "progress"})

    @property
    def scored_by(self) -> frozenset[str]:
        return frozenset({"base_loss", "reference_loss"})

    @property
    def pools(self) -> bool:
        return True

    def score(self, signals: Signals) -> torch.Tensor:
        return signals.base_loss - signals.reference_loss

    def weigh(self, signals: Signals, keep_BR: torch.Tensor) -> torch.Tensor:
        other_BR = signals.mask_BR & ~keep_BR
        share = keep_BR.sum().clamp_min(1) / other_BR.sum().clamp_min(1)
        return keep_BR.float() - (self.most - 1e-5) * signals.progress * share * other_BR
