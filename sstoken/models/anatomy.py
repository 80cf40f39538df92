"""What a transformers causal language model is made of: its layers, its output projection, how it attends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedConfig, PreTrainedModel
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


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The part of a config that speaks of text: of a model for text alone, the config itself."""
    return config.get_text_config(decoder=True)


def text_part(model: torch.nn.Module) -> torch.nn.Module:
    """The module of the layers that read text, or the whole model where it has no such module."""
    lm = causal_lm(model)
    decoder = lm.get_decoder()
    return decoder if isinstance(decoder, PreTrainedModel) or hasattr(decoder, "layers") else lm


def has_experts(model: torch.nn.Module) -> bool:
    """Whether it is a mixture of experts."""
    return any("expert" in name for name, _ in model.named_parameters())


def check_trainable(model: torch.nn.Module) -> None:
    """Raise, in one sentence, where the loss that is trained here would not be the one that the model stands for."""
    lm = causal_lm(model)
    name, config = type(lm).__name__, text_config(lm.config)
    if lm.config.is_encoder_decoder:
        raise NotImplementedError(f"{name} is an encoder-decoder; only causal language models are trained here")
    for adapter in getattr(model, "peft_config", {}).values():
        if adapter.is_prompt_learning:
            raise NotImplementedError(
                f"{adapter.peft_type.value} puts tokens of its own before every sample, so that positions are no longer "
                "those of the data; use LoRA, or train all weights"
            )
    if any(getattr(part, "output_router_logits", False) for part in (config, lm.config)):
        raise NotImplementedError(
            f"{name}: output_router_logits asks for the auxiliary loss that balances experts, which is not trained here; "
            "set it to false in the model's config.json"
        )
    if lm.get_output_embeddings() is None:
        raise NotImplementedError(f"{name} has no output projection over a vocabulary")


def shortened_layer(model: torch.nn.Module) -> torch.nn.Module | None:
    """The last layer, where it is one that ``packed_attention`` shortens."""
    layers = getattr(causal_lm(model).get_decoder(), "layers", None)
    known = layers is not None and any(type(layers[-1]).forward is kind.forward for kind in PRE_NORM)
    return layers[-1] if known else None


def layer_index(model: torch.nn.Module, layer: str | int) -> int:
    """ "shallow" is the first layer, "middle" the one at half depth, "deep" the last (as in ssToken's release)."""
    count = text_config(causal_lm(model).config).num_hidden_layers
    index = {"shallow": 0, "middle": count // 2, "deep": count - 1}.get(layer, layer)
    if not isinstance(index, int) or not 0 <= index < count:
        raise ValueError(
            f"attention_layer must be shallow, middle, deep or 0 to {count - 1} for this model, not {layer!r}"
        )
    return index


def set_attention(lm: PreTrainedModel, implementation: str | None) -> None:
    """Attend by one of transformers' ``AttentionInterface``; None, or a model that cannot choose: as it does."""
    if implementation is not None and lm._can_set_attn_implementation():
        lm.set_attn_implementation(implementation)


@contextmanager
def attend_by(lm: PreTrainedModel, implementation: str | None) -> Iterator[None]:
    """``set_attention`` while the context lasts; afterwards every part of the model attends as before."""
    configs = {id(part.config): part.config for part in lm.modules() if isinstance(part, PreTrainedModel)}
    before = [(config, config._attn_implementation) for config in configs.values()]
    set_attention(lm, implementation)
    try:
        yield
    finally:
        for config, value in before:
            config._attn_implementation = value
