"""STM (arXiv 2501.14315): keep the tokens of low perplexity, so that fine-tuning unlearns less."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = -L_base(x_i)``; kept where ``exp(L_base(x_i)) <= perplexity``; mean over kept tokens of the micro-batch.

    Code: appier-research/robust-llm-finetunes at 5ea67bd.

    perplexity: >= 1; infinite keeps everything.
    """

    perplexity: float = 2.5

    def __post_init__(self) -> None:
        if not self.perplexity >= 1:
            raise ValueError(f"perplexity must be at least 1, not {self.perplexity}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"base_loss"})

    @property
    def keep_above(self) -> float | None:
        return -math.log(self.perplexity)

    def score(self, signals: Signals) -> torch.Tensor:
        return -signals.base_loss
