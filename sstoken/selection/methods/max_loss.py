"""The rows of highest loss: top-loss selection of samples, a control of UDS (arXiv 2510.16882)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sstoken.selection import Chooser, Rows


@dataclass(frozen=True)
class Config(Chooser):
    """``score_b = mean_i L_θ(x_i)`` over a row's response tokens, θ = the current model; the highest of a group are trained."""

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"loss"})

    def choose(self, rows: Rows, take: int, memory: dict[str, torch.Tensor]) -> torch.Tensor:
        return rows.loss_B.sort(descending=True, stable=True).indices[:take]
