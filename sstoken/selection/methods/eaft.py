"""EAFT (arXiv 2601.02151): learn where the model is unsure, leave it where it is sure of something else."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``weight_i = (H_i / 3)^α``, ``H_i`` = entropy (nats) of the 20 largest logits; divided by all response tokens.

    The 20 are renormalised among themselves, so that H is at most ln 20 = 2.996.  Code: PRIS-CV/EAFT at 8f9018b;
    axolotl at 067b021 leaves out the 3, a step three times as long.

    alpha: α >= 0.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ValueError(f"alpha must be at least 0, not {self.alpha}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"entropy"})

    def weigh(self, signals: Signals, keep_BR: torch.Tensor) -> torch.Tensor:
        return (signals.entropy / 3) ** self.alpha * keep_BR
