"""LoRA layers whose backward pass keeps a fraction of the memory: PEFT's equation, computed with less moved about.

PEFT casts a layer's input to the adapter's float32, draws dropout in float32, and autograd keeps both the noise and the
product for each of seven projections a layer: more than all other activations together.  Here a layer keeps the input
that its neighbours keep as well, a byte a dropout draw, and the r numbers between the two factors.

Shapes: N tokens, I inputs, O outputs, r the adapter's rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from peft.tuners.lora.layer import Linear
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from sstoken.selection.autocast import no_autocast

DRAWS = 2**16
"""Shares of kept inputs come in steps of one in so many."""


def kept_share(dropout: float) -> float:
    """The share of inputs that ``kept_inputs`` keeps, and by whose inverse they are scaled up; for dropout < 1."""
    return max(round((1 - dropout) * DRAWS), 1) / DRAWS


def kept_inputs(like_NI: torch.Tensor, share: float) -> torch.Tensor:
    """int8 like ``like_NI``: 1 with probability ``share``, of ``kept_share``, else 0, from the device's default generator.

    On a CPU from its raw bits, four draws a number: bernoulli_ takes four times as long, and a tenth of a whole step.
    """
    if like_NI.device.type != "cpu":
        return torch.empty_like(like_NI, dtype=torch.int8).bernoulli_(share)
    bits = torch.empty((like_NI.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    mask = bits[: like_NI.numel()] <= round(share * DRAWS) - DRAWS // 2 - 1
    return mask.view(torch.int8).view(like_NI.shape)


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input_NI, weight_OI, bias_O, down_rI, up_Or, scaling, dropout):
        autocast = torch.is_autocast_enabled(input_NI.device.type)
        dtype = torch.get_autocast_dtype(input_NI.device.type) if autocast else down_rI.dtype
        with no_autocast(input_NI):
            input_NI = input_NI.to(dtype if autocast else weight_OI.dtype)
            dropped_NI, mask_NI = input_NI, None
            if dropout:
                share = kept_share(dropout)
                mask_NI = kept_inputs(input_NI, share)
                dropped_NI, scaling = input_NI * mask_NI, scaling / share
            down_rI, up_Or = down_rI.to(dtype), up_Or.to(dtype)
            middle_Nr = (down_rI @ dropped_NI.to(dtype).T).T
            bias_O = None if bias_O is None else bias_O.to(input_NI.dtype)
            output_NO = linear(input_NI, weight_OI.to(input_NI.dtype), bias_O)
            output_NO = output_NO.to(dtype).addmm_(middle_Nr, up_Or.T, alpha=scaling).to(output_NO.dtype)
        ctx.save_for_backward(input_NI, weight_OI, down_rI, up_Or, mask_NI, middle_Nr)
        ctx.scaling = scaling
        return output_NO

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_NO):
        input_NI, weight_OI, down_rI, up_Or, mask_NI, middle_Nr = ctx.saved_tensors
        dtype = down_rI.dtype
        with no_autocast(grad_NO):
            wide_NO = grad_NO.to(dtype)
            grad_up_Or = (middle_Nr.T @ wide_NO).T.mul_(ctx.scaling)
            grad_middle_Nr = (up_Or.T @ wide_NO.T).T.mul_(ctx.scaling)
            dropped_NI = input_NI if mask_NI is None else input_NI * mask_NI
            grad_down_rI = grad_middle_Nr.T @ dropped_NI.to(dtype)
            grad_NI = None
            if ctx.needs_input_grad[0]:
                grad_NI = (grad_middle_Nr @ down_rI).to(input_NI.dtype)
                if mask_NI is not None:
                    grad_NI.mul_(mask_NI)
                grad_NI.addmm_(grad_NO, weight_OI.to(grad_NO.dtype))
        return grad_NI, None, None, grad_down_rI, grad_up_Or, None, None


def _forward(module: Linear, x: torch.Tensor, *args, **options) -> torch.Tensor:
    name = module.active_adapters[0] if len(module.active_adapters) == 1 else None
    plain = name in module.lora_A and name not in module.lora_variant and not (args or options)
    if not plain or module.disable_adapters or module.merged or not torch.is_grad_enabled():
        return type(module).forward(module, x, *args, **options)
    dropout = getattr(module.lora_dropout[name], "p", 0.0) if module.training else 0.0
    if dropout == 1:  # nothing is left to scale up
        return type(module).forward(module, x)
    base, factors = module.get_base_layer(), (module.lora_A[name].weight, module.lora_B[name].weight)
    output = _LoraLinear.apply(
        x.reshape(-1, x.shape[-1]), base.weight, base.bias, *factors, module.scaling[name], dropout
    )
    return output.view(*x.shape[:-1], output.shape[-1])  # of no token at all too


@contextmanager
def lean_adapters(model: torch.nn.Module) -> Iterator[None]:
    """While the context lasts, plain LoRA on frozen plain linear layers runs in fewer and smaller pieces.

    What is computed is PEFT's ``W x + b + scaling · B A dropout(x)``, in the adapter's dtype (autocast's, where that is on).
    Dropout is PEFT's in distribution; the draws are others (``kept_inputs``).  Any other adapter, and whatever is
    merged, disabled or mixed, is left to PEFT.
    """
    changed = [
        module
        for module in model.modules()
        if type(module) is Linear
        and type(base := module.get_base_layer()) is torch.nn.Linear
        and not any(parameter.requires_grad for parameter in base.parameters())
        and not any(module.lora_bias.values())
    ]
    for module in changed:
        module.forward = partial(_forward, module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward
