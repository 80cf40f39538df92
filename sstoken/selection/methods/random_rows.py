"""Rows at random: the control of every choice of rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Chooser, Rows


@dataclass(frozen=True)
class Config(Chooser):
    """``score_b ~ U[0, 1)``, drawn from the run's seed; the highest of each group are trained."""

    def choose(self, rows: Rows, take: int, memory: dict[str, torch.Tensor]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(int(memory["seed"]) * 1_000_003 + int(memory["drawn"]))
        memory["drawn"] += 1
        return torch.randperm(rows.count, generator=generator)[:take]
