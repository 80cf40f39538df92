"""Floating-point operations of a pass, from shapes alone.

A multiply-add counts 2.  With P parameters in the layers' matrices (embedding and output projection left out), D hidden
size, V vocabulary, L layers, H·K attention width:

    forward     2·P a token  +  2·L·H·K·T a token of a sample of T tokens (causal: half of the full square, twice)
                + 2·D·V a projected token
    backward    the same again for the gradients of activations; once more for P where the weights themselves are trained
                (with adapters their small matrices count instead); the output projection recomputes its logits
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Shape:
    """layer_parameters: P. trained_parameters: of the layers' matrices or adapters.
    hidden, vocabulary, layers, attention: D, V, L, H·K."""

    layer_parameters: int
    trained_parameters: int
    hidden: int
    vocabulary: int
    layers: int
    attention: int

    @classmethod
    def of(cls, model: torch.nn.Module) -> Shape:
        from sstoken.packed import causal_lm

        config = causal_lm(model).config
        matrices = [
            (n, p) for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n and "lm_head" not in n
        ]
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            layer_parameters=sum(p.numel() for n, p in matrices),
            trained_parameters=sum(p.numel() for n, p in matrices if p.requires_grad),
            hidden=config.hidden_size,
            vocabulary=config.vocab_size,
            layers=config.num_hidden_layers,
            attention=head * config.num_attention_heads,
        )

    def forward(self, tokens: int, pairs: int, projected: int) -> int:
        """tokens: in all. pairs: sum of squared sample lengths. projected: tokens whose logits were computed."""
        return (
            2 * self.layer_parameters * tokens
            + 2 * self.layers * self.attention * pairs
            + 2 * self.hidden * self.vocabulary * projected
        )

    def backward(self, tokens: int, pairs: int, kept: int) -> int:
        """kept: tokens with a gradient at the loss; each recomputes its logits and pulls them back."""
        layers = self.forward(tokens, pairs, 0) + 2 * self.trained_parameters * tokens
        return layers + 4 * self.hidden * self.vocabulary * kept
