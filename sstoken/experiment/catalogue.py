"""The methods as a list: what each scores by, needs and costs, what its paper claims and what our runs say."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass

from sstoken.experiment.evidence import Claim, Measured, read_claims, read_measured
from sstoken.records.documents import pick
from sstoken.selection import Chooser
from sstoken.selection.contract import kind_of
from sstoken.selection.methods import METHODS_FILE, Method, load_methods


@dataclass(frozen=True)
class Item:
    """One method.

    equation: of its scorer's docstring. needs: signals, sorted. cost: passes beyond full-data training. claims: of its
    paper. measured: of our own runs, minus full.
    """

    name: str
    kind: str
    equation: str
    needs: list[str]
    cost: str
    source: str
    claims: list[Claim]
    measured: list[Measured]


def catalogue(methods: dict[str, Method], names: Iterable[str] = (), where: str = METHODS_FILE.name) -> list[Item]:
    """The methods of these names in this order, or every one; ``where`` they stand.

    Claims and measurements are those of the shipped methods: an entry of that name with another scorer has no claim, one with
    other settings no measurement.

    Raises:
        ConfigError: an unknown name; says which known one is nearest.
    """
    shipped, claims, measured = load_methods(), read_claims(), read_measured()
    items = []
    for name, method in (pick("method", list(names), methods, where) if names else methods).items():
        theirs = shipped.get(name)
        same_scorer = theirs is not None and type(method.scorer) is type(theirs.scorer)
        items.append(
            Item(
                name,
                str(method.kind),
                plain(equation_of(method)),
                sorted(method.needs),
                cost_of(method),
                " ".join(method.source.split()),
                [Claim(method.claim)] if method.claim else claims.get(name, []) if same_scorer else [],
                [row for row in measured if row.method == name] if method == theirs else [],
            )
        )
    return items


def equation_of(method: Method) -> str:
    """The sentence of the scorer's docstring that has its first formula, formulas as there between two backticks.

    Empty where the docstring has none. An anchor's term is added.
    """
    if method.scorer is None:
        return ""
    text = inspect.getdoc(type(method.scorer)) or ""
    found = re.search(r"``.+?``.*?(?=[.:]?\s*(?:\n\n|\Z)|\.\s+[A-Z*])", text, re.DOTALL)
    sentence = " ".join(found[0].split()) if found else ""
    if method.anchor is None:
        return sentence
    return f"{sentence}; the loss adds ``λ·KL(base ‖ θ)`` at every response token, λ = {method.anchor['weight']:g}"


def plain(equation: str) -> str:
    """Without the backticks."""
    return equation.replace("``", "")


def cost_of(method: Method) -> str:
    """Passes over the data that full-data training does not make. Those of frozen weights are shared by all methods."""
    needs = {kind_of(signal) for signal in method.needs}
    weights = {*method.references.values(), *({method.reference} if "reference_loss" in method.needs else ())}
    base = {"base_loss", "base_rank"} & needs or ("history_loss" in needs and method.history == "base")
    costs = []
    if base or "base" in weights:
        costs.append("1 pass of the base (shared)")
    if "unconditional_loss" in needs:
        costs.append("1 pass of the base without prompts (shared)")
    costs += [_cost_of_weights(name, method) for name in sorted(weights - {"base"})]
    if "history_loss" in needs and method.own_history:
        costs.append("1 forward pass a step")
    elif "history_loss" in needs and method.history != "base":
        costs.append(f"1 pass of {method.history}")
    if method.anchor is not None:
        costs.append("1 forward pass of the base a step")
    if isinstance(method.scorer, Chooser) and method.scorer.reads:
        costs.append("1 forward pass over the rows that are not taken too")
    return "; ".join(costs) or "none"


def _cost_of_weights(name: str, method: Method) -> str:
    if name == "previous":
        return f"1 pass of the chain over each of {method.parts - 1} parts"
    return f"{'a reference model' if name == 'reference' else f'a run of {name}'} and 1 pass of it (shared)"
