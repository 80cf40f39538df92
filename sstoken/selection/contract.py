"""The scorer contract: signals in, scores out.

Shapes: B samples, R response tokens of the longest response.  Signals hold response tokens alone, in order: column r
speaks of the sample's r-th response token.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

SIGNALS = {
    "loss": "L_θ of the model being trained, at this step (nats)",
    "base_loss": "L of the model before fine-tuning (nats), computed once",
    "reference_loss": "L of the reference model (nats), computed once",
    "history_loss": "L of the history model (nats): the base, a checkpoint, or an EMA of the weights",
    "attention_mass": "share of attention that the token's query gives to the prompt, in [0, 1]",
    "uniform": "one uniform draw in [0, 1) a token, of the run's own seed",
    "truth": "kind of planted noise, 0 = clean (data that carries it: the embedded world)",
}
"""Every signal that a scorer may ask for in ``needs``, and what it is."""

STATIC_SIGNALS = frozenset({"base_loss", "reference_loss", "uniform", "truth"})
"""Signals that do not change during a run: a method that needs no others has its mask before the first step."""


@dataclass(frozen=True)
class Signals:
    """What a step knows of its response tokens; a signal that the method did not ask for is None.

    mask_BR is bool (True = a response token; padding of shorter responses is False); the rest are float32 but ``truth``
    (uint8).  position_B, int64, is each sample's place in the order of training.  No signal carries a gradient.
    """

    mask_BR: torch.Tensor
    loss: torch.Tensor | None = None
    base_loss: torch.Tensor | None = None
    reference_loss: torch.Tensor | None = None
    history_loss: torch.Tensor | None = None
    attention_mass: torch.Tensor | None = None
    uniform: torch.Tensor | None = None
    truth: torch.Tensor | None = None
    position_B: torch.Tensor | None = None


@dataclass(frozen=True)
class Scorer:
    """Base of every method's ``Config``: frozen settings, the signals needed, and ``score``."""

    @property
    def needs(self) -> frozenset[str]:
        """Names out of SIGNALS.  What is not asked for is not computed."""
        return frozenset()

    @property
    def keep_above(self) -> float | None:
        """A threshold that replaces the keep ratio, for scorers whose needs are all static; None for all others."""
        return None

    def parts(self, signals: Signals) -> dict[str, torch.Tensor]:
        """The ingredients of the score, [B, R] each, whose means over kept and dropped tokens the log shows."""
        return {}

    def score(self, signals: Signals) -> torch.Tensor:
        """score_BR, higher = keep.  Values outside ``signals.mask_BR`` are ignored."""
        raise TypeError(f"{type(self).__module__}.Config does not say how it scores")

    @classmethod
    def from_parameters(cls, parameters: dict) -> Scorer:
        """Build the config from a ``parameters:`` mapping; an unknown key is an error that lists the known ones."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(parameters) - set(known))
        if unknown:
            raise ValueError(
                f"{cls.__module__}: unknown parameter {', '.join(unknown)}; known: {', '.join(known) or 'none'}"
            )
        return cls(**parameters)
