"""Random selection: the control that every scored method must beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i ~ U[0, 1)``, drawn once for the whole data set from a generator of its own (TokenCleaning's baseline).

    The draw's seed is the run's, or ``random_seed`` of the method's entry (the release always draws with 42).
    """

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"uniform"})

    def score(self, signals: Signals) -> torch.Tensor:
        return signals.uniform
