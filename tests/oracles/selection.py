"""The selection module's equations, the slow and obvious way: full logits, one softmax a query, sorting in Python.

Written from the definitions alone. Differentiable where the fast path is, and in float64 inside: what they answer is
taken as the truth.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch


def token_loss(hidden_ND, weight_VD, target_N, bias_V=None, *, compute_dtype=torch.float64):
    """loss_n = -log softmax(W h_n + b)[target_n], and zero where the target is -100."""
    logits_NV = hidden_ND.to(compute_dtype) @ weight_VD.to(compute_dtype).T
    if bias_V is not None:
        logits_NV = logits_NV + bias_V.to(compute_dtype)
    picked_N = logits_NV.log_softmax(-1).gather(1, target_N.long().clamp(min=0)[:, None])[:, 0]
    return torch.where(target_N == -100, 0.0, -picked_N)


def attention_mass(query_BHTK, key_BGTK, prompt_mask_BT, scale=None):
    """mass_i = mean over query heads of the softmax over j <= i of (q_i . k_j) scale, summed over prompt positions j."""
    B, H, T, K = query_BHTK.shape
    queries_per_key_head = H // key_BGTK.shape[1]
    scale = 1 / math.sqrt(K) if scale is None else scale
    mass_BT = torch.zeros(B, T, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            key_TK = key_BGTK[b, h // queries_per_key_head].double()
            for i in range(T):
                share_j = (key_TK[: i + 1] @ query_BHTK[b, h, i].double() * scale).softmax(0)
                mass_BT[b, i] += share_j[prompt_mask_BT[b, : i + 1]].sum() / H
    return mass_BT


def minmax(value_BT, mask_BT, eps=1e-8):
    """(v - min) / (max - min + eps) over one row's masked values; zero elsewhere."""
    out_BT = torch.zeros(value_BT.shape, dtype=torch.float64)
    for b, (value_T, mask_T) in enumerate(zip(value_BT.tolist(), mask_BT.tolist(), strict=True)):
        inside = [v for v, m in zip(value_T, mask_T, strict=True) if m]
        for t, (v, m) in enumerate(zip(value_T, mask_T, strict=True)):
            if m:
                out_BT[b, t] = (v - min(inside)) / (max(inside) - min(inside) + eps)
    return out_BT


def kept_count(response_count: int, keep_ratio: float, rounding: str = "ceil") -> int:
    """ceil or floor of rho n, rho being the decimal number that was written, not its binary neighbour."""
    return {"ceil": math.ceil, "floor": math.floor}[rounding](Fraction(str(keep_ratio)) * response_count)


def keep_top(score_BT, response_mask_BT, keep_ratio, scope="sample", rounding="ceil"):
    """The kept_count best response positions of each group: higher first, NaN last of all, ties to the earlier one."""
    rows, columns = score_BT.shape
    everywhere = [(b, t) for b in range(rows) for t in range(columns)]
    groups = [[p for p in everywhere if p[0] == b] for b in range(rows)] if scope == "sample" else [everywhere]
    keep_BT = torch.zeros(rows, columns, dtype=torch.bool)
    score, mask = score_BT.tolist(), response_mask_BT.tolist()
    for group in groups:
        response = [(b, t) for b, t in group if mask[b][t]]
        nan = {(b, t): math.isnan(score[b][t]) for b, t in response}
        best_first = sorted(response, key=lambda p: (nan[p], 0.0 if nan[p] else -score[p[0]][p[1]], p))
        for b, t in best_first[: kept_count(len(response), keep_ratio, rounding)]:
            keep_BT[b, t] = True
    return keep_BT
