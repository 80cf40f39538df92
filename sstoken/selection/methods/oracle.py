"""The upper bound of selection: keep what is known to be clean (data with planted noise only)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = 1`` for a clean token, ``0`` for a planted one.  How many are clean is known, so there is no ratio:
    ``keep_above`` keeps just those."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"truth"})

    @property
    def keep_above(self) -> float | None:
        return 0.5

    def score(self, signals: Signals) -> torch.Tensor:
        return (signals.truth == 0).float()
