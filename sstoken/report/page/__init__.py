"""``report/index.html``: one file that says what was measured, how sure it is, and what it cost."""

from __future__ import annotations

import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sstoken.records.files import atomic_write
from sstoken.report.figures import MANIFEST
from sstoken.report.kept_tokens import LEAST, kept_tokens
from sstoken.report.numbers import listed, share
from sstoken.report.page.html import inline_svg, markdown_blocks
from sstoken.report.page.provenance import origin_of
from sstoken.report.page.scope import scope_of
from sstoken.report.page.verdicts import HEADLINE, glance_of, overview, spans, together_of, verdict_of
from sstoken.report.results import Results
from sstoken.report.samples import shaded_samples
from sstoken.report.statistics import MARGIN

TEMPLATES = Path(__file__).parent / "templates"

SECTIONS = [
    ("main", "Scores", "Each method on each benchmark, percent, with 95 % intervals."),
    (
        "pooled",
        "All models together",
        "Mean over the models: what was taught, the difference from full, what noise took.",
    ),
    ("differences", "Differences", "Average of a method minus full's, with its test."),
    ("recovered", "Taught, lost and recovered", "Recovered: 0 = full-data training, 1 = the oracle."),
    ("claims", "The paper's claims", "Where each holds, over the ablations' values, and where not."),
    (
        "safety",
        "Utility and harm",
        "What is taught, what is refused that must be, and what is refused that need not be.",
    ),
    ("heldout", "Held-out loss", "Bits per byte of responses that nothing was trained on; lower is better."),
    ("selection", "What each method kept", "Planted noise, by kind."),
    ("costs", "Costs", "Time, tokens, operations and memory of a run."),
    ("published", "Published beside reproduced", "The papers' numbers and this run's."),
    ("deviations", "Deviations", "Where papers, releases and this suite differ."),
]
"""(file of report/tables, heading, caption)"""


def render_page(results: Results, out: str | Path, *, config: dict | None = None, refresh: int | None = None) -> None:
    """Write the page from the tables and figures that are there.

    Args:
        results: of ``results/{experiment}``; its ``report/figures`` holds the drawn figures.
        out: the HTML file. config: the configuration, shown as it is. refresh: of a page that will be drawn again, the
            seconds after which a browser is to read it.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    facts = results.facts
    several = len(facts.models) > 1
    drawn, left_out = _figures(results.root / "report" / "figures")
    sections = [s for s in SECTIONS if several or s[0] != "pooled"]
    ablated = [
        (f"ablation-{a['name']}", f"Over {a['name']}", "Method minus full at each value.") for a in facts.ablations
    ]
    place = [name for name, *_ in sections].index("claims")
    if facts.made_up and facts.miniatures:  # no published number stands beside a miniature's
        sections = [s for s in sections if s[0] != "published"]
    tables, absent = _tables(results.root / "report" / "tables", [*sections[:place], *ablated, *sections[place:]])
    rows = [overview(results, model) for model in facts.models]
    page = environment.get_template("page.html.j2").render(
        facts=facts,
        refresh=refresh,
        scope=scope_of(results),
        together=together_of(results),
        tokens=[(m, found) for m in facts.models if (found := kept_tokens(results, m))],
        models=[(verdict_of(results, model), mine) for model, mine in zip(facts.models, rows, strict=True)],
        glances=[glance_of(results, model) for model in facts.models],
        spans={column: spans(rows, column) for column in ("time", "kept", "clean")},
        headline=HEADLINE if HEADLINE in facts.methods else None,
        truth=not results.selection.empty,
        bounded=any(row.lost for mine in rows for row in mine),
        tables=tables,
        absent=absent,
        figures=drawn,
        left_out=left_out,
        samples=[(m, s) for m in facts.models if (s := shaded_samples(results, m))],
        missing=results.missing.to_dict("records"),
        origin=origin_of(results.root, results.counts),
        config=json.dumps(config, indent=1, ensure_ascii=False) if config else None,
        listed=listed,
        share=share,
        margin=MARGIN,
        least=LEAST,
    )
    with atomic_write(out) as temporary:
        Path(temporary).write_text(page)


def _figures(folder: Path) -> tuple[list[dict], list[dict]]:
    """(drawn, left out); samples are shown as text, so their figures are files only."""
    entries = json.loads((folder / MANIFEST).read_text()) if (folder / MANIFEST).exists() else []
    drawn = [
        entry | {"svg": inline_svg((folder / f"{entry['name']}.svg").read_text(), entry["name"], entry["alt"])}
        for entry in entries
        if "why" not in entry and not entry["name"].startswith("shaded-")
    ]
    return drawn, [entry for entry in entries if "why" in entry]


def _tables(folder: Path, sections: list[tuple[str, str, str]]) -> tuple[list[dict], list[str]]:
    found, absent = [], []
    for name, heading, caption in sections:
        path = folder / f"{name}.md"
        blocks = markdown_blocks(path.read_text()) if path.exists() else []
        if any(getattr(block, "rows", None) for block in blocks):
            found.append({"name": name, "heading": heading, "caption": caption, "blocks": blocks})
        elif name not in ("heldout", "safety"):  # asked for or not
            absent.append(heading)
    return found, absent
