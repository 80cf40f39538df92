"""Signals that a run makes for itself before its first step, where the data set did not bring them.

Shapes: R response tokens of the data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer

from sstoken.models.anatomy import causal_lm
from sstoken.selection.methods import Method
from sstoken.training.dataset import SelectionDataset, lacking, uniform_signal
from sstoken.training.distributed import is_sharded
from sstoken.training.reference_losses import compute_losses

Reference = PreTrainedModel | torch.nn.Module | str | Path


def check_makeable(method: Method, dataset: SelectionDataset, reference: Reference | None) -> None:
    """Raise for a signal that is neither in the data set nor can be made, and for a prompt that is not there.

    Raises:
        ValueError: names the method, the signal, and what to pass.
    """
    sources = _sources(method)
    for signal in sorted(lacking(method, dataset)):
        weights = sources.get(signal)
        if signal == "uniform" or weights == "base" or (signal == "truth" and dataset.data.truth is not None):
            continue
        if weights is not None and signal in ("reference_loss", "history_loss"):
            if reference is not None:
                continue
            raise ValueError(
                f"method {method.name} needs {signal} of the model {weights!r}: pass reference_model= (a model, or the "
                f"folder or name of one), or a SelectionDataset with {signal} in its signals"
            )
        raise ValueError(
            f"method {method.name} needs {signal}, which is not made here: pass a SelectionDataset with {signal} in its "
            "signals, or run the method through the grid"
        )
    if "attention_mass" in method.needs and int((~dataset.data.response_mask).sum()) <= len(dataset):
        raise ValueError(
            f"method {method.name} ranks by attention to the prompt, but every token of every sample is trained on: mark "
            "the responses (messages, prompt and completion, labels or assistant_masks; with TRL assistant_only_loss or "
            "completion_only_loss)"
        )


def make_signals(trainer: Trainer, method: Method, dataset: SelectionDataset, reference: Reference | None) -> dict:
    """name -> values [R] of every signal that ``check_makeable`` let pass.

    The base is the model before its first step: with adapters, the model without them; else the model as it stands.
    """
    missing, made = lacking(method, dataset), {}
    if "uniform" in missing:
        seed = trainer.args.seed if method.random_seed is None else method.random_seed
        made["uniform"] = uniform_signal(int(dataset.data.response_offset[-1]), seed)
    if "truth" in missing:
        made["truth"] = dataset.data.truth[dataset.data.response_mask]
    sources = _sources(method)
    for weights in sorted({sources[s] for s in missing if s in sources}):
        if weights == "base":
            with _without_adapters(trainer.model):
                loss_R = _losses(trainer, trainer.model, dataset)
        else:
            model = _load(reference, trainer)
            _check_vocabulary(model, dataset)
            place = next(model.parameters()).device
            loss_R = _losses(trainer, model.to(trainer.args.device), dataset)
            model.to(place)  # its owner's, who may need the room
        made |= {s: loss_R for s in missing if sources.get(s) == weights}
    return made


def _sources(method: Method) -> dict[str, str]:
    return {"base_loss": "base"} | method.weights


@contextmanager
def _without_adapters(model: torch.nn.Module) -> Iterator[None]:
    """Adapters switched off, whether PEFT wraps the model or transformers put them in (``add_adapter``)."""
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield
    elif getattr(model, "_hf_peft_config_loaded", False):
        model.disable_adapters()
        try:
            yield
        finally:
            model.enable_adapters()
    else:
        yield


def _losses(trainer: Trainer, model: torch.nn.Module, dataset: SelectionDataset) -> torch.Tensor:
    """Each rank takes its share of the samples, in the precision that the step computes in."""
    ranks, rank = trainer.accelerator.num_processes, trainer.accelerator.process_index
    if is_sharded(model):  # its ranks gather weights together, so each sees every sample
        ranks, rank = 1, 0
    data = dataset.data
    start, stop = (len(data) * (rank + step) // ranks for step in (0, 1))
    place = slice(int(data.response_offset[start]), int(data.response_offset[stop]))
    with trainer.compute_loss_context_manager():
        own_R = compute_losses(model, data.slice(start, stop), chunk_size=trainer.chunk_size)
    if ranks == 1:
        return own_R
    loss_R = torch.zeros(int(data.response_offset[-1]), device=trainer.args.device)
    loss_R[place] = own_R.to(loss_R.device)
    return trainer.accelerator.reduce(loss_R, "sum").cpu()


def _load(reference: Reference, trainer: Trainer) -> torch.nn.Module:
    if isinstance(reference, torch.nn.Module):
        return reference
    options = {"dtype": causal_lm(trainer.model).dtype, "use_safetensors": True}
    if (Path(reference) / "adapter_config.json").exists():
        from peft import AutoPeftModelForCausalLM

        return AutoPeftModelForCausalLM.from_pretrained(reference, **options)
    return AutoModelForCausalLM.from_pretrained(reference, **options)


def _check_vocabulary(model: torch.nn.Module, dataset: SelectionDataset) -> None:
    known, largest = causal_lm(model).get_input_embeddings().weight.shape[0], int(dataset.data.input_ids.max())
    if largest >= known:
        raise ValueError(
            f"the rows hold token {largest}, the reference model knows {known} tokens: it needs the tokenizer of the "
            "model that is trained"
        )
