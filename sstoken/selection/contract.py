"""The scorer contract: signals in, scores out; weights and rows where a method asks for them.

Shapes: B samples, R response tokens of the longest response, K rows chosen.  Signals hold response tokens alone, in
order: column r speaks of the sample's r-th response token.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch

SIGNALS = {
    "loss": "L_θ of the model being trained, at this step (nats)",
    "probability": "exp(-L_θ) of the token, at this step",
    "entropy": "entropy (nats) of the 20 largest logits, renormalised among themselves, at this step",
    "collision": "Σ_v p_v² over the vocabulary, at this step",
    "base_loss": "L of the model before fine-tuning (nats), computed once",
    "base_rank": "share of the data set's response tokens with a smaller base_loss, in [0, 1)",
    "unconditional_loss": "L of the model before fine-tuning (nats) on the response without its prompt, computed once",
    "reference_loss": "L of the reference model (nats), computed once; `reference_loss:x` is of the reference named x",
    "history_loss": "L of the history model (nats): the base, a checkpoint, or an EMA of the weights",
    "attention_mass": "share of attention that the token's query gives to the prompt, in [0, 1]",
    "uniform": "one uniform draw in [0, 1) a token, of the run's own seed",
    "truth": "kind of planted noise, 0 = clean (data that carries it: the embedded world)",
    "progress": "optimiser steps done over steps in all, in [0, 1)",
}
"""Every signal that a scorer may ask for in ``needs``, and what it is."""

STATIC_SIGNALS = frozenset({"base_loss", "base_rank", "unconditional_loss", "reference_loss", "uniform", "truth"})
"""Signals that do not change during a run: a method that needs no others has its mask before the first step."""

FROM_LOGITS = frozenset({"loss", "probability", "entropy", "collision"})
"""Signals that come out of the current logits: they need the projection of every response token."""


def kind_of(signal: str) -> str:
    """The signal's name in SIGNALS: ``reference_loss:harmful`` is a ``reference_loss``."""
    return "reference_loss" if signal.startswith("reference_loss:") else signal


@dataclass(frozen=True)
class Signals:
    """What a step knows of its response tokens; a signal that the method did not ask for is None.

    mask_BR is bool (True = a response token; padding of shorter responses is False); the rest are float32 but ``truth``
    (uint8).  references: name -> loss of a named reference.  progress is a number of the host.  position_B, int64, is
    each sample's place in the order of training, index_B its index in the data set.  No signal carries a gradient.
    """

    mask_BR: torch.Tensor
    loss: torch.Tensor | None = None
    probability: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    collision: torch.Tensor | None = None
    base_loss: torch.Tensor | None = None
    base_rank: torch.Tensor | None = None
    unconditional_loss: torch.Tensor | None = None
    reference_loss: torch.Tensor | None = None
    history_loss: torch.Tensor | None = None
    attention_mass: torch.Tensor | None = None
    uniform: torch.Tensor | None = None
    truth: torch.Tensor | None = None
    progress: float | None = None
    references: dict[str, torch.Tensor] = field(default_factory=dict)
    position_B: torch.Tensor | None = None
    index_B: torch.Tensor | None = None


@dataclass(frozen=True)
class Scorer:
    """Base of every method's ``Config``: frozen settings, the signals needed, and a score, a weight, or both."""

    @property
    def needs(self) -> frozenset[str]:
        """Names out of SIGNALS.  What is not asked for is not computed."""
        return frozenset()

    @property
    def scored_by(self) -> frozenset[str]:
        """What of ``needs`` the score reads, the rest being the weights'.  Static signals make a mask before the first step."""
        return self.needs

    @property
    def keep_above(self) -> float | None:
        """A threshold that replaces the keep ratio: a token is kept if its score is as high or higher.

        How many are kept is then known only once they are scored, so a scorer that needs signals of the step is
        divided by normalisation "response" or "micro-batch".
        """
        return None

    @property
    def pools(self) -> bool:
        """Weights depend on which samples share a micro-batch: accumulation then changes what is trained."""
        return False

    @property
    def weighs(self) -> bool:
        """The scorer has weights of its own."""
        return type(self).weigh is not Scorer.weigh

    def parts(self, signals: Signals) -> dict[str, torch.Tensor]:
        """The ingredients of the score, [B, R] each, whose means over kept and dropped tokens the log shows."""
        return {}

    def score(self, signals: Signals) -> torch.Tensor:
        """score_BR, higher = keep.  Values outside ``signals.mask_BR`` are ignored.  By default the earliest first."""
        return torch.zeros_like(signals.mask_BR, dtype=torch.float32)

    def weigh(self, signals: Signals, keep_BR: torch.Tensor) -> torch.Tensor:
        """weight_BR, float32: what a token's loss counts for; real or negative.  By default 1 where kept, 0 elsewhere.

        A weight is a number, not a path for gradients.  Values outside ``signals.mask_BR`` are ignored.
        """
        return keep_BR.float()

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


@dataclass(frozen=True)
class Rows:
    """What a chooser knows of its candidates, before the step: each of B rows under the model as it is now.

    loss_B: mean loss of the row's response tokens (nats), or None. hidden: last states of all positions, [T_b, D] a row, or
    None. weight_VD: the output projection, with hidden. cache: for what follows from frozen weights; not saved.
    """

    count: int
    loss_B: torch.Tensor | None = None
    hidden: tuple[torch.Tensor, ...] | None = None
    weight_VD: torch.Tensor | None = None
    cache: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Chooser(Scorer):
    """A method that chooses rows before the step; every response token of a chosen row is trained on.

    candidates: rows of a group; a micro-batch is cut into groups in order. take: how many of each are trained; of a
    smaller last group the same share, rounded up.
    """

    candidates: int = 4
    take: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.take <= self.candidates:
            raise ValueError(f"1 <= take <= candidates must hold, not {self.take} of {self.candidates}")

    @property
    def reads(self) -> frozenset[str]:
        """ "loss", "hidden", or nothing: then no candidate needs a forward pass."""
        return frozenset()

    @property
    def pools(self) -> bool:
        return True

    def start(self, seed: int) -> dict[str, torch.Tensor]:
        """The chooser's own memory at the start of a run; it is saved with every checkpoint."""
        return {"seed": torch.tensor(seed), "drawn": torch.tensor(0)}

    def choose(self, rows: Rows, take: int, memory: dict[str, torch.Tensor]) -> torch.Tensor:
        """index_K, int64 in [0, rows.count): the rows to train on.  ``memory`` may be changed in place."""
        raise TypeError(f"{type(self).__module__}.Config does not say how it chooses")
