"""Training runs, and the parts of a chain."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, TrainingArguments, set_seed

from sstoken.data import TokenData
from sstoken.experiment.config import Parallel, TrainingSettings
from sstoken.jobs import device_of, each, job, run_folder
from sstoken.models.flops import Shape
from sstoken.models.load import DTYPES, Weights
from sstoken.models.sources import weights_sha256
from sstoken.records.files import atomic_write
from sstoken.records.provenance import Cost, Record, measured, read_record
from sstoken.selection.methods import Method, build_method, full
from sstoken.training.dataset import SelectionDataset, uniform_signal
from sstoken.training.distributed import launch, leave, leave_shards_alone, shard_frozen
from sstoken.training.record import STATE_FILE
from sstoken.training.reference_losses import ReferenceLosses, compute_losses
from sstoken.training.trainer import SelectionTrainer


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One run, or one part of a chain, as the workflow orders it.

    entry: the method's plain entry, for the record. part: index in the chain; the run's end has the last index.
    base: the model's folder. initial: the folder of the part that this one trains on from, or None.
    tokens: file of the data. losses: signal -> file of its losses. loss_weights: signal -> the weights they must be of.
    out: the run's folder, its ``run.json`` is written last. checkpoints: what a killed job resumes from; not a result.
    parallel: on how many devices. request: the arguments that this order was made from.
    """

    model: str
    method: Method
    entry: dict
    seed: int
    part: int
    base: Path
    initial: Path | None
    tokens: Path
    losses: dict[str, Path]
    loss_weights: dict[str, Weights]
    settings: TrainingSettings
    references: dict
    out: Path
    checkpoints: Path
    device: str = "auto"
    threads: int = 1
    parallel: Parallel = field(default_factory=Parallel)
    request: dict = field(default_factory=dict)


def order_training(
    *, out: Path | str, model: str, method: str, entry: dict, labels: dict[str, str], training: dict, references: dict,
    device: str, threads: int, parallel: dict | None = None,
) -> TrainingJob:  # fmt: skip
    """Find a run's files by their names: ``out`` is ``…/runs/{model}/{method}/seed{seed}``, with ``/part{t}`` for a part."""
    request, out = {**locals(), "out": str(out)}, Path(out)
    built = build_method(method, entry)
    last = built.parts - 1
    part = int(out.name.removeprefix("part")) if out.name.startswith("part") else last
    run = out.parent if out.name.startswith("part") else out
    root = run.parents[3]
    base = root / "models" / model
    return TrainingJob(
        model=model,
        method=built,
        entry=entry,
        seed=int(run.name.removeprefix("seed")),
        part=part,
        base=base,
        initial=run / f"part{part - 1}" if part else None,
        tokens=root / "tokens" / model / f"{built.data}.safetensors",
        losses={s: root / "references" / model / built.data / f"{label}.safetensors" for s, label in labels.items()},
        loss_weights={s: Weights(base, run_folder(root, model, label)) for s, label in labels.items()},
        settings=TrainingSettings.of(training),
        references=references,
        out=out,
        checkpoints=root / "checkpoints" / model / method / run.name / f"part{part}",
        device=device,
        threads=threads,
        parallel=Parallel(**parallel or {}),
        request=request,
    )


def train_all(orders: list[TrainingJob]) -> None:
    """Train the runs of one job. What was finished before another failed, or before a kill, is not trained again."""
    each((f"{order.model}, {order.method.name}, {order.out.name}", partial(train, order)) for order in orders)
    for order in orders:
        shutil.rmtree(order.checkpoints, ignore_errors=True)


def train(order: TrainingJob) -> None:
    """Train one run: adapter or weights, log, selection record, and provenance, in ``order.out``."""
    record = order.out / "run.json"
    with job(record, order.threads):
        data, signals = _data_of(order)
        identity = _identity(order, data)
        if record.exists() and read_record(record).get("identity") == identity:
            return  # an orphan of a killed workflow has finished it meanwhile
        # the workflow deletes the records of a job that failed, those of its finished runs too; this copy is not its
        finished = order.checkpoints / identity / record.name
        if finished.exists() and _is_whole(order.out, read_record(finished)["weights_sha256"]):
            _copy(finished, record)
        elif order.parallel.gpus > 1:
            request = json.dumps(order.request)
            launch(order.parallel.gpus, "sstoken.jobs.train", [request], device=device_of(order.device))
        else:
            _train(order, data, signals, identity)


def _train(order: TrainingJob, data: TokenData, signals: dict[str, torch.Tensor], identity: str) -> None:
    """What every process of a run does; the first one writes."""
    cost = Cost("train", model=order.model, method=order.method.name, seed=order.seed)
    with measured(cost, device := device_of(order.device)):
        set_seed(order.seed)
        checkpoints = order.checkpoints / identity
        arguments = training_arguments(order.settings, checkpoints, order.seed, device, order.parallel.gpus)
        model = _trainable(order, device)
        method, extra = _method_of_part(order, model, data, signals, cost)
        trainer = SelectionTrainer(
            model,
            arguments,
            method=method,
            train_dataset=SelectionDataset(data, signals),
            chunk_size=order.settings.chunk_size,
            dropped_loss_every=order.settings.dropped_loss_every,
        )
        set_seed(order.seed)  # again: dropout must not depend on what was drawn on the way here
        if checkpoint := _last_checkpoint(checkpoints):
            print(f"{order.method.name}, seed {order.seed}: resuming from {checkpoint.name}")
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        cost.seconds += round(trainer.seconds_before, 3)
        if not any(row.get("learning_rate") for row in trainer.state.log_history):
            raise ValueError(
                f"method {order.method.name}, part {order.part}: all {trainer.state.global_step} steps are warm-up, at "
                "learning rate 0, so nothing was trained; use more data, fewer parts, or warmup_share: 0"
            )
        if not arguments.should_save:
            return
        _save(trainer, model, order)
    _count(cost, trainer, Shape.of(model))
    details = {
        "identity": identity,
        "entry": order.entry, "part": order.part, "settings": asdict(order.settings),
        "parallel": asdict(order.parallel),
        "weights_sha256": weights_sha256(order.out), "base_sha256": weights_sha256(order.base),
        "tokens_sha256": data.sha256, "samples": len(data), "steps": trainer.state.global_step,
        "counted": trainer.counted,
        "losses_sha256": {s: ReferenceLosses.load(p).weights_sha256 for s, p in order.losses.items()} | extra,
    }  # fmt: skip
    Record(cost, details).write(checkpoints / "run.json")
    _copy(checkpoints / "run.json", order.out / "run.json")
    for checkpoint in checkpoints.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def _is_whole(folder: Path, sha256: str) -> bool:
    try:
        return weights_sha256(folder) == sha256
    except FileNotFoundError:  # deleted by hand
        return False


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)


def _train_rank(request: dict) -> None:
    """One of several processes of a run; the one that started them holds the lock."""
    order = order_training(**request)
    if device_of(order.device) == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    data, signals = _data_of(order)
    _train(order, data, signals, _identity(order, data))


def _trainable(order: TrainingJob, device: str) -> PreTrainedModel:
    adapter = order.settings.adapter
    sharded = order.parallel.gpus > 1 and order.parallel.strategy == "fsdp"
    if adapter is None:
        if sharded:
            raise ValueError("parallel: fsdp shards frozen weights; without an adapter none are: use ddp")
        return Weights(order.base, order.initial).load(dtype=order.settings.dtype, device=device).train()
    model = Weights(order.base).load(dtype=order.settings.dtype, device="cpu" if sharded else device)
    if sharded:
        model = shard_frozen(model)
    if order.initial is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, order.initial, is_trainable=True)
    else:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=adapter.rank, lora_alpha=adapter.alpha, lora_dropout=adapter.dropout,
            target_modules=list(adapter.targets), task_type="CAUSAL_LM",
        )  # fmt: skip
        model = get_peft_model(model, config)
    if order.settings.gradient_checkpointing:
        model.enable_input_require_grads()
    leave_shards_alone(model)
    return model.train()


def _data_of(order: TrainingJob) -> tuple[TokenData, dict[str, torch.Tensor]]:
    """The data of the run (or part) and its stored signals, checked to belong to each other."""
    data = TokenData.load(order.tokens)
    total = int(data.response_offset[-1])
    signals = {}
    for name, path in order.losses.items():
        expected = order.loss_weights[name].sha256
        signals[name] = ReferenceLosses.load(path, data=data, weights_sha256=expected).loss_R
    if "uniform" in order.method.needs:
        seed = order.seed if order.method.random_seed is None else order.method.random_seed
        signals["uniform"] = uniform_signal(total, seed)
    if "truth" in order.method.needs:
        if data.truth is None:
            raise ValueError(
                f"method {order.method.name} needs to know which tokens are noise; {order.tokens} does not say"
            )
        signals["truth"] = data.truth[data.response_mask]
    if order.method.parts == 1:
        return data, signals
    start, stop = (len(data) * (order.part + step) // order.method.parts for step in (0, 1))
    if start == stop:
        raise ValueError(
            f"method {order.method.name}: part {order.part} of {len(data)} samples is empty; use fewer parts"
        )
    place = slice(int(data.response_offset[start]), int(data.response_offset[stop]))
    return data.slice(start, stop), {name: value_R[place] for name, value_R in signals.items()}


def _method_of_part(order: TrainingJob, model, data: TokenData, signals: dict, cost: Cost) -> tuple[Method, dict]:
    """A chain's part 0 trains in full; later parts measure their reference, the model as it stands, before training."""
    if order.method.reference != "previous":
        return order.method, {}
    if order.part == 0:
        return replace(order.method, scorer=full.Config(), keep_ratio=1.0, scope="sample", reference="base"), {}
    signals["reference_loss"] = compute_losses(model, data, batch_tokens=order.references["batch_tokens"])
    tokens = len(data.input_ids)
    cost.forward_tokens += tokens
    cost.flops += Shape.of(model).forward(
        tokens, int((data.lengths.double() ** 2).sum()), len(signals["reference_loss"])
    )
    return order.method, {"reference_loss": weights_sha256(order.initial)}


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
        bf16=settings.dtype == "bfloat16",  # adapters are float32; their products need not be
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


def _identity(order: TrainingJob, data: TokenData) -> str:
    """A name for all that the weights depend on: a checkpoint of other settings or data is never resumed from."""
    files = [order.base, order.initial] if order.initial else [order.base]
    weights = [weights_sha256(folder) for folder in files] + [w.sha256 for w in order.loss_weights.values()]
    parts = [order.entry, asdict(order.settings), order.seed, order.part, data.sha256, weights]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole: the selection's state is written last."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{STATE_FILE}")]
    return max(whole, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def _save(trainer: SelectionTrainer, model: PreTrainedModel, order: TrainingJob) -> None:
    order.out.mkdir(parents=True, exist_ok=True)
    if order.settings.adapter is None:
        model.to(DTYPES[order.settings.dtype])
    model.save_pretrained(order.out)
    data = trainer.train_dataset.data
    details = {"offset": data.response_offset, **trainer.record}
    with atomic_write(order.out / "selection.safetensors") as temporary:
        save_file(details, temporary, metadata={"tokens_sha256": data.sha256})
    with atomic_write(order.out / "log.jsonl") as temporary:
        lines = [json.dumps(row, sort_keys=True) for row in trainer.state.log_history if "loss" in row]
        Path(temporary).write_text("\n".join(lines) + "\n")


def _count(cost: Cost, trainer: SelectionTrainer, shape: Shape) -> None:
    counted = trainer.counted
    tokens, pairs = counted["tokens"], counted["attention_pairs"]
    cost.tokens, cost.kept_tokens = tokens, counted["kept_tokens"]
    cost.forward_tokens += tokens + counted["history_tokens"]
    cost.backward_tokens = tokens
    if counted["history_tokens"]:
        cost.flops += shape.forward(counted["history_tokens"], pairs, counted["response_tokens"])
    cost.flops += shape.forward(tokens, pairs, counted["projected_tokens"])
    cost.flops += shape.backward(tokens, pairs, counted["projected_tokens"], counted["kept_tokens"])


if __name__ == "__main__":
    _train_rank(json.loads(sys.argv[1]))
    leave()
