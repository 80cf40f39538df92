"""Full-data fine-tuning: every response token is kept."""

from __future__ import annotations

from dataclasses import dataclass

from sstoken.selection import Scorer


@dataclass(frozen=True)
class Config(Scorer):
    """``score_i = 0``, the contract's default: with a keep ratio of 1 all response tokens are trained on."""
