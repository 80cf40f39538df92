"""How far a model has moved from its base: the divergence of their predictions, without [tokens, vocabulary] tensors.

Shapes: N tokens, D hidden size, V vocabulary, C tokens of one chunk.
"""

from __future__ import annotations

import torch

from .autocast import no_autocast
from .token_loss import CPU_LOGITS, DEFAULT_CHUNK, WideProjection


def anchor_divergence(
    hidden_ND: torch.Tensor,
    base_ND: torch.Tensor,
    weight_VD: torch.Tensor | None,
    bias_V: torch.Tensor | None = None,
    *,
    chunk_size: int = DEFAULT_CHUNK,
) -> torch.Tensor:
    """``KL(base ‖ θ)_n = Σ_v p_base(v) · (ln p_base(v) - ln p_θ(v))``, both through one frozen projection (ASFT's anchor).

    Its gradient in the logits is ``p_θ - p_base``: cross-entropy against a soft target.

    Args:
        hidden_ND: float32, bfloat16 or float64; states of the trained model. Differentiable.
        base_ND: states of the base at the same positions; no gradient.
        weight_VD, bias_V: the output projection, frozen; weight None: the states are logits already.
        chunk_size: tokens a chunk, >= 1; on a CPU no more than CPU_LOGITS logits either.

    Returns:
        divergence_N >= 0 (nats), float32 (float64 for float64 input).

    Raises:
        ValueError: shapes that do not belong together, or a projection that is trained.
    """
    if weight_VD is None and hidden_ND.shape == base_ND.shape:
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        own_NV, base_NV = (logits_NV.to(wide).log_softmax(-1) for logits_NV in (hidden_ND, base_ND.detach()))
        return (base_NV.exp() * (base_NV - own_NV)).sum(-1)
    if (
        weight_VD is None
        or hidden_ND.shape != base_ND.shape
        or hidden_ND.dim() != 2
        or weight_VD.shape[1:] != hidden_ND.shape[1:]
    ):
        raise ValueError(
            f"anchor_divergence needs two states [N, D] and weight [V, D]; got {tuple(hidden_ND.shape)}, "
            f"{tuple(base_ND.shape)}, {None if weight_VD is None else tuple(weight_VD.shape)}"
        )
    if weight_VD.requires_grad or (bias_V is not None and bias_V.requires_grad):
        raise ValueError("anchor_divergence needs a frozen projection: base and trained model share it")
    device = hidden_ND.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VD.dtype
    if device == "cpu":
        chunk_size = max(1, min(chunk_size, CPU_LOGITS // weight_VD.shape[0]))
    return _Anchor.apply(hidden_ND.to(dtype), base_ND.detach().to(dtype), weight_VD.to(dtype), bias_V, chunk_size)


class _Anchor(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_ND, base_ND, weight_VD, bias_V, chunk_size):
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        found_N, grad_ND = hidden_ND.new_empty(len(hidden_ND), dtype=wide), torch.empty_like(hidden_ND)
        with no_autocast(hidden_ND):
            project = WideProjection(weight_VD)
            for start in range(0, len(hidden_ND), chunk_size):
                part = slice(start, start + chunk_size)
                own_CV, base_CV = (
                    _log_probabilities(states_ND[part], project, bias_V) for states_ND in (hidden_ND, base_ND)
                )
                target_CV = base_CV.exp()
                found_N[part] = (target_CV * (base_CV - own_CV)).sum(-1)
                grad_ND[part] = own_CV.exp_().sub_(target_CV).to(weight_VD.dtype) @ weight_VD
        ctx.save_for_backward(grad_ND)
        return found_N

    @staticmethod
    def backward(ctx, upstream_N):
        (grad_ND,) = ctx.saved_tensors
        return (grad_ND * upstream_N[:, None]).to(grad_ND.dtype), None, None, None, None


def _log_probabilities(hidden_CD, project, bias_V):
    shape = (len(hidden_CD), len(project.weight_VD))
    logits_CV = project(hidden_CD, hidden_CD.new_empty(shape, dtype=project.dtype))
    if bias_V is not None:
        logits_CV += bias_V
    return logits_CV.log_softmax(-1)
