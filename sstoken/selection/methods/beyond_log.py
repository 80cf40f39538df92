"""Beyond log-likelihood (arXiv 2510.00526): a family of objectives between log-likelihood and probability."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``weight_i = sg(p_i)^α`` where ``least <= p_i <= most``, else 0: the gradient of ``(1 - p^α) / α``.

    α -> 0 is the usual loss, 1 is DFT, 10 leans on what the model believes already.  Code:
    GaotangLi/Beyond-Log-Likelihood at 220589d.

    alpha: α >= 0. least, most: the thresholded forms, probabilities in [0, 1].
    """

    alpha: float = 10.0
    least: float = 0.0
    most: float = 1.0

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ValueError(f"alpha must be at least 0, not {self.alpha}")
        if not 0 <= self.least <= self.most <= 1:
            raise ValueError(f"0 <= least <= most <= 1 must hold, not {self.least}, {self.most}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"probability"})

    def weigh(self, signals: Signals, keep_BR: torch.Tensor) -> torch.Tensor:
        p_BR = signals.probability
        return p_BR**self.alpha * (keep_BR & (p_BR >= self.least) & (p_BR <= self.most))
