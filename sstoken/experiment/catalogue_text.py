"""The catalogue as people read it: on a terminal, and as a page of the documentation."""

from __future__ import annotations

import textwrap
from itertools import groupby

from sstoken.experiment.catalogue import Item, catalogue, equation_of
from sstoken.experiment.evidence import AVERAGE, MARKS, Measured
from sstoken.selection.methods import Method

WIDTH = 100
LABEL = 10

KINDS = {
    "mask": "Masks: which response tokens count",
    "weight": "Weights: how much each response token counts",
    "rows": "Rows: which rows of a micro-batch are trained on",
    "control": "Controls: what a gain has to be told from",
    "bound": "Bounds: they know what is noise",
}

LEGEND = [
    "cost: passes beyond full-data training; shared: made once for all methods of a run that need it.",
    "operations: of training and of the reference that the method needs, against full-data training.",
    "claim: " + "; ".join(f"{mark}: {what}" for mark, what in MARKS.items()) + ".",
    "here: our runs in the embedded world, minus full-data training in percent points, [95 % interval]; * significant after "
    "Holm's correction over the experiment's table. Every method has one learning rate, chosen by the controls.",
]


def text(items: list[Item]) -> str:
    """One block a method, its fields one below the other; what a method has not is left out."""
    legend = "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in LEGEND)
    return "\n\n".join([*("\n".join(_block(item)) for item in items), legend])


def _block(item: Item) -> list[str]:
    lines = [f"{item.name}  ({item.kind})"]
    for label, words in fields_of(item):
        begin = f"  {label:<{LABEL}}"
        lines += textwrap.wrap(
            words, WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin), break_on_hyphens=False
        )
    return lines


def fields_of(item: Item) -> list[tuple[str, str]]:
    """(label, words), without those that would be empty."""
    found = [
        ("equation", item.equation),
        ("needs", ", ".join(item.needs) or "nothing"),
        ("cost", "; ".join([item.cost, *_operations(item.measured)])),
        ("source", item.source or "no source named"),
        *(("claim", f"{claim.text} ({claim.mark})" if claim.mark else claim.text) for claim in item.claims),
        *(("here", words) for words in _here(item.measured)),
    ]
    return [(label, words) for label, words in found if words]


def _operations(rows: list[Measured]) -> list[str]:
    found = sorted({f"{row.operations:.2f}" for row in rows if row.operations is not None}, key=float)
    return [f"here {' to '.join(dict.fromkeys((found[0], found[-1])))} times full's operations"] if found else []


def _here(rows: list[Measured]) -> list[str]:
    lines = []
    for (experiment, score), own in groupby(rows, key=lambda row: (row.experiment, row.score)):
        parts = list(own)
        name = "minus full" if score == AVERAGE else f"{score} minus full"
        values = ", ".join(f"{row.model} {row.text}" for row in parts)
        seeds = f"{parts[0].seeds} seed{'s' if parts[0].seeds > 1 else ''}"
        lines.append(f"{name}: {values} (embedded world, experiment {experiment}, {seeds})")
    return lines


def markdown(methods: dict[str, Method]) -> str:
    """A section a kind, a heading a method: for ``docs/reference/methods.md``."""
    items = catalogue(methods)
    parts = [f"- {line}" for line in map(_escaped, LEGEND)]
    for kind, heading in KINDS.items():
        parts.append(f"\n## {heading}")
        for item in items:
            if item.kind == kind:
                parts.append(f"\n### {item.name}\n")
                shown = dict(equation=equation_of(methods[item.name]).replace("``", "`"))
                parts += [f"- **{label}**: {shown.get(label, _escaped(words))}" for label, words in fields_of(item)]
    return "\n".join(parts)


def _escaped(words: str) -> str:
    for sign in ("*", "_", "<"):
        words = words.replace(sign, f"\\{sign}")
    return words
