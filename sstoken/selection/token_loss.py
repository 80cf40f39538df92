"""Per-token cross-entropy from hidden states, without a [tokens, vocabulary] tensor.

Shapes: N tokens, D hidden size, V vocabulary, C tokens of one chunk.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch.nn.functional import cross_entropy

from .autocast import no_autocast

DEFAULT_CHUNK = 1024
TOP = 20
"""Logits whose entropy is measured: the number of EAFT (arXiv 2601.02151)."""

CPU_LOGITS = 6_000_000
"""24 MB of float32: a block that glibc's malloc keeps for the next pass (from 32 MB on it never does)."""

WIDENED = 2**26
"""Numbers of a narrow projection that are held in float32 at a time, on a CPU: 256 MB."""


def token_loss(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor | None,
    target_N: torch.Tensor,
    bias_V: torch.Tensor | None = None,
    *,
    chunk_size: int = DEFAULT_CHUNK,
    backward_tokens: int | None = None,
    gradient_first: bool = False,
    measure: dict[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """``loss_n = logsumexp_v(z_nv) - z_n,target(n)`` with ``z = hidden @ weight.T + bias`` (natural log).

    Works on ``chunk_size`` tokens at a time, O(chunk_size * V) memory in both directions.  The backward pass
    recomputes the logits of just those tokens whose upstream gradient is not zero, so a token that the selection
    dropped costs no backward work in the output projection.  This is ``L_θ`` of ssToken, section 3.1.

    Logits are sums in float32, never rounded to a narrower input's dtype: losses are ranked, and near 16 bfloat16's
    steps are 0.125.

    Args:
        hidden_ND: float32, bfloat16 or float64; the state at position i-1 for the target x_i. Differentiable.
        weight_VD: the output projection; its gradient is computed only if it requires one (frozen under LoRA).
            None: ``hidden_ND`` are logits_NV already, of a model that does more to them than project.
        target_N: int64 in [0, V), or negative (-100 by custom): ignored, loss 0 and no gradient.
        bias_V: optional bias of the projection; differentiable if it requires a gradient.
        chunk_size: tokens a chunk, >= 1; on a CPU no more than CPU_LOGITS logits either.
        backward_tokens: an upper bound, known to the caller, on the tokens with a non-zero upstream gradient.  With
            it the backward pass needs no host synchronisation; without it the tokens are counted, which is one.
        gradient_first: take the gradient of every loss along with the loss, while its logits exist, so that nothing is
            recomputed: less work where half the tokens or more have an upstream gradient.  Costs [N, D] memory; without
            effect where the projection or its bias is trained.
        measure: tensors [N] to be filled along with the loss, by name: "entropy" (nats) of the TOP largest logits,
            renormalised among themselves, and "collision", ``Σ_v p_v²``.  No gradient.

    Returns:
        loss_N, float32 (float64 for float64 input).

    Raises:
        ValueError: shapes that do not belong together, or chunk_size < 1.
    """
    if weight_VD is None:
        logits_NV = hidden_ND.to(torch.promote_types(hidden_ND.dtype, torch.float32))
        with torch.no_grad():
            for name, value_N in (measure or {}).items():
                exp_NV = (logits_NV - logits_NV.amax(-1, keepdim=True)).exp_()
                value_N.copy_(_distribution(name, exp_NV, exp_NV.sum(-1)))
        return cross_entropy(logits_NV, target_N.clamp_min(-1), ignore_index=-1, reduction="none")
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
    if device == "cpu":
        chunk_size = max(1, min(chunk_size, CPU_LOGITS // weight_VD.shape[0]))
    return _TokenLoss.apply(
        hidden_ND, weight_VD, bias_V, target_N, chunk_size, backward_tokens, gradient_first, measure
    )


class _Chunk:
    """The logits of one chunk at a time, in buffers that all chunks of a pass share.

    What malloc hands out anew the kernel must map and zero page by page, which cost more than the product itself.
    """

    def __init__(self, tokens, weight_VD, bias_V):
        shape = (tokens, weight_VD.shape[0])
        self.weight_VD, self.bias_V, self.project = weight_VD, bias_V, WideProjection(weight_VD)
        dtype = torch.promote_types(weight_VD.dtype, torch.float32)
        self.wide_CV = weight_VD.new_empty(shape, dtype=dtype)
        self.narrow_CV = self.wide_CV if weight_VD.dtype == dtype else weight_VD.new_empty(shape)

    def logits(self, hidden_CD):
        """Logits less their largest, a shift that changes no probability and lets exp neither overflow nor lose digits."""
        logits_CV = self.project(hidden_CD, self.wide_CV[: len(hidden_CD)])
        if self.bias_V is not None:
            logits_CV.add_(self.bias_V)
        return logits_CV.sub_(logits_CV.amax(-1, keepdim=True))

    def slope(self, exp_CV, sum_C, target_C, factor_C=None):
        """d loss / d logits, times ``factor_C``, from the exponentials and their sum, whose place it takes."""
        inverse_C = sum_C.reciprocal()
        exp_CV.mul_((inverse_C if factor_C is None else inverse_C * factor_C)[:, None])
        less_C = torch.ones_like(inverse_C) if factor_C is None else factor_C
        return exp_CV.scatter_add_(-1, target_C[:, None], -less_C[:, None])

    def narrow(self, value_CV):
        """``value_CV`` in the projection's dtype."""
        return value_CV if value_CV.dtype == self.weight_VD.dtype else self.narrow_CV[: len(value_CV)].copy_(value_CV)


class WideProjection:
    """``hidden @ weight.T`` in float32 (or wider): of narrower inputs no product and no sum is rounded to their dtype.

    weight_VD: the projection; a narrow one of up to WIDENED numbers is widened once, on a CPU, a larger one in blocks.
    """

    def __init__(self, weight_VD: torch.Tensor):
        self.weight_VD, self.dtype = weight_VD, torch.promote_types(weight_VD.dtype, torch.float32)
        self.narrow = weight_VD.dtype != self.dtype and not weight_VD.is_cuda
        if self.narrow and weight_VD.numel() <= WIDENED:
            self.weight_VD = weight_VD.to(self.dtype)
        # bfloat16 numbers in float32 clothes: the CPU's bfloat16 units multiply them exactly and sum in float32
        self.precision = "bf16" if self.narrow and weight_VD.dtype == torch.bfloat16 else None

    def __call__(self, hidden_CD: torch.Tensor, out_CV: torch.Tensor) -> torch.Tensor:
        if not self.narrow:
            options = {} if hidden_CD.dtype == self.dtype else {"out_dtype": self.dtype}
            return torch.mm(hidden_CD, self.weight_VD.T, out=out_CV, **options)
        hidden_CD = hidden_CD.to(self.dtype)
        with _matmul_precision(self.precision):
            if self.weight_VD.dtype == self.dtype:
                return torch.mm(hidden_CD, self.weight_VD.T, out=out_CV)
            rows = max(1, WIDENED // self.weight_VD.shape[1])
            for start in range(0, len(self.weight_VD), rows):
                part_VD = self.weight_VD[start : start + rows].to(self.dtype)
                out_CV[:, start : start + rows] = hidden_CD @ part_VD.T
        return out_CV


@contextmanager
def _matmul_precision(precision: str | None):
    """How a CPU may multiply float32 matrices while the context lasts; None: as before."""
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    if precision is None or before == precision:
        yield
        return
    settings.fp32_precision = precision
    try:
        yield
    finally:
        settings.fp32_precision = before


def _distribution(name: str, exp_CV: torch.Tensor, sum_C: torch.Tensor) -> torch.Tensor:
    if name == "collision":
        return (torch.linalg.vector_norm(exp_CV, dim=-1) / sum_C).square()
    if name == "entropy":
        top_CK = exp_CV.topk(min(TOP, exp_CV.shape[-1]), sorted=False).values
        return torch.special.entr(top_CK / top_CK.sum(-1, keepdim=True)).sum(-1)
    raise ValueError(f"unknown measure {name!r}; known: collision, entropy")


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_ND, weight_VD, bias_V, target_N, chunk_size, backward_tokens, gradient_first, measure):
        # a trained projection's gradient is a sum over tokens weighted by what comes from upstream: it has to wait
        gradient_first = gradient_first and ctx.needs_input_grad[0] and not any(ctx.needs_input_grad[1:3])
        with no_autocast(hidden_ND):
            count = hidden_ND.shape[0]
            loss_N = hidden_ND.new_empty(count, dtype=torch.promote_types(hidden_ND.dtype, torch.float32))
            grad_ND = torch.empty_like(hidden_ND) if gradient_first else None
            chunk = _Chunk(min(chunk_size, count), weight_VD, bias_V)
            for start in range(0, count, chunk_size):
                part = slice(start, start + chunk_size)
                exp_CV = chunk.logits(hidden_ND[part])
                target_C = target_N[part].clamp_min(0)
                chosen_C = exp_CV.gather(-1, target_C[:, None])[:, 0]
                sum_C = exp_CV.exp_().sum(-1)
                loss_N[part] = sum_C.log() - chosen_C
                for name, value_N in (measure or {}).items():
                    value_N[part] = _distribution(name, exp_CV, sum_C)
                if gradient_first:
                    grad_ND[part] = chunk.narrow(chunk.slope(exp_CV, sum_C, target_C)) @ weight_VD
            loss_N.masked_fill_(target_N < 0, 0.0)
        if gradient_first:
            ctx.save_for_backward(grad_ND, target_N)
        else:
            ctx.save_for_backward(hidden_ND, weight_VD, bias_V, target_N)
        ctx.chunk_size, ctx.backward_tokens, ctx.gradient_first = chunk_size, backward_tokens, gradient_first
        return loss_N

    @staticmethod
    def backward(ctx, upstream_N):
        if ctx.gradient_first:
            grad_ND, target_N = ctx.saved_tensors
            upstream_N = upstream_N.masked_fill(target_N < 0, 0.0)
            return (grad_ND * upstream_N[:, None]).to(grad_ND.dtype), *[None] * 7
        hidden_ND, weight_VD, bias_V, target_N = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        with no_autocast(hidden_ND):
            upstream_N = upstream_N.masked_fill(target_N < 0, 0.0)
            index_M = _nonzero(upstream_N, ctx.backward_tokens)
            grad_hidden = torch.zeros_like(hidden_ND) if need_hidden else None
            # float32 sums: thousands of bfloat16 chunk products would lose the small ones
            grad_weight = torch.zeros_like(weight_VD, dtype=upstream_N.dtype) if need_weight else None
            grad_bias = torch.zeros_like(bias_V, dtype=upstream_N.dtype) if need_bias else None
            chunk = _Chunk(min(ctx.chunk_size, index_M.shape[0]), weight_VD, bias_V)
            for start in range(0, index_M.shape[0], ctx.chunk_size):
                index_C = index_M[start : start + ctx.chunk_size]
                hidden_CD, target_C = hidden_ND[index_C], target_N[index_C].clamp_min(0)
                exp_CV = chunk.logits(hidden_CD).exp_()
                slope_CV = chunk.slope(exp_CV, exp_CV.sum(-1), target_C, upstream_N[index_C])
                if need_bias:
                    grad_bias += slope_CV.sum(0)
                slope_CV = chunk.narrow(slope_CV)
                if need_hidden:
                    grad_hidden[index_C] = slope_CV @ weight_VD
                if need_weight:
                    grad_weight += slope_CV.T @ hidden_CD
        return (
            grad_hidden,
            grad_weight.to(weight_VD.dtype) if need_weight else None,
            grad_bias.to(bias_V.dtype) if need_bias else None,
            *[None] * 5,
        )


def _nonzero(upstream_N: torch.Tensor, bound: int | None) -> torch.Tensor:
    """Positions of the non-zero entries in order; with a bound, a tensor of just that length (the rest are zeros'
    positions, whose gradient comes out as zero), found without asking the device how many there are."""
    if bound is None:
        return upstream_N.nonzero()[:, 0]
    return torch.argsort(upstream_N == 0, stable=True)[: min(bound, upstream_N.shape[0])]
