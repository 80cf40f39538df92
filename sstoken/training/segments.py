"""Ragged samples end to end in one row: where each lies, and what a pass is to find out about them.

Shapes: N tokens of all samples end to end, R positions whose last state is wanted, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

Projection = Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor | None], torch.Tensor]
"""(hidden_RD, weight_VD, bias_V or None) -> any tensor.  Where the model does more than a linear projection, it is called
as (logits_RV, None, None)."""


@dataclass
class Segments:
    """Where each sample lies in the row, whose states are wanted, and which layer's attention mass to take.

    lengths: tokens a sample, host integers, so that no shape depends on the device.
    position_R: int64, the positions whose last state is projected; each at most once.
    mass_layer: index of the layer, or None.
    prompt_mask_N: bool, needed with mass_layer.
    mass_N: float32, filled by the pass.
    taken: whether the last layer has already left the other positions behind; filled by the pass.
    """

    lengths: tuple[int, ...]
    position_R: torch.Tensor
    mass_layer: int | None = None
    prompt_mask_N: torch.Tensor | None = None
    mass_N: torch.Tensor | None = field(default=None, init=False)
    taken: bool = field(default=False, init=False)

    def wants(self, layer: int | None) -> bool:
        return self.mass_layer is not None and layer == self.mass_layer

    def take(self, layer: int, mass_N: torch.Tensor) -> None:
        self.mass_N = mass_N


@dataclass(frozen=True)
class Route:
    """How a model's losses are found; made by ``sstoken.training.selftest``.

    packed: samples may lie in one row. reach: the longest sample whose masks say no more than causality; None = any.
    row: the longest row in which the model's own count of places changes nothing; None = any.
    limit: the longest sample of which the model's rotary frequencies do not change with its neighbours; None = any.
    linear_head: the logits are those of the output projection, unchanged.
    attention: of the padded pass: "function" (ours, around the model's), "eager", or None (the model's own, as it is).
    packed_mass, padded_mass: layers whose attention mass is that of eager attention.
    options: keyword arguments of the model's forward that it knows.
    why: what stands against packing, in words and numbers.
    error: the largest difference of the chosen pass from the model's plain forward (nats).
    """

    packed: bool
    reach: int | None
    limit: int | None
    linear_head: bool
    attention: str | None
    packed_mass: frozenset[int]
    padded_mass: frozenset[int]
    options: frozenset[str]
    why: str = ""
    error: float = 0.0
    row: int | None = None

    def packs(self, lengths: tuple[int, ...]) -> bool:
        short = self.reach is None or max(lengths, default=0) <= self.reach
        return self.packed and short and (self.row is None or sum(lengths) <= self.row)

    @property
    def mass_layers(self) -> frozenset[int]:
        """Layers whose mass can be had of samples of any length."""
        if not self.packed:
            return self.padded_mass
        return self.packed_mass if self.reach is None and self.row is None else self.packed_mass & self.padded_mass
