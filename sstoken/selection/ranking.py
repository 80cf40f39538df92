"""From scores to a keep mask: min-max, kept counts, top share within sample, batch or dataset.

Shapes: B samples, T positions.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

Scope = Literal["sample", "batch", "dataset"]
Rounding = Literal["ceil", "floor"]


def minmax(value_BT: torch.Tensor, mask_BT: torch.Tensor, eps: float = 1e-8) -> torch.Tensor:
    """``(v - min) / (max - min + eps)`` over the masked positions of each row (ssToken, Eq. 8).

    Args:
        value_BT: floating.
        mask_BT: bool; other positions come out as 0 and count for nothing, whatever they hold.
        eps: keeps a constant row at 0 instead of 0/0.

    Returns:
        value_BT's dtype and shape, in [0, 1] inside the mask.
    """
    if value_BT.shape[-1] == 0:
        return torch.zeros_like(value_BT)
    low_B1 = value_BT.masked_fill(~mask_BT, float("inf")).amin(-1, keepdim=True)
    high_B1 = value_BT.masked_fill(~mask_BT, float("-inf")).amax(-1, keepdim=True)
    return ((value_BT - low_B1) / (high_B1 - low_B1 + eps)).masked_fill(~mask_BT, 0.0)


@lru_cache
def _fraction(keep_ratio: float) -> Fraction:
    # 0.55 means 55/100: in binary 0.55 * 20 rounds up past 11 and its ceiling would keep a token too many.  Twelve
    # digits keep n * numerator within int64 for millions of tokens, and read 1/3 as a third
    fraction = Fraction(str(keep_ratio)).limit_denominator(10**12)
    if not 0 <= fraction <= 1:
        raise ValueError(f"keep_ratio must lie in [0, 1], not {keep_ratio}")
    return fraction


def kept_count(
    response_count: int | torch.Tensor, keep_ratio: float, rounding: Rounding = "ceil"
) -> int | torch.Tensor:
    """``ceil(ρ·n)`` (ssToken) or ``floor(ρ·n)`` (TokenCleaning), ρ read as the decimal that it was written as.

    Args:
        response_count: n, an int or an int64 tensor.
        keep_ratio: ρ in [0, 1].
        rounding: "ceil" or "floor".

    Returns:
        The same type as response_count.
    """
    fraction = _fraction(float(keep_ratio))
    product = response_count * fraction.numerator
    if rounding == "ceil":
        return -((-product) // fraction.denominator)
    if rounding == "floor":
        return product // fraction.denominator
    raise ValueError(f"rounding must be 'ceil' or 'floor', not {rounding!r}")


def rank_share(value_N: torch.Tensor) -> torch.Tensor:
    """``#{j: v_j < v_i} / N``, float32 in [0, 1); of equal values the earlier one counts as smaller."""
    place_N = torch.empty_like(value_N, dtype=torch.float64)
    place_N[value_N.argsort(stable=True)] = torch.arange(len(value_N), dtype=torch.float64, device=value_N.device)
    return (place_N / max(len(value_N), 1)).float()


def keep_top(
    score_BT: torch.Tensor,
    response_mask_BT: torch.Tensor,
    keep_ratio: float,
    *,
    scope: Scope = "sample",
    rounding: Rounding = "ceil",
) -> torch.Tensor:
    """Mark the ``kept_count`` response tokens with the highest scores.

    Ties go to the earlier position (row by row for "batch" and "dataset"), so the mask is deterministic.  NaN ranks
    below every number.  "sample" and "batch" need no host synchronisation; "dataset" is meant for whole data sets held
    in flat arrays (one row) and selects in linear time.

    Args:
        score_BT: floating, higher = keep.
        response_mask_BT: bool; nothing outside it is ever kept.
        keep_ratio: ρ in [0, 1], the kept share of response tokens.
        scope: rank within each row, or over all rows at once ("batch" and "dataset" mean the same set of rows).
        rounding: of ρ·n.

    Returns:
        keep_BT, bool.
    """
    if score_BT.shape != response_mask_BT.shape or score_BT.dim() != 2:
        raise ValueError(
            f"keep_top needs score and mask [B, T]; got {tuple(score_BT.shape)}, {tuple(response_mask_BT.shape)}"
        )
    score_BT = score_BT.detach()
    if scope == "sample":
        return _keep_rows(
            score_BT, response_mask_BT, kept_count(response_mask_BT.sum(-1, keepdim=True), keep_ratio, rounding)
        )
    if scope == "batch":
        flat_mask_1N = response_mask_BT.reshape(1, -1)
        count_11 = kept_count(flat_mask_1N.sum(-1, keepdim=True), keep_ratio, rounding)
        return _keep_rows(score_BT.reshape(1, -1), flat_mask_1N, count_11).reshape(score_BT.shape)
    if scope == "dataset":
        return _keep_flat(score_BT, response_mask_BT, keep_ratio, rounding)
    raise ValueError(f"scope must be 'sample', 'batch' or 'dataset', not {scope!r}")


def _keep_rows(score_BT, mask_BT, count_B1):
    # two stable sorts: by score, then numbers before NaN before what is not response, so that a response token at -inf
    # still outranks padding
    wrong_BT = score_BT.isnan()
    order_BT = score_BT.masked_fill(wrong_BT, float("-inf")).sort(dim=-1, descending=True, stable=True).indices
    group_BT = torch.where(mask_BT, wrong_BT.to(torch.uint8), 2).gather(-1, order_BT)
    order_BT = order_BT.gather(-1, group_BT.sort(dim=-1, stable=True).indices)
    rank_T = torch.arange(score_BT.shape[-1], device=score_BT.device)
    return torch.zeros_like(mask_BT).scatter(-1, order_BT, rank_T < count_B1)


def _keep_flat(score_BT, mask_BT, keep_ratio, rounding):
    whole = bool(mask_BT.all())
    score_N = score_BT.reshape(-1) if whole else score_BT[mask_BT]
    count = kept_count(score_N.shape[0], keep_ratio, rounding)
    numbers = score_N.shape[0] - int(score_N.isnan().sum())
    if count == 0:
        keep_N = torch.zeros_like(score_N, dtype=torch.bool)
    elif count >= numbers:
        wrong_N = score_N.isnan()
        keep_N = ~wrong_N
        keep_N[wrong_N.nonzero()[: count - numbers, 0]] = True
    else:
        threshold = _kth_largest(score_N, int(count), numbers)
        keep_N = score_N > threshold
        keep_N[(score_N == threshold).nonzero()[: count - int(keep_N.sum()), 0]] = True
    return keep_N.reshape(mask_BT.shape) if whole else torch.zeros_like(mask_BT).masked_scatter(mask_BT, keep_N)


def _kth_largest(score_N: torch.Tensor, k: int, numbers: int) -> float:
    """The k-th largest of the ``numbers`` scores that are not NaN."""
    if score_N.device.type == "cpu":
        # numpy's partition is several times faster than torch's; it has no bfloat16, which float32 holds exactly.  NaN
        # sorts to its end
        array_N = (score_N if score_N.dtype in (torch.float32, torch.float64) else score_N.float()).numpy()
        return float(np.partition(array_N, numbers - k)[numbers - k])
    score_N = score_N.masked_fill(score_N.isnan(), float("-inf"))
    return score_N.kthvalue(score_N.shape[0] - k + 1).values  # type: ignore[return-value]  # stays on the device
