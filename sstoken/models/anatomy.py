"""What a transformers causal language model is made of: its layers, its output projection, and whether we know them."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

PRE_NORM = (LlamaDecoderLayer, MistralDecoderLayer, Qwen2DecoderLayer, Qwen3DecoderLayer)
"""Layers known to be ``x + attention(norm(x))``, then ``x + mlp(norm(x))``; of others all positions run to the end."""


def causal_lm(model: torch.nn.Module) -> PreTrainedModel:
    """The transformers model under adapters and wrappers, whose output projection and config count."""
    while not isinstance(model, PreTrainedModel):
        inner = model.get_base_model() if hasattr(model, "get_base_model") else getattr(model, "module", None)
        if inner is None:
            raise TypeError(f"expected a transformers causal language model, not {type(model).__name__}")
        model = inner
    return model


def check_supported(model: torch.nn.Module) -> None:
    """Raise where the loss would not be the model's own: anything but a linear projection between state and logits."""
    lm = causal_lm(model)
    head = lm.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear):
        raise NotImplementedError(
            f"{type(lm).__name__}: the output projection must be a plain Linear, not {type(head).__name__}"
        )
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(lm.config, name, None) not in (None, 1, 1.0):
            raise NotImplementedError(
                f"{type(lm).__name__} changes its logits by {name}, which token_loss does not know"
            )


def shortened_layer(model: torch.nn.Module) -> torch.nn.Module | None:
    """The last layer, where it is one that ``packed_attention`` shortens."""
    layers = getattr(causal_lm(model).get_decoder(), "layers", None)
    known = layers is not None and any(type(layers[-1]).forward is kind.forward for kind in PRE_NORM)
    return layers[-1] if known else None


def layer_index(model: torch.nn.Module, layer: str | int) -> int:
    """ "shallow" is the first layer, "middle" the one at half depth, "deep" the last (as in ssToken's release)."""
    count = causal_lm(model).config.num_hidden_layers
    index = {"shallow": 0, "middle": count // 2, "deep": count - 1}.get(layer, layer)
    if not isinstance(index, int) or not 0 <= index < count:
        raise ValueError(
            f"attention_layer must be shallow, middle, deep or 0 to {count - 1} for this model, not {layer!r}"
        )
    return index
