"""What a run cost, from what its trainer counted. No number of a result passes through here."""

from __future__ import annotations

from sstoken.data import TokenData
from sstoken.models.flops import Shape
from sstoken.records.provenance import Cost
from sstoken.training.trainer import SelectionTrainer


def count(cost: Cost, trainer: SelectionTrainer, shape: Shape) -> None:
    """Fill in what the run cost, from what its trainer counted."""
    counted = trainer.counted
    tokens, pairs = counted["tokens"], counted["attention_pairs"]
    cost.tokens, cost.kept_tokens = tokens, counted["kept_tokens"]
    cost.forward_tokens += tokens + counted["history_tokens"] + counted["candidate_tokens"]
    cost.backward_tokens = tokens
    if counted["candidate_tokens"]:  # as long as the chosen rows on average
        share = counted["candidate_tokens"] / max(tokens, 1)
        cost.flops += shape.forward(counted["candidate_tokens"], int(pairs * share), 0)
    if counted["history_tokens"]:
        cost.flops += shape.forward(counted["history_tokens"], pairs, counted["response_tokens"])
    cost.flops += shape.forward(tokens, pairs, counted["projected_tokens"])
    if trainer.args.gradient_checkpointing:
        cost.flops += shape.recomputed(tokens, pairs, counted["projected_tokens"])
    cost.flops += shape.backward(tokens, pairs, counted["projected_tokens"], counted["kept_tokens"])


def count_pass(cost: Cost, data: TokenData, shape: Shape) -> None:
    """Add the pass in which a part of a chain measured its reference."""
    tokens, pairs = len(data.input_ids), int((data.lengths.double() ** 2).sum())
    cost.forward_tokens += tokens
    cost.flops += shape.forward(tokens, pairs, int(data.response_offset[-1]))
