"""T3S (arXiv 2601.10348): train on what a worse checkpoint has not learnt, and leave alone what it has."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = L_b(x_i) - L_base(x_i)``; kept where it is 0 or more, θ_b the checkpoint of lowest training accuracy.

    No code of the authors.  Which checkpoint that is takes answers that can be checked: the entry names the weights that
    stand for it (``reference``).
    """

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"base_loss", "reference_loss"})

    @property
    def keep_above(self) -> float | None:
        return 0.0

    def score(self, signals: Signals) -> torch.Tensor:
        return signals.reference_loss - signals.base_loss
