"""ssToken (arXiv 2510.18250): self-modulated and semantic-aware token selection."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals, minmax


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = γ·minmax(REL_i) + (1-γ)·AttnScore_i`` with ``REL_i = L_his(x_i) - L_θ(x_i)`` (ssToken, Eqs. 5, 8, 9).

    *History minus current*: high where the model has learnt more since its history than elsewhere in the sample.
    min-max runs over the sample's response tokens; AttnScore is a share already and is not normalised.

    loss_weight: γ in [0, 1]. 1 is the self-modulated part alone, 0 the semantic-aware part alone.
    attention_only_samples: γ counts as 0 for the first so many training samples.  The release has 10,000 of 50,000; the
        paper 0, though it says that REL is near random early on.
    """

    loss_weight: float = 0.5
    attention_only_samples: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.loss_weight <= 1:
            raise ValueError(f"loss_weight (γ) must lie in [0, 1], not {self.loss_weight}")
        if self.attention_only_samples < 0:
            raise ValueError(f"attention_only_samples must be at least 0, not {self.attention_only_samples}")

    @property
    def needs(self) -> frozenset[str]:
        losses = {"loss", "history_loss"} if self.loss_weight > 0 else set()
        attention = {"attention_mass"} if self.loss_weight < 1 or self.attention_only_samples else set()
        return frozenset(losses | attention)

    def parts(self, signals: Signals) -> dict[str, torch.Tensor]:
        parts = {}
        if signals.history_loss is not None:
            parts["rel"] = signals.history_loss - signals.loss
        if signals.attention_mass is not None:
            parts["attention_mass"] = signals.attention_mass
        return parts

    def score(self, signals: Signals) -> torch.Tensor:
        if self.loss_weight == 0:
            return signals.attention_mass
        rel_BR = minmax(signals.history_loss - signals.loss, signals.mask_BR)
        if signals.attention_mass is None:
            return rel_BR
        weight_B1 = torch.full_like(rel_BR[:, :1], self.loss_weight)
        if self.attention_only_samples:
            weight_B1 = weight_B1.masked_fill(signals.position_B[:, None] < self.attention_only_samples, 0.0)
        return weight_B1 * rel_BR + (1 - weight_B1) * signals.attention_mass
