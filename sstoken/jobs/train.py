"""Training runs, and the parts of a chain: read, build, train, write."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, set_seed

from sstoken.data import TokenData
from sstoken.experiment.config import Parallel, TrainingSettings
from sstoken.jobs import device_of, each, job, run_folder
from sstoken.models.flops import Shape
from sstoken.models.load import DTYPES, Weights
from sstoken.models.sources import weights_sha256
from sstoken.records.files import atomic_write
from sstoken.records.provenance import Cost, Record, measured, read_record
from sstoken.selection.methods import Method, build_method
from sstoken.training.dataset import SelectionDataset
from sstoken.training.distributed import launch, leave
from sstoken.training.record import STATE_FILE
from sstoken.training.reference_losses import ReferenceLosses, compute_losses
from sstoken.training.setup import known_signals, method_of_part, part_of, trainable, training_arguments
from sstoken.training.trainer import SelectionTrainer


@dataclass(frozen=True, kw_only=True)
class Order:
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

    @classmethod
    def of(
        cls, *, out: Path | str, model: str, method: str, entry: dict, labels: dict[str, str], training: dict,
        references: dict, device: str, threads: int, parallel: dict | None = None,
    ) -> Order:  # fmt: skip
        """Find a run's files by their names: ``out`` is ``…/runs/{model}/{method}/seed{seed}``, or a part below."""
        request = {n: v for n, v in locals().items() if n != "cls"} | {"out": str(out)}
        out, built = Path(out), build_method(method, entry)
        part = int(out.name.removeprefix("part")) if out.name.startswith("part") else built.parts - 1
        run = out.parent if out.name.startswith("part") else out
        root = run.parents[3]
        base = root / "models" / model
        return cls(
            model=model,
            method=built,
            entry=entry,
            seed=int(run.name.removeprefix("seed")),
            part=part,
            base=base,
            initial=run / f"part{part - 1}" if part else None,
            tokens=root / "tokens" / model / f"{built.data}.safetensors",
            losses={
                s: root / "references" / model / built.data / f"{label}.safetensors" for s, label in labels.items()
            },
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


def train_all(orders: list[Order]) -> None:
    """Train the runs of one job. What was finished before another failed, or before a kill, is not trained again."""
    each((f"{order.model}, {order.method.name}, {order.out.name}", partial(train, order)) for order in orders)
    for order in orders:
        shutil.rmtree(order.checkpoints, ignore_errors=True)


def train(order: Order) -> None:
    """Train one run: adapter or weights, log, selection record, and provenance, in ``order.out``."""
    record = order.out / "run.json"
    with job(record, order.threads):
        data, signals = read(order)
        identity = identity_of(order, data)
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
            make(order, data, signals, identity)


def _is_whole(folder: Path, sha256: str) -> bool:
    try:
        return weights_sha256(folder) == sha256
    except FileNotFoundError:  # deleted by hand
        return False


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)


def identity_of(order: Order, data: TokenData) -> str:
    """A name for all that the weights depend on: a checkpoint of other settings or data is never resumed from."""
    files = [order.base, order.initial] if order.initial else [order.base]
    weights = [weights_sha256(folder) for folder in files] + [w.sha256 for w in order.loss_weights.values()]
    parts = [order.entry, asdict(order.settings), order.seed, order.part, data.sha256, weights]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def make(order: Order, data: TokenData, signals: dict[str, torch.Tensor], identity: str) -> None:
    """What every process of a run does: build, train, write; the first one writes."""
    cost = Cost("train", model=order.model, method=order.method.name, seed=order.seed)
    checkpoints = order.checkpoints / identity
    with measured(cost, device := device_of(order.device)):
        trainer, model, extra = build(order, data, signals, checkpoints, device, cost)
        if checkpoint := _last_checkpoint(checkpoints):
            print(f"{order.method.name}, seed {order.seed}: resuming from {checkpoint.name}")
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        cost.seconds += round(trainer.seconds_before, 3)
        if not any(row.get("learning_rate") for row in trainer.state.log_history):
            raise ValueError(
                f"method {order.method.name}, part {order.part}: all {trainer.state.global_step} steps are warm-up, at "
                "learning rate 0, so nothing was trained; use more data, fewer parts, or warmup_share: 0"
            )
        if not trainer.args.should_save:
            return
        write_weights(trainer, model, order)
    count(cost, trainer, Shape.of(model))
    write_record(order, cost, trainer, identity, extra)


def read(order: Order) -> tuple[TokenData, dict[str, torch.Tensor]]:
    """The data of the run (or part) and its stored signals, checked to belong to each other."""
    data = TokenData.load(order.tokens)
    signals = {}
    for name, path in order.losses.items():
        expected = order.loss_weights[name].sha256
        signals[name] = ReferenceLosses.load(path, data=data, weights_sha256=expected).loss_R
    signals |= known_signals(data, order.method, order.seed, order.tokens)
    return part_of(data, signals, order.method, order.part)


def build(
    order: Order, data: TokenData, signals: dict[str, torch.Tensor], checkpoints: Path, device: str, cost: Cost
) -> tuple[SelectionTrainer, PreTrainedModel, dict]:
    """The trainer, its model, and the hash of weights that a signal was measured with here."""
    set_seed(order.seed)
    arguments = training_arguments(order.settings, checkpoints, order.seed, device, order.parallel.gpus)
    weights = Weights(order.base, order.initial)
    model = trainable(weights, order.settings, device=device, parallel=order.parallel)
    extra = {}
    if order.method.reference == "previous" and order.part > 0:
        # a chain's reference is the model as it stands before this part
        signals["reference_loss"] = compute_losses(model, data, batch_tokens=order.references["batch_tokens"])
        tokens, pairs = len(data.input_ids), int((data.lengths.double() ** 2).sum())
        cost.forward_tokens += tokens
        cost.flops += Shape.of(model).forward(tokens, pairs, len(signals["reference_loss"]))
        extra = {"reference_loss": weights_sha256(order.initial)}
    trainer = SelectionTrainer(
        model,
        arguments,
        method=method_of_part(order.method, order.part),
        train_dataset=SelectionDataset(data, signals),
        chunk_size=order.settings.chunk_size,
        dropped_loss_every=order.settings.dropped_loss_every,
    )
    set_seed(order.seed)  # again: dropout must not depend on what was drawn on the way here
    return trainer, model, extra


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole: the selection's state is written last."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{STATE_FILE}")]
    return max(whole, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def write_weights(trainer: SelectionTrainer, model: PreTrainedModel, order: Order) -> None:
    """Adapter or weights, the selection of every token, and the log."""
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


def write_record(order: Order, cost: Cost, trainer: SelectionTrainer, identity: str, extra: dict) -> None:
    """``run.json``, last: its existence means that the rest is whole."""
    checkpoints = order.checkpoints / identity
    data = trainer.train_dataset.data
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


def count(cost: Cost, trainer: SelectionTrainer, shape: Shape) -> None:
    """Fill in what the run cost, from what its trainer counted."""
    counted = trainer.counted
    tokens, pairs = counted["tokens"], counted["attention_pairs"]
    cost.tokens, cost.kept_tokens = tokens, counted["kept_tokens"]
    cost.forward_tokens += tokens + counted["history_tokens"]
    cost.backward_tokens = tokens
    if counted["history_tokens"]:
        cost.flops += shape.forward(counted["history_tokens"], pairs, counted["response_tokens"])
    cost.flops += shape.forward(tokens, pairs, counted["projected_tokens"])
    cost.flops += shape.backward(tokens, pairs, counted["projected_tokens"], counted["kept_tokens"])


def train_rank(request: dict) -> None:
    """One of several processes of a run; the one that started them holds the lock."""
    order = Order.of(**request)
    if device_of(order.device) == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    data, signals = read(order)
    make(order, data, signals, identity_of(order, data))


if __name__ == "__main__":
    train_rank(json.loads(sys.argv[1]))
    leave()
