"""``audit/index.html`` and the terminal's table: what an audit found, for a reader."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scipy.stats import rankdata

from sstoken.records.files import atomic_write
from sstoken.report.page import TEMPLATES
from sstoken.report.samples import Line, ShadedSample

ANSI = {"keep": "\x1b[48;5;{shade}m{text}\x1b[0m", "drop": "\x1b[9;2m{text}\x1b[0m"}
SHADES = (255, 194, 157, 120, 83, 46)
"""Of 256 terminal colours, from a low score to a high one."""


@dataclass(frozen=True)
class PageTable:
    """A table of ready strings; the first column names the row."""

    heading: str
    caption: str
    columns: list[str]
    rows: list[list[str]]


def methods_table(audit: pd.DataFrame) -> PageTable:
    """AUC of every method over the whole training: all noise, each kind counting once, and by kind."""
    whole = audit[audit["phase"].astype(str) == "all"]
    if (whole["kind"] == "unlabelled").all():
        rows = [[m] for m in whole["method"].drop_duplicates()]
        return PageTable("Methods", "These rows carry no labels of noise, so no AUC can be told.", ["method"], rows)
    kinds = [k for k in dict.fromkeys(whole["kind"]) if k not in ("all", "harm", "varying")]
    wide = whole.set_index(["method", "kind"])
    rows = []
    for method in whole["method"].drop_duplicates():
        cells = [_interval(wide.loc[(method, kind)], ("auc", "low", "high")) for kind in ("all", "varying", "harm")]
        every = wide.loc[(method, "all")]
        cells += [_percent(every["precision"]), _percent(every["recall"])]
        cells += [_number(wide.loc[(method, kind), "auc"]) for kind in kinds]
        rows.append([method, *cells])
    caption = (
        "AUC: how often a clean token scores above a noise token of its sample; 0.5 is chance. Long samples count by their "
        "tokens, not by their pairs; the interval takes a sample as a cluster. Without fixed tokens: leaves out clean tokens "
        "that noise can never replace. By kind: the mean over kinds of noise, each counting once. Precision: clean share of "
        "what is kept. Recall: kept share of what is clean."
    )
    columns = ["method", "AUC", "without fixed tokens", "by kind", "precision %", "recall %", *kinds]
    return PageTable("Does the score find the noise?", caption, columns, rows)


def phases_table(audit: pd.DataFrame) -> PageTable:
    """AUC of all noise by fifth of training."""
    part = audit[(audit["kind"] == "all") & (audit["phase"].astype(str) != "all")]
    wide = part.pivot_table(index="method", columns="phase", values="auc", sort=False)
    rows = [[m, *(_number(v) for v in values)] for m, values in zip(wide.index, wide.to_numpy(), strict=True)]
    return PageTable("AUC over training", "By fifth of training.", ["method", *map(str, wide.columns)], rows)


def direction_table(table: pd.DataFrame) -> PageTable:
    whole = table[table["step"].astype(str) == "all"]
    rows = [
        [r.method, _interval(r._asdict(), ("cosine", "low", "high")),
         _interval(r._asdict(), ("minus_full", "minus_full_low", "minus_full_high"))]
        for r in whole.itertuples(index=False)
    ]  # fmt: skip
    caption = (
        "Cosine between the gradient of the tokens that a method keeps and the gradient of held-out clean rows, mean over "
        "batches and steps, with a 95 % interval over batches; then its difference from full data, paired by batch. Finding "
        "noise is not helping: a method can find noise and also drop what teaches. In the embedded world neither told the "
        "order of the final scores (docs/results.md): train the method to know."
    )
    return PageTable("Does it point the right way?", caption, ["method", "cosine", "minus full"], rows)


def agreement_table(table: pd.DataFrame) -> PageTable:
    names = list(dict.fromkeys(table["method"]))
    wide = table.set_index(["method", "other"])["spearman"]
    rows = [[a, *(_number(wide[a, b]) for b in names)] for a in names]
    return PageTable("Who ranks alike?", "Rank correlation of scores within samples.", ["method", *names], rows)


def tokens_table(table: pd.DataFrame, method: str) -> PageTable:
    rows = [[repr(r.token)[1:-1], str(r.count), _percent(r.dropped)] for r in table.itertuples(index=False)]
    return PageTable(
        f"What {method} drops", "Tokens dropped most often, then least.", ["token", "times", "dropped %"], rows
    )


def shaded(name: str, prompt: str, tokens: list[str], noise: list[str], verdicts: dict) -> ShadedSample:
    """A sample whose ``verdicts`` are method -> (score, keep) of its T response tokens."""
    lines = [
        Line(method, (rankdata(score) - 1) / max(len(score) - 1, 1), np.asarray(keep, dtype=bool))
        for method, (score, keep) in verdicts.items()
    ]
    return ShadedSample(name, prompt, tokens, noise, lines)


def write_audit_page(
    out: Path, *, title: str, about: str, tables: list[PageTable], samples: list[ShadedSample],
    refused: dict[str, str], links: dict[str, str] | None = None,
) -> None:  # fmt: skip
    """One HTML file, escaped throughout, that opens from disk. links: name -> page beside it."""
    options = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    page = Environment(loader=FileSystemLoader(TEMPLATES), **options).get_template("audit.html.j2").render(
        title=title, about=about, tables=tables, samples=samples, refused=refused, links=links or {},
        truth=any(kind for sample in samples for kind in sample.noise),
    )  # fmt: skip
    with atomic_write(out) as temporary:
        Path(temporary).write_text(page)


def terminal(sample: ShadedSample, *, colour: bool) -> str:
    """The sample for a terminal: shaded by rank, dropped tokens struck through; without colour ``[-token-]``."""
    lines = [f"{sample.name}: {_printable(sample.prompt)[-200:]}"]
    width = max((len(line.method) for line in sample.lines), default=0)
    for line in sample.lines:
        text = ""
        for token, rank, keep in zip(sample.tokens, line.rank, line.keep, strict=True):
            token = _printable(token)
            if not colour:
                text += token if keep else f"[-{token}-]"
            elif keep:
                text += ANSI["keep"].format(shade=SHADES[round(float(rank) * (len(SHADES) - 1))], text=token)
            else:
                text += ANSI["drop"].format(text=token)
        lines.append(f"  {line.method:{width}}  {text}")
    return "\n".join(lines)


def _printable(text: str) -> str:
    """Without control characters: a row must not be able to steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def text_table(table: PageTable) -> str:
    """The table with aligned columns, for a terminal."""
    widths = [max(len(str(row[i])) for row in [table.columns, *table.rows]) for i in range(len(table.columns))]
    lines = []
    for row in [table.columns, *table.rows]:
        cells = zip(row, widths, strict=True)
        lines.append("  ".join(f"{cell:<{w}}" if i == 0 else f"{cell:>{w}}" for i, (cell, w) in enumerate(cells)))
    return "\n".join(lines)


def _interval(row, names: tuple[str, str, str]) -> str:
    value, low, high = (row[name] for name in names)
    if pd.isna(value):
        return "–"
    return f"{value:.3f}" + ("" if pd.isna(low) else f" [{low:.3f}, {high:.3f}]")


def _number(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.2f}"


def _percent(value: float) -> str:
    return "–" if pd.isna(value) else f"{100 * value:.1f}"
