"""Rows chosen before the step: a look at a micro-batch's rows without gradient, and what is left of it.

Shapes: N tokens of a micro-batch end to end, R its response tokens, B rows.
"""

from __future__ import annotations

import torch
from transformers import Trainer

from sstoken.models.anatomy import causal_lm
from sstoken.selection import Rows, token_loss
from sstoken.selection.methods import Method
from sstoken.training.collate import is_stored, segments_of
from sstoken.training.packing import Segments, forward


class RowChoice:
    """Cuts micro-batches into groups of candidates and keeps the rows that the chooser takes of each.

    Attributes:
        memory: the chooser's own, part of every checkpoint.
    """

    def __init__(self, trainer: Trainer, method: Method, chunk_size: int):
        if trainer.args.world_size > 1:
            raise ValueError(f"method {method.name} chooses rows by what it chose before: it trains on one device")
        self.chooser, self.collate, self.chunk_size = method.scorer, trainer.data_collator, chunk_size
        self.memory = self.chooser.start(trainer.args.seed)
        self.cache: dict = {}

    @torch.no_grad()
    def __call__(self, model: torch.nn.Module, batch: dict) -> dict:
        """The micro-batch of the chosen rows, in the order that they had."""
        loss_B = hidden = weight_VD = None
        rows = len(batch["lengths"])
        model.train()  # the source looks at its candidates under dropout
        if "loss" in self.chooser.reads:
            loss_B = self._losses(model, batch)
        if "hidden" in self.chooser.reads:
            hidden, weight_VD = self._states(model, batch)
        kept: list[int] = []
        for start in range(0, rows, self.chooser.candidates):
            stop = min(start + self.chooser.candidates, rows)
            group = Rows(
                stop - start,
                None if loss_B is None else loss_B[start:stop],
                None if hidden is None else hidden[start:stop],
                weight_VD,
                self.cache,
            )
            take = -(-self.chooser.take * (stop - start) // self.chooser.candidates)
            kept += sorted(start + int(i) for i in self.chooser.choose(group, take, self.memory))
        return self._only(batch, kept)

    def _losses(self, model, batch):
        target_R = batch["input_ids"][batch["response_R"]]

        def project(hidden_RD, weight_VD, bias_V):
            return token_loss(hidden_RD, weight_VD, target_R, bias_V, chunk_size=self.chunk_size)

        loss_R = forward(model, batch["input_ids"], batch["position_ids"], segments_of(batch), project)
        means = [part.mean() if len(part) else part.new_zeros(()) for part in loss_R.split(batch["response_counts"])]
        return torch.stack(means)

    def _states(self, model, batch):
        everywhere_N = torch.arange(len(batch["input_ids"]), device=batch["input_ids"].device)
        segments = Segments(batch["lengths"], everywhere_N)

        def states(hidden_ND, weight_VD, bias_V):
            if weight_VD is None:
                raise NotImplementedError(
                    f"{type(causal_lm(model)).__name__} does more to its logits than project: choose a method that reads "
                    "no states"
                )
            return hidden_ND

        hidden_ND = forward(model, batch["input_ids"], batch["position_ids"], segments, states)
        return hidden_ND.split(batch["lengths"]), causal_lm(model).get_output_embeddings().weight

    def _only(self, batch: dict, kept: list[int]) -> dict:
        response_N = torch.zeros_like(batch["input_ids"], dtype=torch.bool).index_fill_(0, batch["response_R"], True)
        columns = {"input_ids": batch["input_ids"].split(batch["lengths"]), "position": batch["position_B"]}
        columns["response_mask"] = response_N.split(batch["lengths"])
        columns |= {n: v.split(batch["response_counts"]) for n, v in batch.items() if is_stored(n)}
        chosen = self.collate([{name: column[row].cpu() for name, column in columns.items()} for row in kept])
        device = batch["input_ids"].device
        return {n: v.to(device) if isinstance(v, torch.Tensor) else v for n, v in chosen.items()}
