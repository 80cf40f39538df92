"""The objective of a micro-batch: signals -> scores -> keep mask -> weights, and what the step divides by.

Shapes: N tokens of a micro-batch end to end, R its response tokens, B samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sstoken.selection import Signals, keep_top
from sstoken.selection.methods import Method
from sstoken.training.collate import from_grid, from_ranked, signals_of, to_grid
from sstoken.training.scorer_check import check_scorer, check_weights


@dataclass(frozen=True)
class Choice:
    """What becomes of a micro-batch's response tokens, [R] each.

    keep_R: bool. score_R: float32. weight_R: float32, what a token's loss counts for before division by the step's items.
    raw_R: the scorer's own weights. parts: the score's ingredients, for the log. spans_B: of REL, if it is one of them:
    largest less smallest in each sample.
    """

    keep_R: torch.Tensor
    score_R: torch.Tensor
    weight_R: torch.Tensor
    raw_R: torch.Tensor
    parts: dict[str, torch.Tensor]
    spans_B: torch.Tensor | None = None


def choose(
    method: Method,
    batch: dict,
    *,
    progress: float | None = None,
    mass_N: torch.Tensor | None = None,
    check: bool = False,
    **measured_R: torch.Tensor,
) -> Choice:
    """Score a micro-batch, keep and weigh.  No host synchronisation but with ``check``.

    measured_R: signals of this step. mass_N: attention mass at every position of the row. check: whether the scorer
    keeps its contract.
    """
    scorer = method.scorer
    signals = signals_of(batch, method.needs, progress, mass_N, **measured_R)
    score_BR = scorer.score(signals)
    if check:
        check_scorer(scorer, signals, score_BR)
    score_BR = score_BR.detach()
    keep_BR = to_grid(batch["keep"], batch) if "keep" in batch else kept(method, signals, score_BR)
    keep_R, score_R = from_grid(keep_BR, batch), from_grid(score_BR, batch)
    grids = scorer.parts(signals)
    parts = {name: from_grid(value_BR, batch) for name, value_BR in grids.items()}
    spans_B = _spans(grids["rel"], signals.mask_BR) if "rel" in grids else None
    if "ranked_R" in batch:
        keep_R, score_R = from_ranked(keep_R, batch, True), from_ranked(score_R, batch, float("inf"))
        parts = {name: from_ranked(value_R, batch, 0) for name, value_R in parts.items()}
    raw_R = keep_R.float()
    if scorer.weighs:
        weight_BR = scorer.weigh(signals, keep_BR).detach()
        if check:
            check_weights(scorer, signals, weight_BR)
        raw_R = from_grid(weight_BR.float(), batch)
    return Choice(keep_R, score_R, _share(method, batch, keep_R, raw_R), raw_R, parts, spans_B)


def kept(method: Method, signals: Signals, score_BR: torch.Tensor) -> torch.Tensor:
    """keep_BR, bool: by the method's threshold or its ratio, within its scope."""
    if method.scorer.keep_above is not None:
        return (score_BR >= method.scorer.keep_above) & signals.mask_BR
    if method.keep_ratio == 1:
        return signals.mask_BR
    return keep_top(score_BR, signals.mask_BR, method.keep_ratio, scope=method.scope, rounding=method.rounding)


def _spans(value_BR: torch.Tensor, mask_BR: torch.Tensor) -> torch.Tensor:
    if value_BR.shape[1] == 0:
        return value_BR.new_zeros(len(value_BR))
    high_B = value_BR.masked_fill(~mask_BR, float("-inf")).amax(-1)
    low_B = value_BR.masked_fill(~mask_BR, float("inf")).amin(-1)
    return torch.where(mask_BR.any(-1), high_B - low_B, 0.0)


def _share(method: Method, batch: dict, keep_R: torch.Tensor, raw_R: torch.Tensor) -> torch.Tensor:
    """The weights over what a sample, or a micro-batch, divides by of its own; one that keeps nothing counts 0."""
    if method.normalisation == "micro-batch":
        return raw_R / keep_R.sum().clamp_min(1)
    if method.normalisation == "samples":
        count_B1 = to_grid(keep_R.float(), batch).sum(-1, keepdim=True)
        return raw_R / count_B1[batch["row_R"], 0].clamp_min(1)
    return raw_R


def items(method: Method, batches: Sequence[dict]) -> int:
    """What the summed loss of a step's micro-batches is divided by, as far as this process has them."""
    if method.normalisation == "tokens":
        return sum(sum(batch["kept_counts"]) for batch in batches)
    if method.normalisation == "response":
        return sum(sum(batch["response_counts"]) for batch in batches)
    if method.normalisation == "samples":
        return sum(batch["sample_count"] for batch in batches)
    return len(batches)
