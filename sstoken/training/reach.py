"""How long a sample may be before a model's masks say more than causality: windows, chunks, local attention.

Asked of the masks themselves: a probing pass lets transformers' mask functions through to the layers, and each that a layer
attends by is evaluated at all distances.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig

from sstoken.models.anatomy import attend_by, causal_lm, text_config
from sstoken.training.packing import packed_attend
from sstoken.training.segments import Segments

PROBE = "sstoken_probe"
FARTHEST = 2**20
ROW = re.compile("floor_scale$")
"""Llama 4 scales queries by a place that it counts along the row itself, whatever positions it is given."""
SIZES = re.compile("(window|window_size|chunk_size|local_attention|index_topk|block_size)$")


@dataclass
class _Masks:
    """What a probing pass meets: masks that the model makes, and those of them that a layer attends by."""

    made: list[Callable] = field(default_factory=list)
    used: list[Callable] = field(default_factory=list)


_masks = _Masks()


@dataclass(frozen=True)
class _Mask:
    """Stands for a mask on its way through the model."""

    function: Callable


def _probe_mask(*args, mask_function: Callable, **options) -> _Mask:
    _masks.made.append(mask_function)
    return _Mask(mask_function)


def _probe_attention(module, query, key, value, attention_mask, **options):
    if isinstance(attention_mask, _Mask):
        _masks.used.append(attention_mask.function)
        attention_mask = None
    return packed_attend(module, query, key, value, attention_mask, **options)


AttentionInterface.register(PROBE, _probe_attention)
AttentionMaskInterface.register(PROBE, _probe_mask)


def reach_of(model: torch.nn.Module, ids_T: torch.Tensor) -> int | None:
    """The longest sample of which this model's masks say no more than causality; None for any length.

    Args:
        model: one that can be packed. ids_T: a short sample.
    """
    lm, device = causal_lm(model), ids_T.device
    found = [_reach(function, device) for function in _mask_functions(model, ids_T)]
    found += [size for part in (text_config(lm.config), lm.config) for size in _sizes(part)]
    return min((reach for reach in found if reach is not None), default=None)


def row_limit(model: torch.nn.Module) -> int | None:
    """The longest row in which the places that a model counts by itself are all of the first kind; None for any."""
    config = text_config(causal_lm(model).config).to_dict()
    return min(
        (int(v) - 1 for name, v in config.items() if ROW.search(name) and isinstance(v, (int, float))), default=None
    )


def _mask_functions(model: torch.nn.Module, ids_T: torch.Tensor) -> list[Callable]:
    """Mask functions by which layers attend; where that cannot be seen, all that the model makes."""
    _masks.made, _masks.used = [], []
    places_T = torch.arange(len(ids_T), device=ids_T.device)
    segments = Segments((len(ids_T),), places_T[:-1])
    try:
        with attend_by(causal_lm(model), PROBE):
            model(input_ids=ids_T[None], position_ids=places_T[None], segments=segments, use_cache=False)
    except Exception:  # it computes with what should have been a mask
        return _masks.made
    return _masks.used


def _reach(mask_function: Callable, device: torch.device) -> int | None:
    """The longest sample of which a mask says no more than causality; None for any. 0: it lets the future in."""
    places = torch.arange(FARTHEST, device=device)
    first = places[:1]
    try:
        seen = torch.as_tensor(mask_function(first, first, places, first)).expand(FARTHEST)
        future = torch.as_tensor(mask_function(first, first, first, places[1:])).expand(FARTHEST - 1)
    except Exception:  # a mask of the model's own, which knows this batch alone
        return 0
    if bool(future.any()) or not bool(seen[0]):
        return 0
    return None if bool(seen.all()) else int((~seen).nonzero()[0, 0])


def _sizes(config: PreTrainedConfig) -> Iterator[int]:
    """Sizes by whose name attention may depend on distance: longer samples go the padded way, to be safe."""
    for name, value in config.to_dict().items():
        if SIZES.search(name) and type(value) is int and value > 1:
            yield value
