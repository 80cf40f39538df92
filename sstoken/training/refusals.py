"""What of Trainer's would be ignored or wrong here: refused in one sentence that says what to do instead."""

from __future__ import annotations

import torch
from transformers import Trainer, TrainingArguments

ARGUMENTS = {
    "label_smoothing_factor": "the loss is each token's own cross-entropy: leave it at 0",
    "torch_compile": "every step exchanges the output projection and would be compiled again: switch it off",
    "deepspeed": "the step reads weights that DeepSpeed takes apart: start with torchrun or accelerate's MULTI_GPU",
    "fsdp": "adapters stay whole: shard the frozen weights with sstoken.training.distributed.shard_frozen instead",
    "neftune_noise_alpha": "its noise is scaled by the length of a padded row, and samples are packed here",
    "use_liger_kernel": "the loss comes from sstoken.selection.token_loss, which Liger's would replace",
    "fp16_full_eval": "the weights that are trained on would stay in float16 afterwards",
    "bf16_full_eval": "the weights that are trained on would stay in bfloat16 afterwards",
    "auto_find_batch_size": "the record of the steps before an out-of-memory error would stay: lower the micro-batch",
    "label_names": "labels are the response tokens of the rows",
    # TRL's
    "packing": "samples are packed without padding anyway, and a mask needs to know where each begins: set it to False",
    "eval_packing": "samples are packed without padding anyway: leave it out",
    "activation_offloading": "offloaded activations have not been tried with packed rows",
}
"""Argument -> why it is refused where it is set (to anything true)."""

OPTIONS = {
    "data_collator": "samples are packed by sstoken.training.collate.PackedCollator",
    "compute_loss_func": "the loss is the mean over the kept tokens; a loss of your own is a scorer with `weigh`",
    "model_init": "history and base losses belong to one model: pass model=",
}
"""Option of the constructor -> why it is refused."""


class Unsupported(ValueError):
    """An argument of Trainer's that would be ignored or wrong with selection."""


def check_arguments(model: torch.nn.Module | None, args: TrainingArguments | None, options: dict) -> None:
    """Refuse before anything is built.

    Raises:
        Unsupported: names the argument and what to do instead.
    """
    for name, why in OPTIONS.items():
        if options.get(name) is not None:
            raise Unsupported(f"SelectionTrainer does not take {name}: {why}")
    for name, why in ARGUMENTS.items():
        if getattr(args, name, None):
            raise Unsupported(f"SelectionTrainer does not support {name}: {why}")
    if getattr(args, "loss_type", None) not in (None, "nll"):  # TRL's
        raise Unsupported(
            f"SelectionTrainer does not support loss_type={args.loss_type!r}: the method decides the loss"
        )
    if "inputs" in getattr(args, "include_for_metrics", ()):
        raise Unsupported("SelectionTrainer's inputs are packed rows: take 'inputs' out of include_for_metrics")
    if args is not None and not args.average_tokens_across_devices and args.world_size > 1:
        raise Unsupported("SelectionTrainer divides by the tokens of all ranks: set average_tokens_across_devices=True")
    if hasattr(model, "_orig_mod"):
        raise Unsupported(f"SelectionTrainer does not take a compiled model: {ARGUMENTS['torch_compile']}")


def check_parallel(trainer: Trainer) -> None:
    """Refuse what accelerate or the machine adds to the arguments.

    Raises:
        Unsupported: names the way of running in parallel and what to do instead.
    """
    for found, name in ((trainer.is_deepspeed_enabled, "deepspeed"), (trainer.is_fsdp_enabled, "fsdp")):
        if found:
            raise Unsupported(f"SelectionTrainer does not support {name} of accelerate's: {ARGUMENTS[name]}")
    parallel = getattr(trainer.accelerator, "parallelism_config", None)
    if parallel is not None and parallel.total_size > parallel.dp_replicate_size:
        raise Unsupported("SelectionTrainer does not support tensor, context or sequence parallelism: use DDP")
    if trainer.args.n_gpu > 1:
        raise Unsupported(
            "several GPUs in one process would split a packed row: start one process a GPU (accelerate launch, or "
            f"torchrun --nproc-per-node={trainer.args.n_gpu}), or show this one a single GPU (CUDA_VISIBLE_DEVICES=0)"
        )
