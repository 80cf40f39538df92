"""What a run is made of: the recipe's arguments, the model with what is trained on it, the signals, the method of a part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, TrainingArguments, set_seed

from sstoken.data import TokenData
from sstoken.experiment.config import AdapterSettings, Parallel, TrainingSettings
from sstoken.models.load import Weights
from sstoken.selection.methods import Method, full
from sstoken.training.adapters import adapted
from sstoken.training.dataset import SelectionDataset, uniform_signal
from sstoken.training.distributed import leave_shards_alone, shard_frozen
from sstoken.training.reference_losses import compute_losses
from sstoken.training.trainer import SelectionTrainer


def build(
    method: Method, part: int, data: TokenData, signals: dict[str, torch.Tensor], *, weights: Weights,
    settings: TrainingSettings, seed: int, checkpoints: Path, device: str, parallel: Parallel, batch_tokens: int,
) -> tuple[SelectionTrainer, PreTrainedModel]:  # fmt: skip
    """The trainer of one run, or of one part of a chain, and its model.

    Args:
        data, signals: of the part. weights: the base, and what the part before left. checkpoints: their folder.
        batch_tokens: of the pass in which a part measures its reference, the model as it stands before the part.
    """
    set_seed(seed)
    arguments = training_arguments(settings, checkpoints, seed, device, parallel.gpus)
    model = trainable(weights, settings, device=device, parallel=parallel)
    if method.reference == "previous" and part > 0:
        signals = signals | {"reference_loss": compute_losses(model, data, batch_tokens=batch_tokens)}
    trainer = SelectionTrainer(
        model,
        arguments,
        method=method_of_part(method, part),
        train_dataset=SelectionDataset(data, signals),
        chunk_size=settings.chunk_size,
        dropped_loss_every=settings.dropped_loss_every,
    )
    set_seed(seed)  # again: dropout must not depend on what was drawn on the way here
    return trainer, model


def part_of(
    data: TokenData, signals: dict[str, torch.Tensor], method: Method, part: int
) -> tuple[TokenData, dict[str, torch.Tensor]]:
    """The samples of one part of a chain, and their signals; all of them where the method is no chain.

    Raises:
        ValueError: the part has no sample.
    """
    if method.parts == 1:
        return data, signals
    start, stop = (len(data) * (part + step) // method.parts for step in (0, 1))
    if start == stop:
        raise ValueError(f"method {method.name}: part {part} of {len(data)} samples is empty; use fewer parts")
    place = slice(int(data.response_offset[start]), int(data.response_offset[stop]))
    return data.slice(start, stop), {name: value_R[place] for name, value_R in signals.items()}


def known_signals(data: TokenData, method: Method, seed: int, where: Path) -> dict[str, torch.Tensor]:
    """The signals that need no model: the random method's draw, the planted truth.

    Raises:
        ValueError: the method needs the truth, and the tokens in ``where`` carry none.
    """
    signals = {}
    if "uniform" in method.needs:
        draw = seed if method.random_seed is None else method.random_seed
        signals["uniform"] = uniform_signal(int(data.response_offset[-1]), draw)
    if "truth" in method.needs:
        if data.truth is None:
            raise ValueError(f"method {method.name} needs to know which tokens are noise; {where} does not say")
        signals["truth"] = data.truth[data.response_mask]
    return signals


def method_of_part(method: Method, part: int) -> Method:
    """A self-evolving chain's part 0 trains in full: there is no earlier part to measure a reference with."""
    if method.reference != "previous" or part > 0:
        return method
    return replace(method, scorer=full.Config(), keep_ratio=1.0, scope="sample", reference="base")


def trainable(weights: Weights, settings: TrainingSettings, *, device: str, parallel: Parallel) -> PreTrainedModel:
    """The model on its device, in training mode.

    Args:
        weights: the base, and what the part before left: the adapter or the weights that this one trains on.

    Raises:
        ValueError: shards are asked for where nothing is frozen.
    """
    sharded = parallel.gpus > 1 and parallel.strategy == "fsdp"
    if settings.adapter is None:
        if sharded:
            raise ValueError("parallel: fsdp shards frozen weights; without an adapter none are: use ddp")
        # the master weights are float32: a step is smaller than the distance of two bfloat16 numbers
        return weights.load(dtype="float32", device=device).train()
    model = Weights(weights.base).load(dtype=settings.dtype, device="cpu" if sharded else device)
    if sharded:
        model = shard_frozen(model)
    model = _with_adapter(model, weights.run, settings.adapter)
    if settings.gradient_checkpointing:
        model.enable_input_require_grads()
    leave_shards_alone(model)
    return model.train()


def _with_adapter(model: PreTrainedModel, stored: Path | None, adapter: AdapterSettings) -> PreTrainedModel:
    from peft import PeftModel

    return adapted(model, adapter) if stored is None else PeftModel.from_pretrained(model, stored, is_trainable=True)


def training_arguments(
    settings: TrainingSettings, folder: Path, seed: int, device: str, processes: int = 1
) -> TrainingArguments:
    """The recipe as transformers' TrainingArguments, for each of so many processes."""
    return TrainingArguments(
        output_dir=str(folder),
        seed=seed,
        data_seed=seed,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.accumulation // processes,
        train_sampling_strategy="random" if settings.shuffle else "sequential",
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_share,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.dtype == "bfloat16",  # what is trained is float32; its products need not be
        gradient_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if settings.gradient_checkpointing else None,
        optim="adamw_torch",
        logging_strategy="steps",
        logging_steps=1,
        save_strategy="steps",
        save_steps=settings.checkpoint_every,
        save_total_limit=2,
        use_cpu=device == "cpu",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=device != "cpu",
        ddp_find_unused_parameters=False,
    )
