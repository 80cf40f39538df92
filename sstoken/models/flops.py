"""Floating-point operations of a pass, from shapes alone.

A multiply-add counts 2.  With P parameters in the layers' matrices (embedding and output projection left out; M of them
in the last layer's MLP; of experts those that a token is sent to), D hidden size, V vocabulary, L layers, H·K attention width:

    forward     2·P a token  +  2·L·H·K·T a token of a sample of T tokens (causal: half of the full square, twice)
                + 2·D·V a projected token  −  2·M a token that is not projected (where the last layer is shortened)
    backward    the same again for the gradients of activations; once more for P where the weights themselves are trained
                (with adapters their small matrices count instead); the output projection pulls every projected token
                back, or computes the logits of the kept ones again, whichever is less
    recomputed  the forward pass but for the projection, where activations are not kept (gradient checkpointing)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Shape:
    """layer_parameters: P. trained_parameters: of the layers' matrices or adapters. last_mlp: M, 0 where all tokens pass it.
    hidden, vocabulary, layers, attention: D, V, L, H·K."""

    layer_parameters: int
    trained_parameters: int
    hidden: int
    vocabulary: int
    layers: int
    attention: int
    last_mlp: int = 0

    @classmethod
    def of(cls, model: torch.nn.Module) -> Shape:
        from sstoken.models.anatomy import causal_lm, shortened_layer, text_config, text_part

        config, last = text_config(causal_lm(model).config), shortened_layer(model)
        share, text = _active_share(config), text_part(model)
        tables = {id(m.weight) for m in text.modules() if isinstance(m, torch.nn.Embedding)}
        matrices = [
            (p, p.numel() * (share if "expert" in n and "shared" not in n else 1))
            for n, p in text.named_parameters()
            if (p.dim() == 2 or (p.dim() == 3 and "expert" in n)) and id(p) not in tables and "lm_head" not in n
        ]
        heads = getattr(config, "num_attention_heads", 0)
        head = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
        return cls(
            layer_parameters=round(sum(count for _, count in matrices)),
            trained_parameters=round(sum(count for p, count in matrices if p.requires_grad)),
            hidden=config.hidden_size,
            vocabulary=config.vocab_size,
            layers=config.num_hidden_layers,
            attention=head * heads,
            last_mlp=sum(p.numel() for p in last.mlp.parameters() if p.dim() == 2) if last is not None else 0,
        )

    def forward(self, tokens: int, pairs: int, projected: int) -> int:
        """tokens: in all. pairs: sum of squared sample lengths. projected: tokens whose logits were computed."""
        return (
            2 * self.layer_parameters * tokens
            - 2 * self.last_mlp * (tokens - projected)
            + 2 * self.layers * self.attention * pairs
            + 2 * self.hidden * self.vocabulary * projected
        )

    def backward(self, tokens: int, pairs: int, projected: int, kept: int) -> int:
        """kept: tokens with a gradient at the loss."""
        head = 2 * self.hidden * self.vocabulary
        layers = self.forward(tokens, pairs, projected) - head * projected + 2 * self.trained_parameters * tokens
        return layers + head * min(projected, 2 * kept)

    def recomputed(self, tokens: int, pairs: int, projected: int) -> int:
        """What gradient checkpointing computes again."""
        return self.forward(tokens, pairs, projected) - 2 * self.hidden * self.vocabulary * projected


def _active_share(config) -> float:
    """The share of a layer's experts that a token is sent to."""

    def first(*names: str) -> int | None:
        return next((value for name in names if isinstance(value := getattr(config, name, None), int)), None)

    experts = first("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    chosen = first("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts")
    return chosen / experts if experts and chosen else 1.0
