"""Whether text fits a model: told when it is tokenised, not when a run comes to the sample."""

from __future__ import annotations

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from sstoken.data import TokenData
from sstoken.records.documents import ConfigError


def check_fits(data: TokenData, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, name: str) -> None:
    """Raise where a model cannot read its tokenizer's tokens, or samples of this length as if each stood alone.

    What ``sstoken.data.check_limits`` refuses of the data (tokens past the embedding, positions) is refused there.

    Args:
        name: the model's.

    Raises:
        ConfigError: names the tokens or the sample, and what to set.
    """
    config = config.get_text_config(decoder=True)
    vocabulary = config.vocab_size
    past = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= vocabulary)
    if past:
        listed = ", ".join(repr(token) for _, token in past[:5]) + (", …" if len(past) > 5 else "")
        raise ConfigError(
            f"{name}: its tokenizer has {len(past)} tokens past the {vocabulary} rows of the embedding ({listed}): take the "
            "tokenizer that belongs to the weights, or resize the embedding and save both"
        )
    index, limit = int(data.lengths.argmax()), switching_position(config)
    if limit is not None and (longest := int(data.lengths[index])) > limit:
        raise ConfigError(
            f"{name} takes other rotary frequencies from {limit} tokens on, for a whole batch; sample {data.ids[index]} has "
            f"{longest}: set text.max_length to {limit}"
        )


def switching_position(config: PreTrainedConfig) -> int | None:
    """The length from which a model's rotary frequencies are others for the whole batch; None where there is none."""
    rope = getattr(config, "rope_parameters", None) or {}
    parts = [part for part in rope.values() if isinstance(part, dict)] or [rope]
    limits = []
    for part in parts:
        if part.get("rope_type") in ("dynamic", "longrope"):
            original = part.get("original_max_position_embeddings")
            original = original or getattr(config, "original_max_position_embeddings", None)
            limits.append(original or config.max_position_embeddings)
    return min(limits, default=None)
