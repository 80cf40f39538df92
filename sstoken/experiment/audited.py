"""Which methods one full-data training run can score, and what it must be given for that. Names only."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from sstoken.experiment.grid import Grid
from sstoken.experiment.job_groups import Jobs
from sstoken.experiment.layout import Run
from sstoken.experiment.tickets import Tickets
from sstoken.records.documents import PACKAGE
from sstoken.records.files import atomic_write
from sstoken.records.identity import Ticket, code_of, file_code, scorer_code, versions_of
from sstoken.selection.methods import OWN_HISTORY, Method

HELD_OUT = "reference"
"""The data set whose rows are held out: curated, and not trained on."""


def auditable(methods: list[Method]) -> tuple[list[Method], dict[str, str]]:
    """(methods that one full-data run can score, method -> why it cannot).

    All must read a signal from the same weights: the first method that asks for a signal decides.
    """
    taken, refused, weights, layer = [], {}, {}, None
    for method in methods:
        if not method.trains:
            refused[method.name] = "it does not train"
        elif method.data != "train":
            refused[method.name] = f"it trains on other rows ({method.data})"
        elif not method.needs and method.keep_ratio == 1:
            refused[method.name] = "it keeps every token"
        elif method.reference == "previous" or method.parts > 1:
            refused[method.name] = "its reference is made by its own chain of runs"
        elif "history_loss" in method.needs and method.history in OWN_HISTORY:
            refused[method.name] = f"its history ({method.history}) is of its own run"
        elif clash := next((s for s, w in method.weights.items() if weights.get(s, w) != w), None):
            refused[method.name] = f"its {clash} is of {method.weights[clash]}, the audit's of {weights[clash]}"
        elif "attention_mass" in method.needs and layer not in (None, method.attention_layer):
            refused[method.name] = f"its attention layer is {method.attention_layer}, the audit's {layer}"
        else:
            weights |= {s: w for s, w in method.weights.items() if s not in weights}
            layer = method.attention_layer if "attention_mass" in method.needs else layer
            taken.append(method)
    return taken, refused


def audit_order(grid: Grid, tickets: Tickets, model: str) -> dict:
    """What the job of one model's audit is told, as plain values: its files, its methods, its ticket, what it waits for."""
    seed = grid.seeds[0]
    draw, clean_draw = grid.draw("train", seed), grid.draw(HELD_OUT, seed)
    entries = {name: grid.method_entry(name, model) for name, method in grid.methods.items()}
    methods, _ = auditable([grid.all_methods[name] for name in entries])
    labels = {signal: label for method in methods for signal, label in grid.labels(method.name, seed).items()}
    tokens, heldout = grid.tokens(model, "train", draw), grid.tokens(model, HELD_OUT, clean_draw)
    losses = {signal: grid.losses(model, "train", label, draw) for signal, label in labels.items()}
    needs = {"model": tickets.model(model), "tokens": tickets.results[tokens.with_suffix(".json")]}
    if held_out := tickets.results.get(heldout.with_suffix(".json")):
        needs["held-out tokens"] = held_out
    needs |= {signal: tickets.results[path.with_suffix(".json")] for signal, path in losses.items()}
    training = grid.order(Run(model, "full", seed))["training"]
    made_from = {"entries": entries, "training": training, "seed": seed, **code_of("train"), **versions_of("train")}
    for method in methods:
        made_from |= scorer_code(type(method.scorer))
    for name in ("sstoken/training/audit.py", "sstoken/report/audit.py", "sstoken/report/audit_page.py"):
        made_from[f"code {name}"] = file_code(PACKAGE.parent / name)
    made = {what: (result.ticket.name, str(result.record), "content") for what, result in needs.items()}
    return {
        "model": model, "entries": entries, "base": str(grid.model_record(model).parent), "tokens": str(tokens),
        "heldout": str(heldout) if held_out else None, "losses": {s: str(p) for s, p in losses.items()},
        "training": training, "seed": seed, "ticket": asdict(Ticket("audit", made_from, made)),
        "records": [str(result.record) for result in needs.values()],
    }  # fmt: skip


def write_audits(grid: Grid, jobs: Jobs, folder: Path) -> None:
    """Write down every model's audit, ``{model}.{ticket}.json``, and their names: a new ticket is a new job."""
    names = []
    for model in grid.models:
        order = audit_order(grid, jobs.tickets, model)
        waits = [jobs.made_by[path] for path in map(Path, order.pop("records")) if path in jobs.made_by]
        names.append(f"{model}.{Ticket(**order['ticket']).name}")
        _write(folder / f"{names[-1]}.json", {"model": model, "waits": list(dict.fromkeys(waits)), "order": order})
    _write(folder / "names.json", names)


def _write(path: Path, value) -> None:
    with atomic_write(path) as temporary:
        Path(temporary).write_text(json.dumps(value, indent=1))
