"""iw-SFT (arXiv 2507.12856): samples weighted by how far the model has moved towards them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``weight_i = clamp(exp(mean_j(L_ref(x_j) - L_θ(x_j))), 0, 16)``, the same for all tokens of a sample.

    Token form: ``clamp(p_θ / p_ref, 0.2, 1.8)``.  Divided by all response tokens.  Code: emmyqin/iw_sft at 9a3e4e4, whose
    mean runs over padding too where it gets no token count.

    form: "sample" or "token".
    """

    form: str = "sample"

    def __post_init__(self) -> None:
        if self.form not in ("sample", "token"):
            raise ValueError(f"form must be 'sample' or 'token', not {self.form!r}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"loss", "reference_loss"})

    def weigh(self, signals: Signals, keep_BR: torch.Tensor) -> torch.Tensor:
        ratio_BR = (signals.reference_loss - signals.loss) * signals.mask_BR
        if self.form == "token":
            return ratio_BR.exp().clamp(0.2, 1.8) * keep_BR
        mean_B1 = ratio_BR.sum(-1, keepdim=True) / signals.mask_BR.sum(-1, keepdim=True).clamp_min(1)
        return mean_B1.exp().clamp(0, 16) * keep_BR
