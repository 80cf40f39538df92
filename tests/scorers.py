"""A scorer of one's own, as a file."""

MINE = '''
"""Keep the tokens that the model finds hardest."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Scorer, Signals


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = L_θ(x_i)``."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"loss"})

    def score(self, signals: Signals) -> torch.Tensor:
        return signals.loss
'''
