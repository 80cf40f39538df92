"""The papers' figures from a run's tidy tables: PDF, SVG and PNG at column width, readable in grey, the same bytes each time.

``figures.json`` beside them holds titles, captions and descriptions, and names what was left out and why.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

from sstoken.records.files import atomic_write
from sstoken.report.figures import ablations, forest, noise, safety, samples, tradeoff, trajectory, when
from sstoken.report.figures.style import Drawn, LeftOut, save, styled
from sstoken.report.results import Results

MANIFEST = "figures.json"
KINDS = (tradeoff.draw, safety.draw, forest.draw, noise.draw, trajectory.draw, ablations.draw, when.draw, samples.draw)


def draw_figures(results: Results, folder: str | Path, *, processes: int = 1) -> list[Drawn | LeftOut]:
    """Draw all that the run has the numbers for.

    Args:
        results: of ``results/{experiment}``. folder: where the files and ``figures.json`` go.
        processes: that share the work, on Linux; the files are the same.

    Returns:
        Each figure (with more than one process, its words alone), or why it is not there, in the order of the page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # elsewhere a forked process may not draw, and a new one starts slowly
    if processes > 1 and sys.platform == "linux":
        with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
            parts = list(pool.map(_words_alone, KINDS, repeat(results), repeat(folder)))
    else:
        parts = [_draw(kind, results, folder) for kind in KINDS]
    all_drawn = list(chain.from_iterable(parts))
    entries = [{k: v for k, v in vars(drawn).items() if k != "figure"} for drawn in all_drawn]
    with atomic_write(folder / MANIFEST) as temporary:
        Path(temporary).write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    return all_drawn


def _draw(kind, results: Results, folder: Path) -> list[Drawn | LeftOut]:
    all_drawn = []
    with styled():
        for drawn in kind(results):
            all_drawn.append(drawn)
            if isinstance(drawn, Drawn):
                save(drawn, folder)
    return all_drawn


def _words_alone(kind, results: Results, folder: Path) -> list[Drawn | LeftOut]:
    """For another process: the drawing itself is in its files."""
    all_drawn = _draw(kind, results, folder)
    return [replace(drawn, figure=None) if isinstance(drawn, Drawn) else drawn for drawn in all_drawn]


__all__ = ["MANIFEST", "draw_figures"]
