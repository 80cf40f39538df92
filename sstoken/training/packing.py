"""One forward pass over ragged samples without padding: samples lie end to end in one row.

Each sample attends only to itself through transformers' ``AttentionInterface``, which hands over every layer's final
query and key (after rotary embedding and norms): the chosen layer's attention mass is taken on the way, for any
architecture, without a second pass and without unwrapping adapters or shards.  The output projection is replaced for the
duration of a pass by a function of the last hidden state, so that logits never exist for all tokens.  What comes after
the last layer's attention is computed only where a state is wanted: of a prompt, nowhere.

Shapes: N tokens of all samples end to end, R positions whose last state is wanted, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from sstoken.models.anatomy import causal_lm, shortened_layer
from sstoken.selection import attention_mass

ATTENTION = "sstoken_packed"

Projection = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""(hidden_RD, weight_VD, bias_V or None) -> any tensor; called inside the model's forward."""


@dataclass
class Segments:
    """Where each sample lies in the row, whose states are wanted, and which layer's attention mass to take.

    lengths: tokens a sample, host integers, so that no shape depends on the device.
    position_R: int64, the positions whose last state is projected; each at most once.
    mass_layer: index of the layer, or None.
    prompt_mask_N: bool, needed with mass_layer.
    mass_N: float32, filled by the pass.
    taken: whether the last layer has already left the other positions behind; filled by the pass.
    """

    lengths: tuple[int, ...]
    position_R: torch.Tensor
    mass_layer: int | None = None
    prompt_mask_N: torch.Tensor | None = None
    mass_N: torch.Tensor | None = field(default=None, init=False)
    taken: bool = field(default=False, init=False)


def _packed_attention(module, query, key, value, attention_mask, dropout=0.0, scaling=None, segments=None, **options):
    if segments is None:
        raise RuntimeError(
            f"attention {ATTENTION!r} runs only through sstoken.training.packing.forward; call "
            "model.set_attn_implementation('sdpa') to use this model elsewhere"
        )
    window = options.get("sliding_window")
    if options.get("softcap") or options.get("s_aux") is not None or (window and max(segments.lengths) > window):
        raise NotImplementedError(
            f"{type(module).__name__}: logit soft-capping, attention sinks and windows shorter than a sample are not "
            "supported without padding"
        )
    rows, masses = [], []
    take_mass = module.layer_idx == segments.mass_layer
    split = [tensor.split(segments.lengths, dim=2) for tensor in (query, key, value)]
    prompt = segments.prompt_mask_N.split(segments.lengths) if take_mass else [None] * len(segments.lengths)
    grouped = query.shape[1] != key.shape[1]
    for query_1HTK, key_1GTK, value_1GTK, prompt_T in zip(*split, prompt, strict=True):
        rows.append(
            scaled_dot_product_attention(
                query_1HTK, key_1GTK, value_1GTK, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped
            )
        )
        if take_mass:
            masses.append(attention_mass(query_1HTK.detach(), key_1GTK.detach(), prompt_T[None], scale=scaling)[0])
    if take_mass:
        segments.mass_N = torch.cat(masses)
    return torch.cat(rows, dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _packed_attention)


def _last_layer(layer, hidden_states, segments=None, **options):
    """The layer's own equation, its second half for the wanted positions alone."""
    attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), segments=segments, **options)
    wanted_1RD = (hidden_states + attended).index_select(1, segments.position_R)
    segments.taken = True
    return wanted_1RD + layer.mlp(layer.post_attention_layernorm(wanted_1RD))


@contextmanager
def packed_attention(model: torch.nn.Module) -> Iterator[None]:
    """Attend within segments while the context lasts; afterwards the model attends as before.

    To be left only after the backward pass: activation checkpointing runs layers again in it.
    """
    lm, last = causal_lm(model), shortened_layer(model)
    before = lm.config._attn_implementation
    lm.set_attn_implementation(ATTENTION)
    if last is not None:
        last.forward = partial(_last_layer, last)
    try:
        yield
    finally:
        lm.set_attn_implementation(before)
        if last is not None:
            del last.forward


def forward(
    model: torch.nn.Module,
    input_ids_N: torch.Tensor,
    position_ids_N: torch.Tensor,
    segments: Segments,
    project: Projection,
) -> torch.Tensor:
    """Run the model on one row of samples; return what ``project`` makes of the last hidden states at ``position_R``.

    ``project`` is called in place of the output projection, inside the model's own forward: under a sharded wrapper
    the weights are whole just there.
    """
    head = causal_lm(model).get_output_embeddings()

    def project_wanted(hidden_1ND):
        hidden_1RD = hidden_1ND if segments.taken else hidden_1ND.index_select(1, segments.position_R)
        return project(hidden_1RD[0], head.weight, head.bias)

    head.forward = project_wanted
    try:
        return model(
            input_ids=input_ids_N[None], position_ids=position_ids_N[None], segments=segments, use_cache=False
        ).logits
    finally:
        del head.forward
