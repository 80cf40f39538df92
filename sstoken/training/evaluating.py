"""Trainer's evaluation and prediction on packed rows: no selection, every response token counts.

Shapes: N tokens of a batch end to end, R its response tokens, B samples, T the longest of them, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.functional import linear
from torch.nn.utils.rnn import pad_sequence

from sstoken.selection import token_loss
from sstoken.training.collate import segments_of
from sstoken.training.lora import lean_adapters
from sstoken.training.packing import forward, packed_attention
from sstoken.training.segments import Segments


class EvaluatesPacked:
    """``evaluate`` and ``predict`` of a Trainer whose collator packs; their numbers are a plain Trainer's."""

    _attending = False

    @contextmanager
    def attending(self) -> Iterator[None]:
        """The model attends within samples; training and an evaluation inside of it enter this once."""
        if self._attending:
            yield
            return
        self._attending = True
        try:
            with packed_attention(self.model), lean_adapters(self.model):
                yield
        finally:
            self._attending = False

    def get_eval_dataloader(self, eval_dataset=None):
        if eval_dataset is not None and not isinstance(eval_dataset, str):
            eval_dataset = self.rows_of(eval_dataset)
        return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset):
        return super().get_test_dataloader(self.rows_of(test_dataset))

    def evaluation_loop(self, *args, **options):
        with self.attending():
            return super().evaluation_loop(*args, **options)

    @torch.no_grad()
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """(mean loss of the batch's response tokens, logits [B, T, V], labels [B, T]), the last two padded with -100."""
        batch = self._prepare_inputs(inputs)
        target_R = batch["input_ids"][batch["response_R"]]
        found = {}

        def losses(hidden_RD, weight_VD, bias_V):
            return token_loss(hidden_RD, weight_VD, target_R, bias_V, chunk_size=self.chunk_size)

        def losses_and_logits(hidden_ND, weight_VD, bias_V):
            known = weight_VD is None  # the model does more to its logits than project
            found["logits"] = hidden_ND if known else linear(hidden_ND.to(weight_VD.dtype), weight_VD, bias_V)
            return losses(hidden_ND[batch["response_R"] - 1], weight_VD, bias_V)

        project, segments = losses, segments_of(batch)
        if not prediction_loss_only:
            project = losses_and_logits
            segments = Segments(batch["lengths"], torch.arange(len(batch["input_ids"]), device=target_R.device))
        with self.compute_loss_context_manager():
            loss_R = forward(model, batch["input_ids"], batch["position_ids"], segments, project)
        loss = loss_R.sum() / max(len(loss_R), 1)
        if prediction_loss_only:
            return loss, None, None
        label_N = torch.full_like(batch["input_ids"], -100).index_put((batch["response_R"],), target_R)
        padded = (
            pad_sequence(value_N.split(batch["lengths"]), batch_first=True, padding_value=-100)
            for value_N in (found["logits"].float(), label_N)
        )
        return loss, *padded
