"""An audit: one full-data training run that scores every method's tokens as it goes, and what is found, on a page."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import set_seed

from sstoken.data import TokenData
from sstoken.experiment.audited import auditable
from sstoken.experiment.config import Parallel, TrainingSettings
from sstoken.jobs import device_of, job
from sstoken.models.load import Weights, load_tokenizer
from sstoken.records.files import atomic_write
from sstoken.records.provenance import Cost, Record, measured
from sstoken.report.audit import COLUMNS, agreement, audit_rows, directions, dropped_tokens
from sstoken.report.audit_page import (
    agreement_table,
    direction_table,
    methods_table,
    phases_table,
    shaded,
    text_table,
    tokens_table,
    write_audit_page,
)
from sstoken.report.kept_tokens import token_text
from sstoken.report.samples import token_texts
from sstoken.selection.methods import build_method
from sstoken.training.audit import Auditor, Compass
from sstoken.training.dataset import SelectionDataset
from sstoken.training.reference_losses import ReferenceLosses
from sstoken.training.setup import known_signals, trainable, training_arguments
from sstoken.training.trainer import SelectionTrainer

SHOWN = 8
"""Samples on the page."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """One model's audit.

    entries: method -> its plain entry. base: the model's folder. tokens, heldout: files of the training rows and of rows that
    are not trained on (None: no direction is measured). losses: signal -> file of its losses. out: folder of what is written.
    """

    model: str
    entries: dict[str, dict]
    base: Path
    tokens: Path
    heldout: Path | None
    losses: dict[str, Path]
    settings: TrainingSettings
    seed: int
    out: Path
    device: str = "auto"
    threads: int = 1


def audit(order: Order) -> None:
    """Write ``scores.csv`` (rows of ``audit.csv``), ``direction.csv``, ``agreement.csv``, ``page.json`` and ``audit.json``."""
    record = order.out / "audit.json"
    with job(record, order.threads):
        cost = Cost("audit", model=order.model, seed=order.seed)
        with measured(cost, device := device_of(order.device)):
            auditor, trainer, compass, data, refused = train(order, device)
        cost.tokens = cost.backward_tokens = trainer.counted["tokens"]
        cost.forward_tokens, cost.kept_tokens = trainer.counted["tokens"], trainer.counted["kept_tokens"]
        write(order, auditor, trainer, compass, data, refused)
        details = {"entries": order.entries, "refused": refused, "settings": asdict(order.settings)}
        Record(cost, details | {"tokens_sha256": data.sha256, "samples": len(data)}).write(record)


def train(order: Order, device: str):
    """The run itself: what it wrote down, its trainer, its compass, its data, and which methods it could not score."""
    data = TokenData.load(order.tokens)
    methods, refused = auditable([build_method(name, entry) for name, entry in order.entries.items()])
    if data.truth is None:
        blind = {m.name: "these rows do not say which tokens are noise" for m in methods if "truth" in m.needs}
        refused |= blind
        methods = [m for m in methods if m.name not in blind]
    signals = {s: ReferenceLosses.load(path, data=data).loss_R for s, path in order.losses.items()}
    for method in methods:
        signals |= known_signals(data, method, order.seed, order.tokens)
    dataset = SelectionDataset(data, signals)
    auditor = Auditor.of(methods, dataset)
    set_seed(order.seed)
    model = trainable(Weights(order.base), order.settings, device=device, parallel=Parallel())
    arguments = training_arguments(order.settings, order.out / "checkpoints", order.seed, device)
    arguments.save_strategy = "no"
    trainer = SelectionTrainer(
        model, arguments, method=auditor.method, train_dataset=dataset, chunk_size=order.settings.chunk_size
    )
    compass = None
    heldout = TokenData.load(order.heldout) if order.heldout is not None else None
    if heldout is not None and (clean := without_noise(heldout)):
        size = order.settings.micro_batch_size
        compass = Compass(auditor, dataset, heldout, clean, batch_size=size, seed=order.seed)
        trainer.add_callback(compass)
    set_seed(order.seed)
    trainer.train()
    return auditor, trainer, compass, data, refused


def without_noise(data: TokenData) -> list[int]:
    """The samples that carry no labelled noise; all of them where nothing is labelled."""
    if data.truth is None:
        return list(range(len(data)))
    noisy_R = (data.truth[data.response_mask] > 0).int().cumsum(0).numpy()
    before_S1 = np.concatenate([[0], noisy_R])[data.response_offset.numpy()]
    return np.flatnonzero(np.diff(before_S1) == 0).tolist()


def write(order: Order, auditor: Auditor, trainer: SelectionTrainer, compass: Compass | None, data, refused) -> None:
    tokenizer = load_tokenizer(order.base)
    step_S = trainer.record["step"].numpy()
    records = {name: {k: v.numpy() for k, v in found.items()} for name, found in auditor.record.items()}
    named = {"model": order.model, "seed": order.seed}
    frames = [audit_rows(found, step_S, data).assign(method=name, **named) for name, found in records.items()]
    rows = pd.concat(frames, ignore_index=True)[COLUMNS] if frames else pd.DataFrame(columns=COLUMNS)
    sample_R = np.repeat(np.arange(len(data)), data.response_offset.diff().numpy())
    pairs = agreement(records, sample_R)
    _csv(rows, order.out / "scores.csv")
    _csv(pairs.assign(**named), order.out / "agreement.csv")
    tables = [methods_table(rows)]
    if data.truth is not None:
        tables.append(phases_table(rows))
    if compass is not None:
        pointed = directions(pd.DataFrame([asdict(d) for d in compass.found]))
        _csv(pointed.assign(**named), order.out / "direction.csv")
        tables.append(direction_table(pointed))
    tables.append(agreement_table(pairs))
    unique, place = np.unique(data.input_ids[data.response_mask].numpy(), return_inverse=True)
    pieces = np.array([token_text(int(token), tokenizer.backend_tokenizer) for token in unique])[place]
    tables += [tokens_table(dropped_tokens(found["keep"], pieces), name) for name, found in records.items()]
    page = order.out / "index.html"
    about = (
        f"One full-data training run, seed {order.seed}: {len(data)} samples, {int(data.response_offset[-1])} response tokens, "
        f"{trainer.state.global_step} steps. Every method scores the tokens of each step; none is acted on."
    )
    samples = [shown_sample(data, index, records, tokenizer) for index in chosen_samples(data)]
    write_audit_page(
        page, title=f"Audit of {order.model}", about=about, tables=tables, samples=samples, refused=refused
    )
    with atomic_write(order.out / "audit.txt") as temporary:
        text = "\n\n".join(f"{t.heading}\n{text_table(t)}" for t in tables[: 3 if compass is not None else 2])
        left_out = "".join(f"\nNot audited: {name}, since {why}." for name, why in refused.items())
        Path(temporary).write_text(f"{order.model}: {about}\n\n{text}\n{left_out}\nThe page, with samples: {page}\n")


def chosen_samples(data: TokenData) -> list[int]:
    """One sample with each kind of noise, then samples spread evenly over the data."""
    found: list[int] = []
    if data.truth is not None:
        codes = data.truth[data.response_mask].numpy()
        sample_R = np.repeat(np.arange(len(data)), data.response_offset.diff().numpy())
        for code in range(1, len(data.kinds) + 1):
            where = sample_R[codes == code]
            found += [int(where[len(where) // 2])] if len(where) else []
    spread = [k * len(data) // SHOWN for k in range(SHOWN)]
    return list(dict.fromkeys([*found, *spread]))[:SHOWN]


def shown_sample(data: TokenData, index: int, records: dict, tokenizer):
    sample = data.sample(index)
    ids, mask = sample["input_ids"].tolist(), sample["response_mask"].tolist()
    first = mask.index(True)
    prompt = tokenizer.decode(ids[:first])
    start, stop = data.response_offset[index : index + 2].tolist()
    texts = [text for text, response in zip(token_texts(ids, tokenizer), mask, strict=True) if response]
    noise = []
    if data.truth is not None:
        kinds = ["", *data.kinds]
        place = slice(int(data.offset[index]), int(data.offset[index + 1]))
        noise = [kinds[code] for code in data.truth[place][data.response_mask[place]].tolist()]
    verdicts = {name: (found["score"][start:stop], found["keep"][start:stop]) for name, found in records.items()}
    return shaded(data.ids[index], prompt, texts, noise, verdicts)


def _csv(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        frame.to_csv(temporary, index=False)


def gather(folders: list[Path], out: Path) -> None:
    """``audit.csv`` and ``index.html`` of all models: the table, and a page that links to each model's."""
    rows = pd.concat([pd.read_csv(folder / "scores.csv") for folder in folders], ignore_index=True)
    _csv(rows[COLUMNS], out / "audit.csv")
    records = [json.loads((folder / "audit.json").read_text()) for folder in folders]
    tables = []
    for folder in folders:
        rows = pd.read_csv(folder / "scores.csv")
        table = methods_table(rows)
        tables.append(type(table)(f"{folder.name}: {table.heading}", table.caption, table.columns, table.rows))
    refused = {name: why for record in records for name, why in record["refused"].items()}
    about = (
        "Every method's scores on one full-data training run a model. Each model has a page of its own, with samples."
    )
    links = {folder.name: f"{folder.name}/index.html" for folder in folders}
    write_audit_page(
        out / "index.html", title="Audit", about=about, tables=tables, samples=[], refused=refused, links=links
    )
