"""One forward pass over ragged samples: losses and attention mass of each as if it stood alone.

Packed, where the model allows it: samples lie end to end in one row, without padding.  Each attends only to itself
through transformers' ``AttentionInterface``, which hands over every layer's final query and key (after rotary embedding
and norms): the chosen layer's attention mass is taken on the way, without a second pass and without unwrapping adapters
or shards.  What comes after the last layer's attention is computed only where a state is wanted: of a prompt, nowhere.

Padded, where it does not (``padding``): the model's own forward, a sample a row.  Which of the two is right for a model
is measured, not known by name (``selftest``).

In both the output projection is replaced for the duration of a pass by a function of the last hidden state, so that
logits never exist for all tokens.

Shapes: N tokens of all samples end to end, R positions whose last state is wanted, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from sstoken.models.anatomy import attend_by, causal_lm, set_attention, shortened_layer
from sstoken.selection import attention_mass
from sstoken.training.padding import PADDED, forget_batch, padded_pass, replaced_forward, wide_logits
from sstoken.training.segments import Projection, Route, Segments

ATTENTION = "sstoken_packed"

_routes: WeakKeyDictionary[torch.nn.Module, Route] = WeakKeyDictionary()
"""Of models within ``packed_attention``."""


def packed_attend(module, query, key, value, attention_mask, dropout=0.0, scaling=None, segments=None, **options):
    if segments is None:
        raise RuntimeError(
            f"{type(module).__name__} was not told where samples lie: attention {ATTENTION!r} runs only through "
            "sstoken.training.packing.forward; call model.set_attn_implementation('sdpa') to use this model elsewhere"
        )
    window, name = options.get("sliding_window"), type(module).__name__
    if options.get("softcap") or options.get("s_aux") is not None:
        raise NotImplementedError(f"{name} caps its scores or attends to sinks, which samples in one row cannot have")
    if window and max(segments.lengths) > window:
        raise NotImplementedError(f"{name} looks {window} tokens back; a sample has {max(segments.lengths)}")
    if attention_mask is not None or options.get("position_bias") is not None or options.get("is_causal") is False:
        raise NotImplementedError(f"{name} brings a mask of its own, or a bias")
    rows, masses = [], []
    take_mass = segments.wants(getattr(module, "layer_idx", None))
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
        segments.take(module.layer_idx, torch.cat(masses))
    return torch.cat(rows, dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, packed_attend)


def _last_layer(layer, hidden_states, segments=None, **options):
    """The layer's own equation, its second half for the wanted positions alone."""
    if segments is None:  # the padded pass
        return type(layer).forward(layer, hidden_states, **options)
    attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), segments=segments, **options)
    wanted_1RD = (hidden_states + attended).index_select(1, segments.position_R)
    segments.taken = True
    return wanted_1RD + layer.mlp(layer.post_attention_layernorm(wanted_1RD))


@contextmanager
def on_route(model: torch.nn.Module, route: Route) -> Iterator[None]:
    """``packed_attention`` on a route that the caller knows."""
    lm, last = causal_lm(model), shortened_layer(model) if route.packed else None
    _routes[lm] = route
    try:
        with attend_by(lm, _attention(route, route.packed)):
            if last is None:
                yield
            else:
                with replaced_forward(last, partial(_last_layer, last)):
                    yield
    finally:
        del _routes[lm]
        forget_batch()


def _attention(route: Route, packed: bool) -> str | None:
    return ATTENTION if packed else {"function": PADDED, "eager": "eager", None: None}[route.attention]


@contextmanager
def packed_attention(model: torch.nn.Module) -> Iterator[None]:
    """Losses are found by ``forward`` while the context lasts; afterwards the model attends as before.

    To be left only after the backward pass: activation checkpointing runs layers again in it.

    Raises:
        NotImplementedError: the model's losses can be found in neither way (see ``selftest``).
    """
    from sstoken.training.selftest import route_of  # which runs the passes of this file

    with on_route(model, route_of(model)):
        yield


def forward(
    model: torch.nn.Module,
    input_ids_N: torch.Tensor,
    position_ids_N: torch.Tensor,
    segments: Segments,
    project: Projection,
) -> torch.Tensor:
    """Run the model on one row of samples; return what ``project`` makes of the last hidden states at ``position_R``.

    ``project`` is called in place of the output projection, inside the model's own forward: under a sharded wrapper
    the weights are whole just there.  Of a model that does more to its logits than project, it gets these:
    ``project(logits_RV, None, None)``.

    Raises:
        RuntimeError: outside of ``packed_attention``.
        NotImplementedError: the chosen layer's attention mass cannot be had.
    """
    lm = causal_lm(model)
    route = _routes.get(lm)
    if route is None:
        raise RuntimeError("sstoken.training.packing.forward runs only within packed_attention(model)")
    if route.limit is not None and max(segments.lengths) > route.limit:
        raise NotImplementedError(
            f"{type(lm).__name__} takes other rotary frequencies from {route.limit} tokens on, for a whole batch; a sample "
            f"has {max(segments.lengths)}: set text.max_length to {route.limit}"
        )
    packed = route.packs(segments.lengths)
    if route.packed and (lm.config._attn_implementation == ATTENTION) != packed:
        set_attention(lm, _attention(route, packed))  # put back when the context is left
    if packed:
        output = _packed_pass(model, route, input_ids_N, position_ids_N, segments, project)
    else:
        output = padded_pass(model, route, input_ids_N, segments, project)
    if segments.mass_layer is not None and segments.mass_N is None:
        raise NotImplementedError(f"{type(lm).__name__}: layer {segments.mass_layer} gives no attention mass")
    return output


def _packed_pass(model, route, input_ids_N, position_ids_N, segments, project):
    head = causal_lm(model).get_output_embeddings()
    own_logits = wide_logits(head)

    def project_wanted(hidden_1ND):
        hidden_1RD = hidden_1ND if segments.taken else hidden_1ND.index_select(1, segments.position_R)
        return project(hidden_1RD[0], head.weight, head.bias) if route.linear_head else own_logits(hidden_1RD)

    with replaced_forward(head, project_wanted):
        logits = model(
            input_ids=input_ids_N[None], position_ids=position_ids_N[None], segments=segments, use_cache=False
        ).logits
    return logits if route.linear_head else project(logits[0], None, None)
