"""The trainer: signals -> scores -> keep mask -> loss, in one forward pass over one packed row.

Shapes: N tokens of a micro-batch end to end, R its response tokens, B samples, D hidden size, V vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from sstoken.data import TokenData, token_data
from sstoken.models.anatomy import check_trainable, layer_index
from sstoken.selection import anchor_divergence, token_loss
from sstoken.selection.methods import Method
from sstoken.training.collate import PackedCollator, segments_of
from sstoken.training.dataset import EvenDataset, SelectionDataset, lacking, prepared
from sstoken.training.distributed import is_sharded
from sstoken.training.evaluating import EvaluatesPacked
from sstoken.training.given import Reference, check_makeable, make_signals
from sstoken.training.history import History, base_states
from sstoken.training.log import SelectionLog, check_bounded, check_finite
from sstoken.training.objective import choose, items
from sstoken.training.packing import forward
from sstoken.training.record import SelectionRecord, load_state, save_state
from sstoken.training.refusals import check_arguments, check_parallel
from sstoken.training.rows import RowChoice
from sstoken.training.selftest import check_supported


class Selects(EvaluatesPacked):
    """What makes a Trainer train on selected tokens; to be listed before the Trainer's class (see SelectionTrainer)."""

    def __init__(
        self,
        model: torch.nn.Module | None = None,
        args: TrainingArguments | None = None,
        *,
        method: Method,
        train_dataset,
        reference_model: Reference | None = None,
        chunk_size: int = 1024,
        dropped_loss_every: int = 1,
        **options,
    ):
        if not method.trains:
            raise ValueError(f"method {method.name} does not train")
        check_arguments(model, args, options)
        if isinstance(model, torch.nn.Module):
            check_trainable(model)
        self.chunk_size = chunk_size
        super().__init__(model=model, args=args, train_dataset=train_dataset, **options)
        check_arguments(self.model, self.args, {})
        check_parallel(self)
        check_supported(self.model, method.attention_layer if "attention_mass" in method.needs else None)
        self.args.remove_unused_columns = False
        self.args.logging_nan_inf_filter = False  # it hides a diverged run, and asks the device at every step
        # compute_loss normalises over the whole accumulated batch by itself; older releases know only the first flag
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = True
        self.method, self.reference_model, self.dropped_loss_every = method, reference_model, dropped_loss_every
        self.mass_layer = layer_index(self.model, method.attention_layer) if "attention_mass" in method.needs else None
        self.measured = method.needs & {"entropy", "collision"}
        self.data_collator = PackedCollator.of(method)
        self._rows = rows = self.rows_of(self.train_dataset)
        check_makeable(method, rows, reference_model)
        self.train_dataset = rows if lacking(method, rows) else self._ready(rows)
        if isinstance(self.eval_dataset, dict):
            self.eval_dataset = {name: self.rows_of(part) for name, part in self.eval_dataset.items()}
        elif self.eval_dataset is not None:
            self.eval_dataset = self.rows_of(self.eval_dataset)
        self.history = History(method, self.model)
        if method.anchor and not hasattr(self.model, "disable_adapter"):
            raise ValueError(f"method {method.name} is anchored to the base, which is there only under an adapter")
        self.row_choice = RowChoice(self, method, chunk_size) if method.chooses else None
        self._record, self._log, self._unchecked = SelectionRecord(rows.data), SelectionLog(), True
        self.seconds_before, self._start = 0.0, time.perf_counter()
        self.add_callback(_SelectionCallback(self))

    def rows_of(self, dataset) -> SelectionDataset:
        """The rows of a data set as samples: tokenised, with their responses marked."""
        if isinstance(dataset, (SelectionDataset, EvenDataset)):
            return dataset
        return SelectionDataset(dataset if isinstance(dataset, TokenData) else self.tokens_of(dataset))

    def _ready(self, rows: SelectionDataset) -> SelectionDataset | EvenDataset:
        """Rows with every stored signal, and a fixed mask where the method has one, the same number for each rank."""
        rows = prepared(self.method, rows)
        ranks = self.args.world_size
        return EvenDataset(rows, self.args.per_device_train_batch_size * ranks) if ranks > 1 else rows

    @property
    def record(self) -> dict[str, torch.Tensor]:
        return self._record.values

    @property
    def counted(self) -> dict[str, int]:
        return self._record.counted

    def _move_model_to_device(self, model, device):
        if not is_sharded(model):  # shards are where they belong
            super()._move_model_to_device(model, device)

    def floating_point_ops(self, inputs) -> int:
        """Not counted here: Trainer's estimate walks over all modules at every step, and knows no dropped token."""
        return 0

    def train(self, resume_from_checkpoint: str | bool | None = None, **options):
        """As Trainer's, attending within samples; from a checkpoint the selection's own state comes back too."""
        if lacking(self.method, self._rows):
            made = make_signals(self, self.method, self._rows, self.reference_model)
            self._rows = SelectionDataset(self._rows.data, self._rows.signals | made)
            self.train_dataset = self._ready(self._rows)
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir)
            if resume_from_checkpoint is None:
                raise ValueError(f"{self.args.output_dir} holds no checkpoint to resume from")
        if resume_from_checkpoint:
            first, folder = self.accelerator.is_main_process, Path(resume_from_checkpoint)
            self.seconds_before = load_state(folder, self._record, self.history, self.row_choice, first=first)
        self._start = time.perf_counter()
        with self.attending():
            output = super().train(resume_from_checkpoint=resume_from_checkpoint, **options)
        self._end_if_diverged(self._record.flush())
        self._record.values, self._record.counted = self._record.of_all_ranks(self.accelerator)
        return output

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device):
        """The micro-batches of one step, and what its loss is divided by: counted over accumulation and ranks."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._say_when(batches, device)
        if self.row_choice:
            if self.method.scorer.reads:
                self.counted["candidate_tokens"] += sum(sum(batch["lengths"]) for batch in batches)
            batches = [self.row_choice(self.model, batch) for batch in batches]
        # filled there: a copy from the host would wait for the device
        count = torch.full((), items(self.method, batches), device=device)
        return batches, self.accelerator.reduce(count, "sum") if self.args.world_size > 1 else count

    def _say_when(self, batches: list[dict], device: torch.device) -> None:
        """Give each sample its place in the order of training, ``seen_B``: over epochs, shuffling, ranks and resumes."""
        ranks, rank, micro = self.args.world_size, self.args.process_index, self._train_batch_size
        epoch, share = divmod(self.state.epoch or 0.0, 1)
        done = round(share * len(self.callback_handler.train_dataloader))
        before = int(epoch) * len(self._record.data) + done * micro * ranks
        for batch in batches:  # ranks take micro-batches in turn
            count = len(batch["lengths"])
            start = before + rank * count
            batch["seen_B"] = torch.arange(start, start + count, device=device)
            before += ranks * count

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of one micro-batch. No host synchronisation: every shape was counted when collating."""
        batch, method, response = inputs, self.method, sum(inputs["response_counts"])
        # with weights of its own any response token may have a gradient; else no more than are kept
        bound = response if method.scorer.weighs or batch["kept_counts"] is None else sum(batch["kept_counts"])
        target_R = batch["input_ids"][batch["response_R"]]
        base_RD = None
        if method.anchor:
            base_RD = base_states(self.accelerator.unwrap_model(self.model_wrapped), batch)
            self.counted["history_tokens"] += sum(batch["lengths"])
        known = {"history_loss": self._history_loss(batch, target_R)} if self.history else {}
        every = self.dropped_loss_every
        project_all = method.reads_logits or (every > 0 and self.state.global_step % every == 0)
        known_K = None if project_all or "keep" not in batch else _first(batch["keep"], bound)
        segments = segments_of(batch, self.mass_layer, known_K)
        options = {"chunk_size": self.chunk_size, "backward_tokens": bound}
        known |= {"progress": self.state.global_step / max(self.state.max_steps, 1), "check": self._unchecked}
        step = {}

        def project(hidden_RD, weight_VD, bias_V):
            step["dtype"] = hidden_RD.dtype
            if project_all:
                measure = {name: target_R.new_empty(response, dtype=torch.float32) for name in self.measured}
                first = 2 * bound > response
                loss_R = token_loss(
                    hidden_RD, weight_VD, target_R, bias_V, gradient_first=first, measure=measure, **options
                )
                step["loss"] = loss_R.detach()
                step["choice"] = choice = choose(
                    method, batch, mass_N=segments.mass_N, loss=step["loss"], **measure, **known
                )
                objective = (loss_R * choice.weight_R).sum()
                if base_RD is None:
                    return objective
                far_R = anchor_divergence(hidden_RD, base_RD, weight_VD, bias_V, chunk_size=self.chunk_size)
                choice.parts["anchor"] = far_R.detach()
                share = 1 / max(response, 1) if method.normalisation == "micro-batch" else 1
                return objective + method.anchor["weight"] * share * far_R.sum()
            step["choice"] = choice = choose(method, batch, mass_N=segments.mass_N, **known)
            index_K = _first(choice.keep_R, bound)
            hidden_KD = hidden_RD if known_K is not None else hidden_RD[index_K]
            loss_K = token_loss(hidden_KD, weight_VD, target_R[index_K], bias_V, gradient_first=True, **options)
            step["loss"] = torch.zeros_like(choice.keep_R, dtype=loss_K.dtype).index_put((index_K,), loss_K.detach())
            return (loss_K * choice.weight_R[index_K]).sum()

        loss = forward(model, batch["input_ids"], batch["position_ids"], segments, project)
        self._unchecked = False
        if num_items_in_batch is not None:
            # the mean over ranks that DDP and FSDP take is undone: the divisor counts those of all ranks already
            loss = loss * self.accelerator.num_processes / num_items_in_batch.clamp_min(1)
        if self.model.training:
            choice, when = step["choice"], self.state.global_step
            finest = torch.finfo(step["dtype"]).eps
            self._log.add(choice, step["loss"], weighs=method.scorer.weighs, all_losses=project_all, step=finest)
            self._record.add(batch, choice, step["loss"], when, projected=response if project_all else bound)
        return (loss, {"loss": loss.detach()}) if return_outputs else loss

    @torch.no_grad()
    def _history_loss(self, batch: dict, target_R: torch.Tensor) -> torch.Tensor:
        """L of the run's own history: the trained parameters are swapped for one pass in evaluation mode."""
        model = self.accelerator.unwrap_model(self.model_wrapped)

        def project(hidden_RD, weight_VD, bias_V):
            return token_loss(hidden_RD, weight_VD, target_R, bias_V, chunk_size=self.chunk_size)

        with self.history.in_place_of(model):
            loss_R = forward(model, batch["input_ids"], batch["position_ids"], segments_of(batch), project)
        self.counted["history_tokens"] += sum(batch["lengths"])
        return loss_R

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's log with the selection's own columns; a value that is not a number ends the run."""
        if "loss" in logs and self._log:
            diverged = self._record.flush()
            logs = {**logs, **self._log.take(self.accelerator)}
            self._end_if_diverged(diverged, logs)
            if "loss_negative" in logs:
                guess = math.log(self.model.config.get_text_config().vocab_size)
                check_bounded(logs, 2 * max(guess, self._log.first), self.state.global_step)
        super().log(logs, start_time)

    def _end_if_diverged(self, diverged: list[tuple[int, str]], logs: dict[str, float] | None = None) -> None:
        scaled = self.accelerator.scaler is not None
        check_finite(logs or {}, diverged, step=self.state.global_step, rate=self._get_learning_rate(), scaled=scaled)


class SelectionTrainer(Selects, Trainer):
    """A transformers Trainer whose loss is the mean of ``L_θ`` over the response tokens that the method keeps.

    PEFT models, accumulation, several devices and nodes (DDP), checkpoints, evaluation and callbacks work as ever; what
    would be ignored is refused.  Samples are packed without padding, in the order that
    ``args.train_sampling_strategy`` says: Trainer's default shuffles, the papers' recipe is ``"sequential"``.

    Args:
        model: a causal language model, with or without adapters.
        args: TrainingArguments.  ``remove_unused_columns`` and ``logging_nan_inf_filter`` are switched off.
        method: from ``load_method``; it must train.
        train_dataset: a ``datasets.Dataset`` (columns messages | prompt, completion | input_ids with labels or
            assistant_masks), TokenData, or a SelectionDataset, which brings signals of its own.  Losses of the base that
            the method needs and that were not given are measured before the first step.
        reference_model: a model, or the folder or name of one, for a method that needs its losses.
        template: "tokenizer", its chat template, or "tulu", the papers'; for rows that are not tokenised yet.
        max_length: tokens a sample; what is longer is cut.
        chunk_size: tokens a chunk of ``token_loss``.
        dropped_loss_every: measure the loss of dropped tokens for the log every so many steps; 0 = never.  Methods that
            score without the current loss then never project a dropped token.

    Attributes:
        record: after training, per response token [R]: ``score`` float32, ``keep`` bool; per sample [S]: ``step`` int32.
        counted: totals of this process: tokens, response_tokens, kept_tokens, projected_tokens, history_tokens, and
            attention_pairs (the sum of squared sample lengths),
            candidate_tokens (looked at to choose rows).
        seconds_before: of training up to the checkpoint that this process went on from, however many came before it.
    """

    def __init__(self, *args, template: str = "tokenizer", max_length: int = 2048, **options):
        self.template, self.max_length = template, max_length
        super().__init__(*args, **options)

    def tokens_of(self, dataset) -> TokenData:
        if self.processing_class is None:
            raise ValueError("rows need the tokenizer that reads them: pass processing_class=tokenizer")
        return token_data(dataset, self.processing_class, template=self.template, max_length=self.max_length)


class _SelectionCallback(TrainerCallback):
    def __init__(self, trainer: Selects):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **_):
        trainer = self.trainer
        if trainer.history:
            trainer.history.follow(trainer.accelerator.unwrap_model(trainer.model_wrapped), state.global_step)

    def on_save(self, args, state, control, **_):
        trainer, folder = self.trainer, Path(args.output_dir) / f"checkpoint-{state.global_step}"
        seconds = trainer.seconds_before + time.perf_counter() - trainer._start
        trainer._end_if_diverged(trainer._record.flush())
        save_state(folder, trainer._record, trainer.history, trainer.row_choice, seconds, trainer.accelerator)


def _first(keep_R: torch.Tensor, kept: int) -> torch.Tensor:
    """Positions of the kept tokens in order, found without asking the device how many there are."""
    return torch.argsort(~keep_R, stable=True)[:kept]
