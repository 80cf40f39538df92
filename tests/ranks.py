"""Trains a tiny model on as many ranks as it is started on, and writes what came out: ``ranks.py OUT STRATEGY METHOD…``."""

import atexit
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import TrainingArguments

from sstoken import SelectionTrainer, load_method
from sstoken.training.dataset import SelectionDataset, uniform_signal
from sstoken.training.distributed import leave, leave_shards_alone, shard_frozen
from tests.conftest import ragged_tokens, tiny_adapter, tiny_model


def main(out: Path, name: str, strategy: str) -> None:
    torch.set_num_threads(1)
    data = ragged_tokens(samples=37)  # 5 steps of 8, of which the last lacks 3
    total = int(data.response_offset[-1])
    signals = {
        s: uniform_signal(total, number) for number, s in enumerate(("reference_loss", "history_loss", "uniform"))
    }
    name, _, option = name.partition("-with-")
    method = load_method(name)
    if option == "means-of-samples":
        method = replace(method, normalisation="samples")
    if option == "losses-of-its-own":
        del signals["history_loss"]
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    base = tiny_model()
    arguments = TrainingArguments(
        output_dir=str(out / "checkpoints"), per_device_train_batch_size=2, gradient_accumulation_steps=4 // ranks,
        num_train_epochs=1, learning_rate=1e-2, lr_scheduler_type="constant", use_cpu=True, report_to="none",
        train_sampling_strategy="sequential", logging_steps=1, save_strategy="steps", save_steps=3, disable_tqdm=True,
        dataloader_pin_memory=False, per_device_eval_batch_size=1,
        ddp_find_unused_parameters=False, gradient_checkpointing=strategy == "fsdp",
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )  # fmt: skip
    model = tiny_adapter(shard_frozen(base) if strategy == "fsdp" else base)
    model.enable_input_require_grads()
    leave_shards_alone(model)
    trainer = SelectionTrainer(model, arguments, method=method, train_dataset=SelectionDataset(data, signals))
    trainer.train()
    if strategy == "fsdp":
        layer = trainer.model.get_base_model().model.layers[0].self_attn.q_proj.base_layer.weight
        assert layer.to_local().shape[0] * ranks == layer.shape[0], "every rank holds a shard"
    found = trainer.evaluate(ragged_tokens(samples=7, seed=1))["eval_loss"]
    if arguments.should_save:
        state = {n: p.detach().contiguous() for n, p in trainer.model.named_parameters() if p.requires_grad}
        save_file(state, out / "adapter.safetensors")
        save_file(trainer.record, out / "record.safetensors")
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        (out / "log.json").write_text(json.dumps({"loss": losses, "counted": trainer.counted, "evaluation": found}))


if __name__ == "__main__":
    for method in sys.argv[3:]:
        main(Path(sys.argv[1]) / method, method, sys.argv[2])
    if "WORLD_SIZE" in os.environ:
        atexit.register(os.abort)  # as a thread of the group may do while the interpreter shuts down
        leave()
