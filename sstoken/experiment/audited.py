"""Which methods one full-data training run can score, and what it must be given for that. Names only."""

from __future__ import annotations

from pathlib import Path

from sstoken.experiment.grid import Grid
from sstoken.experiment.layout import HELD_OUT
from sstoken.experiment.tickets import Result, Tickets
from sstoken.selection.methods import OWN_HISTORY, Method

CURATED = "reference"
"""The data set whose rows stand for held-out ones where none are: curated, and not trained on by full-data training."""


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
        elif method.chooses:
            refused[method.name] = "it chooses rows, not tokens"
        elif method.keeps_all:
            refused[method.name] = "it keeps every token"
        elif method.scorer.weighs and method.keep_ratio == 1:
            refused[method.name] = "it keeps every token, and weighs it"
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


def audit_labels(grid: Grid, model: str) -> dict[str, str]:
    """signal -> label of the weights that it is measured with, for the methods of the table that can be audited."""
    methods, _ = auditable([grid.all_methods[name] for name in grid.methods])
    return {s: label for method in methods for s, label in grid.labels(method.name, grid.seeds[0]).items()}


def audit_entries(grid: Grid, model: str) -> dict[str, dict]:
    """method -> its plain entry, of every method of the table that trains."""
    return {name: grid.method_entry(name, model) for name, method in grid.methods.items() if method.trains}


def audit_inputs(grid: Grid, model: str) -> dict[str, list[str] | str]:
    """The files that the audit of a model reads: ``model``, ``tokens``, ``heldout`` (or none), ``losses``."""
    losses = [str(path) for path in audit_losses(grid, model).values()]
    held_out = [str(grid.tokens(model, name, _draw(grid, name))) for name in _held_out(grid)]
    return {
        "model": str(grid.model_record(model)),
        "tokens": str(grid.tokens(model, "train", _draw(grid, "train"))),
        "heldout": held_out,
        "losses": list(dict.fromkeys(losses)),
    }


def audit_losses(grid: Grid, model: str) -> dict[str, Path]:
    """signal -> file of its losses, of the rows of the first seed."""
    labels = audit_labels(grid, model)
    return {signal: grid.losses(model, "train", label, _draw(grid, "train")) for signal, label in labels.items()}


def _held_out(grid: Grid) -> list[str]:
    """The data set of held-out rows, if any. Without a world, a configuration may still name its rows."""
    name = HELD_OUT if HELD_OUT in grid.config["data"] else CURATED
    sources = grid.config["data"].get(name, {}).get("sources", [])
    there = bool(sources) and (grid.config["world"] is not None or not any("{world}" in source for source in sources))
    return [name] if there else []


def _draw(grid: Grid, dataset: str) -> int | None:
    return grid.draw(dataset, grid.seeds[0])


def audit_results(tickets: Tickets, model: str) -> list[Result]:
    """The same as results that the workflow makes; the held-out rows' tokens are none of the grid's."""
    grid = tickets.grid
    found = [tickets.model(model), tickets.tokens(model, "train", _draw(grid, "train"))]
    found += [tickets.tokens(model, name, _draw(grid, name)) for name in _held_out(grid)]
    labels = dict.fromkeys(audit_labels(grid, model).values())
    return found + [tickets.losses(model, "train", _draw(grid, "train"), label) for label in labels]
