"""Response-to-prompt attention mass of one layer, without a [positions, positions] tensor.

Shapes: B samples, H query heads, G key/value heads (H a multiple of G), T positions, K head size.
"""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from .autocast import no_autocast


@torch.no_grad()
def attention_mass(
    query_BHTK: torch.Tensor, key_BGTK: torch.Tensor, prompt_mask_BT: torch.Tensor, *, scale: float | None = None
) -> torch.Tensor:
    """``mass_i = mean_h sum_{j <= i, j in prompt} softmax_{j <= i}(scale * q_hi . k_hj)``: AttnScore of ssToken (Eq. 7).

    A softmax-weighted sum of the prompt indicator is what attention computes when its *values* are that indicator, so
    any fused attention kernel gives the mass in O(T) memory.  Queries and keys are those the layer attends with: after
    rotary embedding and norms.  Not differentiable: selection is a decision, not a path for gradients.

    Args:
        query_BHTK, key_BGTK: float32, float64 or bfloat16; narrower than float32 is computed in float32, since scores
            are ranked and bfloat16 has under three digits.
        prompt_mask_BT: bool, True where the token belongs to the prompt. Padding on the right does no harm (causality)
            so long as it is False here.
        scale: factor of the dot product; None for ``K ** -0.5``.

    Returns:
        mass_BT in [0, 1], float32 (float64 for float64 input), at every position, prompt ones included.

    Raises:
        ValueError: shapes that do not belong together.
    """
    batch, heads, length, size = query_BHTK.shape
    groups = key_BGTK.shape[1]
    if key_BGTK.shape != (batch, groups, length, size) or heads % groups or prompt_mask_BT.shape != (batch, length):
        raise ValueError(
            "attention_mass needs query [B, H, T, K], key [B, G, T, K] with H a multiple of G, and prompt mask [B, T]; got "
            f"{tuple(query_BHTK.shape)}, {tuple(key_BGTK.shape)}, {tuple(prompt_mask_BT.shape)}"
        )
    if scale is not None and not scale > 0:
        raise ValueError(f"scale must be positive, not {scale}")
    dtype = torch.promote_types(query_BHTK.dtype, torch.float32)
    if length == 0:
        return query_BHTK.new_zeros(batch, length, dtype=dtype)
    with no_autocast(query_BHTK):
        query_BHTK, key_BGTK = query_BHTK.to(dtype), key_BGTK.to(dtype)
        # fused kernels want values as wide as the keys and dense in the last axis, else they fall back to [T, T]:
        # the indicator is written once for K columns and only viewed H times
        value_B1TK = prompt_mask_BT.to(dtype)[:, None, :, None].expand(batch, 1, length, size).contiguous()
        value_BHTK = value_B1TK.expand(batch, heads, length, size)
        key_BHTK = key_BGTK.repeat_interleave(heads // groups, dim=1) if heads != groups else key_BGTK
        mass_BHTK = scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK, is_causal=True, scale=scale)
        return mass_BHTK[..., 0].mean(1).clamp_(0.0, 1.0)
