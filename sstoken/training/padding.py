"""The padded pass: for models whose samples cannot lie in one row.

Samples are rows of a batch, filled up on the right, and the model runs as it always does, with an attention mask.  States
of wanted positions alone reach the output projection.

Shapes: N tokens of all samples end to end, B samples, T the longest, H heads, R wanted positions, D hidden size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

from sstoken.models.anatomy import causal_lm
from sstoken.selection.autocast import no_autocast
from sstoken.training.segments import Projection, Route, Segments

PADDED = "sstoken_padded"


class _Batch:
    """The batch that is being passed through the model: attention functions have no other way to know of it."""

    segments: Segments | None = None
    prompt_BT: torch.Tensor | None = None
    flat_N: torch.Tensor | None = None


def _mass_of(weights_BHTT: torch.Tensor) -> torch.Tensor:
    """mass_N of attention weights."""
    mass_BT = (weights_BHTT.detach().float().mean(1) * _Batch.prompt_BT[:, None, :]).sum(-1)
    return mass_BT.flatten()[_Batch.flat_N].clamp_(0.0, 1.0)


def _padded_attention(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **options):
    """The model's own attention, and the chosen layer's weights along with it."""
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    layer = getattr(module, "layer_idx", None)
    if eager is not None and _Batch.segments is not None and _Batch.segments.wants(layer):
        with torch.no_grad(), no_autocast(query):
            # in float32, since masses are ranked
            wide = [tensor.float() for tensor in (query, key, value)]
            mask = None if attention_mask is None else attention_mask.float()
            _Batch.segments.take(
                layer, _mass_of(eager(module, *wide, mask, dropout=0.0, scaling=scaling, **options)[1])
            )
    beyond = options.get("softcap") is not None or options.get("s_aux") is not None
    if beyond or options.get("position_bias") is not None:
        if eager is None:
            raise NotImplementedError(f"{type(module).__name__} has no eager attention")
        return eager(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options)
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
    )


AttentionInterface.register(PADDED, _padded_attention)
AttentionMaskInterface.register(PADDED, eager_mask)


def forget_batch() -> None:
    """Let go of the last batch's tensors."""
    _Batch.segments = _Batch.prompt_BT = _Batch.flat_N = None


def padded_pass(
    model: torch.nn.Module, route: Route, input_ids_N: torch.Tensor, segments: Segments, project: Projection
) -> torch.Tensor:
    """As ``sstoken.training.packing.forward``, a sample a row."""
    lm, device = causal_lm(model), input_ids_N.device
    count, longest = len(segments.lengths), max(segments.lengths)
    flat_N = torch.cat([torch.arange(n) + row * longest for row, n in enumerate(segments.lengths)]).to(device)
    inputs = {
        "input_ids": input_ids_N.new_zeros(count * longest).index_put((flat_N,), input_ids_N).view(count, longest)
    }
    if "attention_mask" in route.options:
        mask_BT = torch.zeros_like(inputs["input_ids"]).flatten().index_fill_(0, flat_N, 1)
        inputs["attention_mask"] = mask_BT.view(count, longest)
    if "use_cache" in route.options:
        inputs["use_cache"] = False
    wanted_R, taking = flat_N[segments.position_R], segments.mass_layer is not None
    if taking:
        prompt_BT = torch.zeros(count * longest, dtype=torch.bool, device=device)
        _Batch.prompt_BT = prompt_BT.index_put((flat_N,), segments.prompt_mask_N).view(count, longest)
        _Batch.flat_N = flat_N
        if route.attention == "eager":
            inputs["output_attentions"] = True
    _Batch.segments = segments if taking and route.attention == "function" else None
    head = lm.get_output_embeddings()
    logits = wide_logits(head)

    def project_wanted(hidden_BTD):
        hidden_RD = hidden_BTD.flatten(0, 1).index_select(0, wanted_R)
        return project(hidden_RD, head.weight, head.bias) if route.linear_head else logits(hidden_RD[None])

    with replaced_forward(head, project_wanted):
        output = model(**inputs)
    if taking and route.attention == "eager":
        for layer, weights_BHTT in enumerate(output.attentions or ()):
            if segments.wants(layer) and weights_BHTT is not None:
                segments.take(layer, _mass_of(weights_BHTT))
    return output.logits if route.linear_head else project(output.logits[0], None, None)


def wide_logits(head: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """The head's own forward, with half-precision products summed into float32: its losses are ranked."""
    own = head.forward

    def forward(hidden_1RD: torch.Tensor) -> torch.Tensor:
        if type(head) is not torch.nn.Linear or head.weight.itemsize > 2:
            return own(hidden_1RD)
        with no_autocast(hidden_1RD):
            bias = None if head.bias is None else head.bias.float()
            return torch.nn.functional.linear(hidden_1RD.float(), head.weight.float(), bias)

    return forward


class replaced_forward:
    """While the context lasts, the module computes ``function``; a forward that something else had put there comes back."""

    def __init__(self, module: torch.nn.Module, function):
        self.module, self.function = module, function

    def __enter__(self):
        self.before = vars(self.module).get("forward")
        self.module.forward = self.function

    def __exit__(self, *_):
        if self.before is None:
            del self.module.forward
        else:
            self.module.forward = self.before
