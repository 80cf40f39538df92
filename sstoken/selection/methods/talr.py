"""TALR (arXiv 2509.20758): probability weights whose sharpness follows the loss of the batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``weight_i = max(sg(p_i)^(1/τ), w)``, τ = median over samples of their mean token loss; divided by all response tokens.

    The median is the micro-batch's (the lower of two middle ones), the paper's is the step's: with accumulation the two
    differ.  No code of the authors; the floors are a third party's.

    least: w in [0, 1]. temperature: τ > 0, fixed; None: the median, at least 1e-6.
    """

    least: float = 0.01
    temperature: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1:
            raise ValueError(f"least must lie in [0, 1], not {self.least}")
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(f"temperature must be positive, not {self.temperature}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"loss"})

    @property
    def pools(self) -> bool:
        return self.temperature is None

    def weigh(self, signals: Signals, keep_BR: torch.Tensor) -> torch.Tensor:
        mask_BR = signals.mask_BR
        loss_BR = signals.loss * mask_BR
        tau: float | torch.Tensor | None = self.temperature
        if tau is None:
            tau = (loss_BR.sum(-1) / mask_BR.sum(-1)).nanmedian().nan_to_num(1.0).clamp_min(1e-6)
        return (-loss_BR / tau).exp().clamp_min(self.least) * keep_BR
