"""Per-token cross-entropy from hidden states, without a [tokens, vocabulary] tensor.

Shapes: N tokens, D hidden size, V vocabulary, C tokens of one chunk.
"""

from __future__ import annotations

import torch

DEFAULT_CHUNK = 1024


def token_loss(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    target_N: torch.Tensor,
    bias_V: torch.Tensor | None = None,
    *,
    chunk_size: int = DEFAULT_CHUNK,
    backward_tokens: int | None = None,
) -> torch.Tensor:
    """``loss_n = logsumexp_v(z_nv) - z_n,target(n)`` with ``z = hidden @ weight.T + bias`` (natural log).

    Works on ``chunk_size`` tokens at a time, O(chunk_size * V) memory in both directions.  The backward pass
    recomputes the logits of just those tokens whose upstream gradient is not zero, so a token that the selection
    dropped costs no backward work in the output projection.  This is ``L_θ`` of method.md (ssToken, section 3.1).

    Args:
        hidden_ND: float32, bfloat16 or float64; the state at position i-1 for the target x_i. Differentiable.
        weight_VD: the output projection; its gradient is computed only if it requires one (frozen under LoRA).
        target_N: int64 in [0, V), or negative (-100 by custom): ignored, loss 0 and no gradient.
        bias_V: optional bias of the projection; differentiable if it requires a gradient.
        chunk_size: tokens a chunk, >= 1.
        backward_tokens: an upper bound, known to the caller, on the tokens with a non-zero upstream gradient.  With
            it the backward pass needs no host synchronisation; without it the tokens are counted, which is one.

    Returns:
        loss_N, float32 (float64 for float64 input).

    Raises:
        ValueError: shapes that do not belong together, or chunk_size < 1.
    """
    if hidden_ND.dim() != 2 or weight_VD.dim() != 2 or hidden_ND.shape[1] != weight_VD.shape[1]:
        raise ValueError(
            f"token_loss needs hidden [N, D] and weight [V, D]; got {tuple(hidden_ND.shape)} and {tuple(weight_VD.shape)}"
        )
    if target_N.shape != hidden_ND.shape[:1]:
        raise ValueError(
            f"token_loss needs a target a token: hidden {tuple(hidden_ND.shape)}, target {tuple(target_N.shape)}"
        )
    if bias_V is not None and bias_V.shape != weight_VD.shape[:1]:
        raise ValueError(f"bias {tuple(bias_V.shape)} does not fit weight {tuple(weight_VD.shape)}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}")
    device = hidden_ND.device.type
    if torch.is_autocast_enabled(device):
        # autocast reaches neither a custom backward nor its matmuls: choose its dtype here, once, for both directions
        dtype = torch.get_autocast_dtype(device)
        hidden_ND, weight_VD = hidden_ND.to(dtype), weight_VD.to(dtype)
        bias_V = None if bias_V is None else bias_V.to(dtype)
    elif hidden_ND.dtype != weight_VD.dtype:
        hidden_ND = hidden_ND.to(weight_VD.dtype)
    return _TokenLoss.apply(hidden_ND, weight_VD, bias_V, target_N, chunk_size, backward_tokens)


def _logits_CV(hidden_CD, weight_VD, bias_V):
    """Logits less their largest, a shift that changes no probability and lets exp neither overflow nor lose digits."""
    logits_CV = hidden_CD @ weight_VD.T
    logits_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    if bias_V is not None:
        logits_CV.add_(bias_V)
    return logits_CV.sub_(logits_CV.amax(-1, keepdim=True))


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_ND, weight_VD, bias_V, target_N, chunk_size, backward_tokens):
        with torch.autocast(hidden_ND.device.type, enabled=False):
            count = hidden_ND.shape[0]
            loss_N = hidden_ND.new_empty(count, dtype=torch.promote_types(hidden_ND.dtype, torch.float32))
            for start in range(0, count, chunk_size):
                part = slice(start, start + chunk_size)
                logits_CV = _logits_CV(hidden_ND[part], weight_VD, bias_V)
                target_C = target_N[part].clamp_min(0)
                chosen_C = logits_CV.gather(-1, target_C[:, None])[:, 0]
                loss_N[part] = logits_CV.exp_().sum(-1).log_() - chosen_C
                del logits_CV
            loss_N.masked_fill_(target_N < 0, 0.0)
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, target_N)
        ctx.chunk_size, ctx.backward_tokens = chunk_size, backward_tokens
        return loss_N

    @staticmethod
    def backward(ctx, upstream_N):
        hidden_ND, weight_VD, bias_V, target_N = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        with torch.autocast(hidden_ND.device.type, enabled=False):
            upstream_N = upstream_N.masked_fill(target_N < 0, 0.0)
            index_M = _nonzero(upstream_N, ctx.backward_tokens)
            grad_hidden = torch.zeros_like(hidden_ND) if need_hidden else None
            # float32 sums: thousands of bfloat16 chunk products would lose the small ones
            grad_weight = torch.zeros_like(weight_VD, dtype=upstream_N.dtype) if need_weight else None
            grad_bias = torch.zeros_like(bias_V, dtype=upstream_N.dtype) if need_bias else None
            for start in range(0, index_M.shape[0], ctx.chunk_size):
                index_C = index_M[start : start + ctx.chunk_size]
                hidden_CD, target_C = hidden_ND[index_C], target_N[index_C].clamp_min(0)
                slope_CV = _logits_CV(hidden_CD, weight_VD, bias_V).exp_()
                slope_CV.div_(slope_CV.sum(-1, keepdim=True))
                slope_CV.scatter_add_(-1, target_C[:, None], torch.full_like(slope_CV[:, :1], -1.0))
                slope_CV.mul_(upstream_N[index_C, None])
                if need_bias:
                    grad_bias += slope_CV.sum(0)
                slope_CV = slope_CV.to(hidden_ND.dtype)
                if need_hidden:
                    grad_hidden[index_C] = slope_CV @ weight_VD
                if need_weight:
                    grad_weight += slope_CV.T @ hidden_CD
                del slope_CV
        return (
            grad_hidden,
            grad_weight.to(weight_VD.dtype) if need_weight else None,
            grad_bias.to(bias_V.dtype) if need_bias else None,
            None,
            None,
            None,
        )


def _nonzero(upstream_N: torch.Tensor, bound: int | None) -> torch.Tensor:
    """Positions of the non-zero entries in order; with a bound, a tensor of just that length (the rest are zeros'
    positions, whose gradient comes out as zero), found without asking the device how many there are."""
    if bound is None:
        return upstream_N.nonzero()[:, 0]
    return torch.argsort(upstream_N == 0, stable=True)[: min(bound, upstream_N.shape[0])]
