"""Full-data fine-tuning: every response token is kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = 0``: with a keep ratio of 1 all response tokens are trained on."""

    def score(self, signals: Signals) -> torch.Tensor:
        return torch.zeros_like(signals.mask_BR, dtype=torch.float32)
