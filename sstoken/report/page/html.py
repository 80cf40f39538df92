"""Files of the run as parts of one HTML page: Markdown tables and SVG figures."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup, escape

from sstoken.report.figures.style import COLOURS, INK, PAPER, QUIET


@dataclass(frozen=True)
class Table:
    """headers and rows: cells as markup. numeric: which columns are aligned to the right. key: the column that names rows."""

    headers: list[Markup]
    numeric: list[bool]
    rows: list[list[Markup]]

    @property
    def key(self) -> int:
        return self.headers.index("method") if "method" in self.headers else 0

    @property
    def prose(self) -> list[bool]:
        """Which columns hold sentences, and may break lines."""
        return [max((len(cell) for cell in column), default=0) > 40 for column in zip(*self.rows, strict=True)]


def markdown_blocks(text: str) -> list[Table | Markup]:
    """Pipe tables and paragraphs of a Markdown file, in order; other syntax than bold and code stays as it is."""
    blocks: list[Table | Markup] = []
    for chunk in re.split(r"\n\s*\n", text.strip()):
        lines = chunk.splitlines()
        if len(lines) > 1 and lines[0].startswith("|") and set(lines[1]) <= set("|-: "):
            head, rule, *body = (_cells(line) for line in lines)
            numeric = [cell.strip().endswith(":") for cell in rule]
            blocks.append(Table([_inline(c) for c in head], numeric, [[_inline(c) for c in row] for row in body]))
        elif chunk:
            blocks.append(_inline(" ".join(line.lstrip("# ") for line in lines)))
    return blocks


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def _inline(text: str) -> Markup:
    safe = str(escape(text))
    safe = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe)
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", safe))


def inline_svg(svg: str, name: str, alt: str) -> Markup:
    """A figure's SVG for use within a page: own ids, the page's colours in light and dark, described by ``alt``.

    Several figures on one page would otherwise share ids; and a file's white paper would glare in the dark.
    """
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    body = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", body)
    body = body.replace(INK, "currentColor").replace(PAPER, "var(--paper)")
    for number, colour in enumerate(COLOURS):
        body = body.replace(colour, f"var(--series-{number})")
    body = body.replace(QUIET, "var(--quiet)")
    head, _, rest = body.partition(">")
    box = re.search(r'viewBox="[^"]*"', head)
    # without width and height: the page decides how large a figure is
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return Markup(f'<svg {spaces} {box[0]} role="img" aria-label="{escape(alt)}">{rest}')
