"""The heat map alone: which tokens of a few rows each method would keep, by what a model and a reference say. No training."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sstoken.data import read_rows, tokenize
from sstoken.experiment.audited import auditable
from sstoken.experiment.own import entries_of_scorers
from sstoken.jobs.audit import shown_sample
from sstoken.models.load import Weights, load_tokenizer
from sstoken.models.sources import materialise
from sstoken.models.table import load_models
from sstoken.records.documents import ConfigError, pick
from sstoken.report.audit_page import terminal, write_audit_page
from sstoken.selection.methods import Method, build_method, load_methods
from sstoken.training.audit import Auditor, look
from sstoken.training.collate import PackedCollator
from sstoken.training.dataset import MADE, SelectionDataset, uniform_signal
from sstoken.training.packing import packed_attention
from sstoken.training.reference_losses import compute_losses
from sstoken.training.scorer_trial import faults_of

MODELS_FILE = "sstoken/models/models.tsv"
NOTE = (
    "Nothing was trained: the current model is the model before fine-tuning. REL (history minus current) is therefore 0 for "
    "every token, and methods that rank by REL alone keep the earliest tokens."
)


def explain(
    rows: Sequence[str],
    *,
    model: str,
    methods: Sequence[str],
    reference: str | None = None,
    out: Path | None = None,
    limit: int = 5,
    template: str = "tulu",
    max_length: int = 2048,
    seed: int = 0,
    colour: bool = False,
) -> str:
    """The samples as text for a terminal; with ``out`` also as one HTML file.

    Args:
        rows: files of rows, in any form that a data set may have. model, reference: a folder, or a name of models.tsv.
        methods: names of entries, or ``.py`` files of scorers; a method that needs a reference is refused without one.
        limit: rows shown.

    Raises:
        ConfigError: no such model, no such method, a method that cannot be explained without training, or a scorer with a
            fault.
    """
    files = [Path(name) for name in methods if name.endswith(".py")]
    own_methods = [build_method(name, entry) for name, entry in entries_of_scorers(files).items()]
    if faults := faults_of(own_methods):
        raise ConfigError("\n".join(faults))
    names = [name for name in methods if not name.endswith(".py")]
    asked = [*pick("method", names, load_methods(), "methods.yaml").values(), *own_methods]
    taken, refused = auditable(asked)
    with tempfile.TemporaryDirectory() as scratch:
        base = folder_of(model, Path(scratch) / "model")
        tokenizer = load_tokenizer(base)
        found, _ = read_rows(list(rows), on_bad_row="stop", limit=limit)
        data, _ = tokenize(found, tokenizer, template=template, max_length=max_length, on_bad_row="drop")
        lacking = {m.name: why for m in taken if (why := _lacks(m, reference is not None, data.truth is not None))}
        refused |= lacking
        taken = [m for m in taken if m.name not in lacking]
        if not taken:
            raise ConfigError("nothing to explain: " + "; ".join(f"{name}: {why}" for name, why in refused.items()))
        own = Weights(base).load(dtype="float32")
        signals = {"base_loss": compute_losses(own, data)}
        signals |= {"history_loss": signals["base_loss"], "uniform": uniform_signal(len(signals["base_loss"]), seed)}
        if reference is not None:
            other = Weights(folder_of(reference, Path(scratch) / "reference")).load(dtype="float32")
            signals["reference_loss"] = compute_losses(other, data)
        if data.truth is not None:
            signals["truth"] = data.truth[data.response_mask]
        records = verdicts(own, taken, SelectionDataset(data, signals))
    samples = [shown_sample(data, index, records, tokenizer) for index in range(len(data))]
    if out is not None:
        about = f"{len(data)} rows as {Path(model).name} reads them. {NOTE}"
        write_audit_page(
            out, title="Which tokens would be kept?", about=about, tables=[], samples=samples, refused=refused
        )
    lines = [terminal(sample, colour=colour) for sample in samples]
    legend = "struck through: dropped; shade: rank" if colour else "[-token-]: dropped"
    return (
        "\n\n".join([legend, *lines, *(f"not shown: {name}, since {why}" for name, why in refused.items()), NOTE])
        + "\n"
    )


GIVEN = MADE | {"base_loss", "history_loss", "uniform"}
"""Signals that the model and the rows give, without a reference or labels."""


def _lacks(method: Method, reference: bool, truth: bool) -> str:
    """Why a method cannot be explained here, or ""."""
    for name in sorted(method.needs - GIVEN):
        if name == "reference_loss" and not reference:
            return "it needs a reference model: give one with --reference"
        if name == "truth" and not truth:
            return "these rows do not say which tokens are noise"
        if name not in ("reference_loss", "truth"):
            return f"it needs {name}, which is not made here; sstoken audit makes it"
    return ""


def verdicts(model: torch.nn.Module, methods: list[Method], dataset: SelectionDataset) -> dict[str, dict]:
    """method -> ``score`` [R] and ``keep`` [R] with the model as it stands, a sample at a time."""
    auditor = Auditor.of(methods, dataset)
    collate = PackedCollator()
    with packed_attention(model), torch.no_grad():
        for index in range(len(dataset)):
            signals = look(model, collate([dataset[index]]), auditor)[1]
            # the same pass for both: of two, the difference would be nothing but rounding, and min-max would stretch it
            history = signals.history_loss if signals.history_loss is None else signals.loss
            auditor.write_down(replace(signals, history_loss=history))
    return {name: {key: value.numpy() for key, value in found.items()} for name, found in auditor.record.items()}


def folder_of(name: str, scratch: Path) -> Path:
    """A model's folder: the one named, or that of a row of models.tsv, brought in.

    Raises:
        ConfigError: neither a folder with a config.json nor a name of the table.
    """
    if (Path(name) / "config.json").exists():
        return Path(name)
    table = load_models(MODELS_FILE)
    if name not in table:
        raise ConfigError(f"{name}: neither a folder with a config.json nor a model of the table ({', '.join(table)})")
    materialise(table[name], scratch)
    return scratch
