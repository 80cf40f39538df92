"""Tables for readers: GitHub Markdown, and LaTeX with booktabs.

Cells are Markdown; the only markup is ``**bold**``, so that one text serves both.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from sstoken.records.files import atomic_write

_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "γ": r"$\gamma$",
    "ρ": r"$\rho$",
    "θ": r"$\theta$",
}


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    with atomic_write(path) as temporary:
        frame.to_csv(temporary, index=False)


def write_text(table: pd.DataFrame, stem: Path, caption: str) -> None:
    """``stem.md`` and ``stem.tex`` of a table of ready strings: columns of numbers to the right, words to the left."""
    align = ["right" if numeric(table[column]) else "left" for column in table.columns]
    with atomic_write(stem.with_suffix(".md")) as temporary:
        temporary.write_text(markdown(table, align, caption))
    with atomic_write(stem.with_suffix(".tex")) as temporary:
        temporary.write_text(latex(table, align, caption, f"tab:{stem.name}"))


def numeric(cells: pd.Series) -> bool:
    """Whether a column is numbers, signs and marks only."""
    return not cells.astype(str).str.contains(r"[A-DF-Za-df-z]").any()


def markdown(table: pd.DataFrame, align: list[str], caption: str) -> str:
    safe = table.map(lambda cell: str(cell).replace("|", r"\|"))
    body = safe.to_markdown(index=False, tablefmt="pipe", colalign=align, disable_numparse=True)
    return f"{body}\n\n{caption}\n"


def latex(table: pd.DataFrame, align: list[str], caption: str, label: str) -> str:
    r"""A ``table*`` for two-column papers; needs ``\usepackage{booktabs}``, and graphicx to fit wide tables to the page."""
    body = table.map(latex_cell).rename(columns=latex_cell).style.hide(axis="index")
    tabular = body.to_latex(hrules=True, column_format="".join(side[0] for side in align)).strip()
    fitted = f"\\resizebox{{\\textwidth}}{{!}}{{%\n{tabular}}}" if len(table.columns) > 6 else tabular
    lines = [
        r"\begin{table*}",
        r"\centering",
        f"\\caption{{{latex_cell(caption)}}}",
        f"\\label{{{label}}}",
        fitted,
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def latex_cell(cell) -> str:
    escaped = "".join(_LATEX.get(character, character) for character in str(cell))
    return re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", escaped)
