"""The plainest scores of all: the current loss, from either end.  Controls that every scored method must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = L_θ(x_i)`` (hardest tokens) or ``score_i = -L_θ(x_i)`` (easiest), θ = the current model at each step.

    The easiest tokens are nearly those that the model has learnt already: a method that only matches this control
    gains by training less.  The hardest are top-loss selection, without a reference to tell hard from wrong.

    keep: "highest" or "lowest" losses.
    """

    keep: Literal["highest", "lowest"] = "highest"

    def __post_init__(self) -> None:
        if self.keep not in ("highest", "lowest"):
            raise ValueError(f"keep must be 'highest' or 'lowest', not {self.keep!r}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"loss"})

    def score(self, signals: Signals) -> torch.Tensor:
        return signals.loss if self.keep == "highest" else -signals.loss
