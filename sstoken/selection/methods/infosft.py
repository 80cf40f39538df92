"""InfoSFT (arXiv 2605.14967): weights that vanish where nothing is left to learn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``weight_i = p_i · max(logit(ceiling) - logit(p_i), 0)``, without gradient; divided by all response tokens.

    No code of the authors; a third party rescales the weights to a mean of 1, which is not done here.

    ceiling: the probability from which on a token counts nothing, in (0, 1).
    """

    ceiling: float = 0.93

    def __post_init__(self) -> None:
        if not 0 < self.ceiling < 1:
            raise ValueError(f"ceiling must lie in (0, 1), not {self.ceiling}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"loss"})

    def weigh(self, signals: Signals, keep_BR: torch.Tensor) -> torch.Tensor:
        loss_BR = signals.loss.clamp_min(0)
        logit_BR = -loss_BR - (-(-loss_BR).expm1()).log()  # of exp(-loss), finite where that underflows
        top = math.log(self.ceiling / (1 - self.ceiling))
        return (-loss_BR).exp() * (top - logit_BR).clamp_min(0) * keep_BR
