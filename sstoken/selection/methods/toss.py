"""TOSS (arXiv 2603.01185): drop what a model tuned on harm likes better than one tuned on use."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = L_h(x_i) - L_u(x_i)``, θ_h and θ_u two references tuned from the same start on harmful and useful data.

    The paper drops the ``floor(d·n)`` tokens of highest ``L_u - L_h`` in the data set: keep ratio ``1 - d``, rounded up.
    Code: Polly-LYP/TOSS at 86c26ec, where a sample that loses every token gives a loss of NaN; here it counts 0.
    """

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reference_loss:harmful", "reference_loss:utility"})

    def score(self, signals: Signals) -> torch.Tensor:
        return signals.references["harmful"] - signals.references["utility"]
