"""ProFit (arXiv 2601.09195): keep the tokens that the model holds possible."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = p_i``; kept where ``p_i >= τ``; divided by all response tokens, kept or not.

    Code: Utaotao/ProFit at 92529ff, which divides by the micro-batch's response tokens.

    least: τ in [0, 1].
    """

    least: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1:
            raise ValueError(f"least must lie in [0, 1], not {self.least}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"probability"})

    @property
    def keep_above(self) -> float | None:
        return self.least

    def score(self, signals: Signals) -> torch.Tensor:
        return signals.probability
