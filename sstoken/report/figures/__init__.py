"""The papers' figures from a run's tidy tables: PDF, SVG and PNG at column width, readable in grey, the same bytes each time.

``figures.json`` beside them holds titles, captions and descriptions, and names what was left out and why.
"""

from __future__ import annotations

import json
from pathlib import Path

from sstoken.files import atomic_write
from sstoken.report.figures import ablations, forest, noise, samples, tradeoff, trajectory
from sstoken.report.figures.style import Drawn, LeftOut, save, styled
from sstoken.report.results import Results

MANIFEST = "figures.json"


def draw_figures(results: Results, folder: str | Path) -> list[Drawn | LeftOut]:
    """Draw all that the run has the numbers for.

    Args:
        results: of ``results/{experiment}``. folder: where the files and ``figures.json`` go.

    Returns:
        Each figure, or why it is not there, in the order of the page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    entries, all_drawn = [], []
    with styled():
        for draw in (tradeoff.draw, forest.draw, noise.draw, trajectory.draw, ablations.draw, samples.draw):
            for drawn in draw(results):
                all_drawn.append(drawn)
                if isinstance(drawn, Drawn):
                    save(drawn, folder)
                entries.append({k: v for k, v in vars(drawn).items() if k != "figure"})
    with atomic_write(folder / MANIFEST) as temporary:
        Path(temporary).write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    return all_drawn


__all__ = ["MANIFEST", "draw_figures"]
