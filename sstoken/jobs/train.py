"""Training runs, and the parts of a chain: read, build, train, write."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from sstoken.data import TokenData
from sstoken.experiment.config import Parallel, TrainingSettings
from sstoken.jobs import device_of, each, job, run_folder
from sstoken.jobs.costs import count, count_pass
from sstoken.models.flops import Shape
from sstoken.models.load import DTYPES, Weights
from sstoken.models.sources import weights_sha256
from sstoken.records.files import hashes, whole_folder
from sstoken.records.provenance import Cost, Record, measured
from sstoken.records.ticket import Ticket
from sstoken.selection.methods import Method, build_method
from sstoken.training.distributed import launch, leave
from sstoken.training.record import STATE_FILE
from sstoken.training.reference_losses import ReferenceLosses
from sstoken.training.setup import build, known_signals, part_of
from sstoken.training.trainer import SelectionTrainer


@dataclass(frozen=True, kw_only=True)
class Order:
    """One run, or one part of a chain, as the workflow orders it.

    entry: the method's plain entry, for the record. part: index in the chain; the run's end has the last index.
    base: the model's folder. initial: the folder of the part that this one trains on from, or None.
    tokens: file of the data. losses: signal -> file of its losses. loss_weights: signal -> the weights they must be of.
    out: the run's folder, its ``run.json`` is written last. checkpoints: what a killed job resumes from; not a result.
    ticket: what the run is to be made from. parallel: on how many devices. request: the arguments of this order.
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
    ticket: Ticket
    device: str = "auto"
    threads: int = 1
    parallel: Parallel = field(default_factory=Parallel)
    request: dict = field(default_factory=dict)

    @classmethod
    def of(
        cls, *, out: Path | str, model: str, method: str, entry: dict, labels: dict[str, str], training: dict,
        references: dict, device: str, threads: int, ticket: dict, draw: int | None = None, parallel: dict | None = None,
    ) -> Order:  # fmt: skip
        """Find a run's files by their names: ``out`` is ``…/runs/{model}/{method}/seed{seed}``, or a part below."""
        request = {n: v for n, v in locals().items() if n != "cls"} | {"out": str(out)}
        out, built = Path(out), build_method(method, entry)
        part = int(out.name.removeprefix("part")) if out.name.startswith("part") else built.parts - 1
        run = out.parent if out.name.startswith("part") else out
        root = run.parents[3]
        base = root / "models" / model
        data = built.data if draw is None else f"{built.data}.seed{draw}"
        return cls(
            model=model,
            method=built,
            entry=entry,
            seed=int(run.name.removeprefix("seed")),
            part=part,
            base=base,
            initial=run / f"part{part - 1}" if part else None,
            tokens=root / "tokens" / model / f"{data}.safetensors",
            losses={s: root / "references" / model / data / f"{label}.safetensors" for s, label in labels.items()},
            loss_weights={s: Weights(base, run_folder(root, model, label)) for s, label in labels.items()},
            settings=TrainingSettings.of(training),
            references=references,
            out=out,
            checkpoints=root / "checkpoints" / model / method / run.name / f"part{part}",
            ticket=Ticket(**ticket),
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
        for left in order.out.glob("part*"):  # of a longer chain before this one
            if int(left.name.removeprefix("part")) >= order.part:
                shutil.rmtree(left)


def train(order: Order) -> None:
    """Train one run: adapter or weights, log, selection record, and provenance, in ``order.out``."""
    with job(order.out / "run.json", order.threads, order.ticket) as finished:
        if finished:
            return
        if order.parallel.gpus > 1:
            request = json.dumps(order.request)
            launch(order.parallel.gpus, "sstoken.jobs.train", [request], device=device_of(order.device))
        else:
            make(order)


def make(order: Order) -> None:
    """What every process of a run does: read, build, train, write; the first one writes."""
    cost = Cost("train", model=order.model, method=order.method.name, seed=order.seed)
    identity = order.ticket.identity
    checkpoints = order.checkpoints / identity  # of another identity: another run's, never gone on from
    with measured(cost, device := device_of(order.device)):
        data, signals = read(order)
        trainer, model = build(
            order.method, order.part, data, signals, weights=Weights(order.base, order.initial),
            settings=order.settings, seed=order.seed, checkpoints=checkpoints, device=device, parallel=order.parallel,
            batch_tokens=order.references["batch_tokens"],
        )  # fmt: skip
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
        files = write_weights(trainer, model, order)
    count(cost, trainer, Shape.of(model))
    if order.method.reference == "previous" and order.part > 0:
        count_pass(cost, data, Shape.of(model))
    write_record(order, cost, trainer, files)
    shutil.rmtree(checkpoints, ignore_errors=True)


def read(order: Order) -> tuple[TokenData, dict[str, torch.Tensor]]:
    """The data of the run (or part) and its stored signals, checked to belong to each other."""
    data = TokenData.load(order.tokens)
    signals = {}
    for name, path in order.losses.items():
        expected = order.loss_weights[name].sha256
        signals[name] = ReferenceLosses.load(path, data=data, weights_sha256=expected).loss_R
    signals |= known_signals(data, order.method, order.seed, order.tokens)
    return part_of(data, signals, order.method, order.part)


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole: the selection's state is written last."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{STATE_FILE}")]
    return max(whole, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def write_weights(trainer: SelectionTrainer, model: PreTrainedModel, order: Order) -> dict[str, str]:
    """Adapter or weights, the selection of every token, and the log: name -> sha256.

    They are written beside the run's folder first: what is there stays as it is until all of the new is on the disk.
    """
    data = trainer.train_dataset.data
    with whole_folder(order.out, "run.json") as folder:
        if order.settings.adapter is None:
            model.to(DTYPES[order.settings.dtype])
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's model card, a form that nobody has filled in
        details = {"offset": data.response_offset, **trainer.record}
        save_file(details, folder / "selection.safetensors", metadata={"tokens_sha256": data.sha256})
        lines = [json.dumps(row, sort_keys=True) for row in trainer.state.log_history if "loss" in row]
        (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
        return hashes(folder, sorted(path.name for path in folder.iterdir()))


def write_record(order: Order, cost: Cost, trainer: SelectionTrainer, files: dict[str, str]) -> None:
    """``run.json``, last: its existence means that the rest is whole."""
    data, weights = trainer.train_dataset.data, weights_sha256(order.out)
    losses = {signal: ReferenceLosses.load(path).weights_sha256 for signal, path in order.losses.items()}
    if order.method.reference == "previous" and order.initial:
        losses["reference_loss"] = weights_sha256(order.initial)
    details = {
        "entry": order.entry, "part": order.part, "settings": asdict(order.settings),
        "parallel": asdict(order.parallel), "weights_sha256": weights, "base_sha256": weights_sha256(order.base),
        "tokens_sha256": data.sha256, "samples": len(data), "steps": trainer.state.global_step,
        "counted": trainer.counted, "losses_sha256": losses,
        "content": weights, "files": files,
    }  # fmt: skip
    Record(cost, details | order.ticket.details()).write(order.out / "run.json")


def train_rank(request: dict) -> None:
    """One of several processes of a run; the one that started them holds the lock."""
    order = Order.of(**request)
    if device_of(order.device) == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    make(order)


if __name__ == "__main__":
    train_rank(json.loads(sys.argv[1]))
    leave()
