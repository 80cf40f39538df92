"""Whether text fits a model: told when it is tokenised, not when a run comes to the sample."""

from __future__ import annotations

from transformers import PreTrainedConfig


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
