"""DEFT (arXiv 2602.11424): the exponent of the probability weight follows how sharp the prediction is."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``weight_i = sg(p_i)^c_i``, ``c_i = Σ_v p_v²``; divided by all response tokens.

    Sharp predictions are weighted as by DFT, flat ones hardly at all.  Code: luludus/DEFT at bbe7896, with a variant
    without the sum: ``c = f + (1-f)·p / (2-p)``, f half the micro-batch's mean p, c in [0.001, 1].

    exponent: "collision" (the sum) or "cayley" (the variant).
    """

    exponent: str = "collision"

    def __post_init__(self) -> None:
        if self.exponent not in ("collision", "cayley"):
            raise ValueError(f"exponent must be 'collision' or 'cayley', not {self.exponent!r}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"probability"} | ({"collision"} if self.exponent == "collision" else set()))

    @property
    def pools(self) -> bool:
        return self.exponent == "cayley"

    def weigh(self, signals: Signals, keep_BR: torch.Tensor) -> torch.Tensor:
        mask_BR = signals.mask_BR
        p_BR = signals.probability.masked_fill(~mask_BR, 0.0)
        if self.exponent == "collision":
            return p_BR**signals.collision * keep_BR
        floor = 0.5 * p_BR.sum() / mask_BR.sum().clamp_min(1)
        return p_BR ** (floor + (1 - floor) * p_BR / (2 - p_BR)).clamp(0.001, 1) * keep_BR
