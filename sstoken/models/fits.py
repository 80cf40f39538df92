"""Whether text fits a model: told when it is tokenised, not when a run comes to the sample."""

from __future__ import annotations

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from sstoken.data import TokenData
from sstoken.records.documents import ConfigError


def check_fits(data: TokenData, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, name: str) -> None:
    """Raise where a model cannot read its tokenizer's tokens, or samples of this length.

    Args:
        name: the model's.

    Raises:
        ConfigError: names the tokens or the sample, and what to set.
    """
    config = config.get_text_config(decoder=True)
    vocabulary, largest = config.vocab_size, int(data.input_ids.max())
    if largest >= vocabulary:
        raise ConfigError(
            f"{name}: the data has token {largest} ({tokenizer.convert_ids_to_tokens(largest)!r}), the embedding only "
            f"{vocabulary} rows: the tokenizer is another model's, or tokens were added to it alone"
        )
    past = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= vocabulary)
    if past:
        listed = ", ".join(repr(token) for _, token in past[:5]) + (", …" if len(past) > 5 else "")
        raise ConfigError(
            f"{name}: its tokenizer has {len(past)} tokens past the {vocabulary} rows of the embedding ({listed}): take the "
            "tokenizer that belongs to the weights, or resize the embedding and save both"
        )
    index = int(data.lengths.argmax())
    longest = int(data.lengths[index])
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None)
    for limit, what in (
        (positions, "positions"),
        (switching_position(config), "positions before its frequencies change"),
    ):
        if limit is not None and longest > limit:
            raise ConfigError(
                f"{name} has {limit} {what}; sample {data.ids[index]} has {longest} tokens: set text.max_length to {limit}"
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
