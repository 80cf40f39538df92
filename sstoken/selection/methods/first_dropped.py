"""Drop the first tokens of each response.  A control: unsafe tuning moves the first response tokens most (arXiv 2603.01185)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = 0`` for the first ``count`` response tokens of a sample, ``1`` for the others, which are kept.

    count: tokens, >= 0; TOSS's ablation has 5.  A sample with no more response tokens than that is dropped whole.
    """

    count: int = 5

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"count must be at least 0, not {self.count}")

    @property
    def keep_above(self) -> float | None:
        return 0.5

    def score(self, signals: Signals) -> torch.Tensor:
        place_R = torch.arange(signals.mask_BR.shape[1], device=signals.mask_BR.device)
        return (place_R >= self.count).float().expand_as(signals.mask_BR)
