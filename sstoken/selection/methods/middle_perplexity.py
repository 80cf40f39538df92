"""Middle perplexity: neither what the base model knows nor what it cannot guess.  A control, after arXiv 2309.04564."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = -|r_i - 0.5|``, ``r_i`` = share of the data set's response tokens with a smaller ``L_base``.

    The source prunes documents by perplexity; ranking tokens in its way is ours.
    """

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"base_loss", "base_rank"})

    def score(self, signals: Signals) -> torch.Tensor:
        return -(signals.base_rank - 0.5).abs()
