"""A causal model cut in two: lower blocks run once and send K prompt states, one merged and the anchor; upper blocks train.

Shapes: B samples, T positions, P prompt tokens of a sample, D hidden size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

CHOICES = ("importance", "random", "uniform")
FAMILIES = ("llama", "qwen2")
"""Those whose blocks are called here as their own model calls them; a test holds the whole model equal to the two halves."""


@dataclass(frozen=True)
class Sent:
    """What the client of one sample sends: states [S, D], their positions [S], and how many of them are prompt."""

    states_SD: torch.Tensor
    position_S: torch.Tensor
    prompt: int


class SplitModel:
    """Lower ``cut`` blocks frozen and forward only; the rest, norm and head as they are.

    Args:
        model: a Llama or Qwen2; adapters, if any, are on the upper blocks alone.
        cut: number of lower blocks, 1 to layers - 1.

    Raises:
        ValueError: another family, or no block on one of the sides.
    """

    def __init__(self, model: PreTrainedModel, cut: int):
        if model.config.model_type not in FAMILIES:
            raise ValueError(f"{model.config.model_type} cannot be split here; {' and '.join(FAMILIES)} can")
        if not 0 < cut < model.config.num_hidden_layers:
            raise ValueError(f"cut must be 1 to {model.config.num_hidden_layers - 1} for this model, not {cut}")
        self.model, self.body, self.cut = model, model.base_model, cut

    @torch.no_grad()
    def lower(self, ids_T: torch.Tensor, prompt: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One sample through the lower blocks.

        Returns:
            states [T, D]; importance [P-1] of the prompt tokens before the anchor (the last prompt token):
            ``mean_heads softmax_i(q_anchor · k_i / sqrt(d))`` at the last lower block, over the positions before the anchor.
        """
        states = self.body.embed_tokens(ids_T[None])
        position = torch.arange(len(ids_T))[None]
        rotary = self.body.rotary_emb(states, position)
        for layer in self.body.layers[: self.cut]:
            before, states = states, _called(layer, states, position, rotary)
        return states[0], _importance(self.body.layers[self.cut - 1], before, rotary, prompt - 1)

    def upper(self, sent: list[Sent]) -> torch.Tensor:
        """Logits [B, S, V] of the sent states, padded at the end; causal, each state at its own position."""
        longest = max(len(one.position_S) for one in sent)
        pad = [longest - len(one.position_S) for one in sent]
        states = torch.stack(
            [torch.nn.functional.pad(s.states_SD, (0, 0, 0, n)) for s, n in zip(sent, pad, strict=True)]
        )
        position = torch.stack([torch.nn.functional.pad(s.position_S, (0, n)) for s, n in zip(sent, pad, strict=True)])
        rotary = self.body.rotary_emb(states, position)
        for layer in self.body.layers[self.cut :]:
            states = _called(layer, states, position, rotary)
        return self.model.lm_head(self.body.norm(states))


def choose(
    states_TD: torch.Tensor, importance_P: torch.Tensor, keep: int, choice: str, generator: torch.Generator
) -> Sent:
    """The ``keep`` prompt states of a sample, the others merged into one, the anchor, and all response states.

    The merged state is ``Σ_i a_i h_i`` over those that are not kept, ``a`` their importance made to sum to one; it takes the
    place and the position (rounded) of their mean position under the same weights.

    Args:
        states_TD: at the cut. importance_P: of the prompt tokens before the anchor, sums to 1.
        keep: K; from the number of those tokens on, nothing is merged.
        choice: "importance" (the highest; ties: the earlier), "random", or "uniform" (evenly spaced).
    """
    before = len(importance_P)
    if keep >= before:
        return Sent(states_TD, torch.arange(len(states_TD)), before + 1)
    if choice == "importance":
        kept = torch.argsort(importance_P, descending=True, stable=True)[:keep]
    elif choice == "random":
        kept = torch.randperm(before, generator=generator)[:keep]
    elif choice == "uniform":
        kept = ((torch.arange(keep) + 0.5) * before / max(keep, 1)).long()
    else:
        raise ValueError(f"unknown choice {choice!r}. Known: {', '.join(CHOICES)}")
    kept, _ = kept.sort()
    dropped = torch.ones(before, dtype=torch.bool)
    dropped[kept] = False
    weight = importance_P * dropped
    weight = weight / weight.sum() if weight.sum() > 0 else dropped / dropped.sum()
    merged = (weight[:, None] * states_TD[:before]).sum(0, keepdim=True)
    place = float((weight * torch.arange(before)).sum())
    ahead, behind = kept[kept < place], torch.cat([kept[kept >= place], torch.arange(before, len(states_TD))])
    states = torch.cat([states_TD[ahead], merged, states_TD[behind]])
    position = torch.cat([ahead, torch.tensor([round(place)]), behind])
    return Sent(states, position, keep + 2)


def retention(importances: list[torch.Tensor], keep: int) -> float:
    """``f(K)``: mean over samples of the K largest importances' sum."""
    return sum(float(i.topk(min(keep, len(i))).values.sum()) for i in importances) / len(importances)


def _called(layer: torch.nn.Module, states: torch.Tensor, position: torch.Tensor, rotary) -> torch.Tensor:
    length = states.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    mask = torch.zeros(causal.shape, dtype=states.dtype).masked_fill(~causal, torch.finfo(states.dtype).min)
    found = layer(states, attention_mask=mask, position_ids=position, position_embeddings=rotary)
    return found[0] if isinstance(found, tuple) else found


def _importance(layer: torch.nn.Module, before: torch.Tensor, rotary, anchor: int) -> torch.Tensor:
    attention, normed = layer.self_attn, layer.input_layernorm(before)
    shape = (1, before.shape[1], -1, attention.head_dim)
    query, key = (linear(normed).view(shape).transpose(1, 2) for linear in (attention.q_proj, attention.k_proj))
    query, key = apply_rotary_pos_emb(query, key, *rotary)
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    score = (query[0, :, anchor, None] * key[0, :, :anchor]).sum(-1) / math.sqrt(attention.head_dim)
    return score.softmax(-1).mean(0)
