"""The methods as a list: what each scores by, needs and costs."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from sstoken.selection import Chooser
from sstoken.selection.contract import kind_of
from sstoken.selection.methods import Method


@dataclass(frozen=True)
class Item:
    """One method. equation: of its scorer's docstring. needs: signals, sorted. cost: passes beyond full-data training."""

    name: str
    kind: str
    equation: str
    needs: list[str]
    cost: str
    source: str


def catalogue(methods: dict[str, Method]) -> list[Item]:
    """Every method, in the order of its file."""
    return [
        Item(name, str(m.kind), equation_of(m), sorted(m.needs), cost_of(m), " ".join(m.source.split()))
        for name, m in methods.items()
    ]


def equation_of(method: Method) -> str:
    """The first formula of the scorer's docstring; empty where it has none."""
    if method.scorer is None:
        return ""
    found = re.search(r"``(.+?)``", inspect.getdoc(type(method.scorer)) or "", re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def cost_of(method: Method) -> str:
    """Passes over the data that full-data training does not make. Those of frozen weights are shared by all methods."""
    needs = {kind_of(signal) for signal in method.needs}
    base = {"base_loss", "base_rank"} & needs or ("history_loss" in needs and method.history == "base")
    costs = []
    if base:
        costs.append("1 pass of the base (shared)")
    if "unconditional_loss" in needs:
        costs.append("1 pass of the base without prompts (shared)")
    if "reference_loss" in method.needs:
        if method.reference == "previous":
            costs.append(f"1 pass of the chain over each of {method.parts - 1} parts")
        else:
            costs.append("a reference model and 1 pass of it (shared)")
    if "history_loss" in needs and method.own_history:
        costs.append("1 forward pass a step")
    elif "history_loss" in needs and method.history != "base":
        costs.append(f"1 pass of {method.history}")
    costs += [f"1 pass of {weights}" for weights in method.references.values()]
    if method.anchor is not None:
        costs.append("1 forward pass of the base a step")
    if isinstance(method.scorer, Chooser) and method.scorer.reads:
        costs.append("1 forward pass over the rows that are not taken too")
    return "; ".join(costs) or "none"
