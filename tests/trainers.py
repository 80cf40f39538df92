"""Trainers of tiny models on made-up data, and what can be read off them."""

import torch
from transformers import TrainingArguments

from sstoken.selection.methods import load_method
from sstoken.training.dataset import SelectionDataset
from sstoken.training.trainer import SelectionTrainer
from tests.conftest import tiny_adapter, tiny_model


def signals_for(data, seed=1):
    """Every stored signal, random, but for the losses of the base that the tests need to be true."""
    total, generator = int(data.response_offset[-1]), torch.Generator().manual_seed(seed)
    names = (
        "base_loss", "reference_loss", "history_loss", "uniform", "unconditional_loss", "reference_loss:harmful",
        "reference_loss:utility",
    )  # fmt: skip
    signals = {name: torch.rand(total, generator=generator) * 4 for name in names}
    return signals | {"truth": torch.randint(0, 3, (total,), generator=generator).to(torch.uint8)}


def arguments(folder, *, micro=4, accumulation=2, **settings):
    settings = {
        "max_steps": 3,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
    } | settings
    settings = {"report_to": "none", "train_sampling_strategy": "sequential"} | settings
    return TrainingArguments(
        str(folder), per_device_train_batch_size=micro, gradient_accumulation_steps=accumulation, logging_steps=1,
        disable_tqdm=True, use_cpu=True, **settings,
    )  # fmt: skip


def trainer_for(method, data, folder, *, model=None, micro=4, accumulation=2, signals=None, **options):
    args = arguments(folder, micro=micro, accumulation=accumulation, **options.pop("args", {}))
    method = load_method(method) if isinstance(method, str) else method
    model = tiny_adapter(tiny_model()) if model is None else model
    dataset = SelectionDataset(data, signals_for(data) if signals is None else signals)
    return SelectionTrainer(model, args, method=method, train_dataset=dataset, chunk_size=8, **options)


def adapter_of(trainer):
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}


def largest_difference(one, other):
    return max((one[name] - other[name]).abs().max().item() for name in one)
