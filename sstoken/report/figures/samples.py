"""Samples as a figure: every response token shaded by its score, kept or dropped."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib import colormaps
from matplotlib.patches import Rectangle

from sstoken.report.figures.style import WIDTH, Drawn, LeftOut, panels
from sstoken.report.numbers import share
from sstoken.report.results import Results
from sstoken.report.samples import Line, ShadedSample, shaded_samples

TITLE = "Samples, token by token"
NOISE_LINE = "(planted noise)"
FONT_SIZE, CHARACTER = 4.6, 0.602  # points; advance of the monospaced font in em


def draw(results: Results) -> list[Drawn | LeftOut]:
    """A figure a model: its first three samples."""
    drawn = []
    for model in results.facts.models:
        samples = shaded_samples(results, model)[:3]
        if samples:
            drawn.append(_figure(model, samples))
    return drawn or [LeftOut("shaded", TITLE, "no run that selects is there yet")]


def _figure(model: str, samples: list[ShadedSample]) -> Drawn:
    columns = int(WIDTH * 72 / (CHARACTER * FONT_SIZE)) - 1
    margin = max(len(name) for s in samples for name in [NOISE_LINE, *(line.method for line in s.lines)]) + 1
    placed, row = [], 0.0
    for sample in samples:
        for text in textwrap.wrap(" ".join(sample.prompt.split()), columns):
            placed.append((0, row, text, None, None))
            row += 1
        row += 0.3
        known = [Line(NOISE_LINE, np.array([bool(kind) for kind in sample.noise]), np.ones(len(sample.noise), bool))]
        for line in [*(known if sample.noise else []), *sample.lines]:
            placed.append((0, row, line.method, None, None))
            at = margin
            for text, rank, keep in zip(sample.tokens, line.rank, line.keep, strict=True):
                shown = text.replace("\n", "⏎") or "·"
                if at + len(shown) > columns:
                    at, row = margin, row + 1.15
                placed.append((at, row, shown, rank, keep))
                at += len(shown)
            row += 1.35
        row += 0.8
    figure, (axis,) = panels(1, height=row * FONT_SIZE * 1.25 / 72)
    figure.set_layout_engine("none")
    axis.set_position([0, 0, 1, 1])
    axis.set_axis_off()
    axis.set_xlim(0, columns + 1)
    axis.set_ylim(row, 0)
    shades = colormaps["Blues"]
    style = {"family": "DejaVu Sans Mono", "fontsize": FONT_SIZE, "va": "center"}
    for at, y, text, rank, keep in placed:
        if rank is None:
            axis.text(at, y + 0.5, text, **style)
            continue
        axis.add_patch(Rectangle((at, y), len(text), 1, facecolor=shades(0.05 + 0.6 * float(rank)), edgecolor="none"))
        axis.text(at, y + 0.5, text, color="#101010" if keep else "#5c5c5c", **style)
        if not keep:
            axis.plot([at + (text[0] == " "), at + len(text)], [y + 0.52] * 2, color="#101010", lw=0.5)
    kept = {line.method: np.concatenate([s.lines[n].keep for s in samples]) for n, line in enumerate(samples[0].lines)}
    words = ", ".join(f"{method} {share(1 - keep.mean())}" for method, keep in kept.items())
    caption = (
        f"{model}: samples of the training data. Shade: rank of the token's score within the sample "
        "(darker = higher); struck through: dropped from the loss. Where noise was planted, the first line darkens it."
    )
    alt = f"Response tokens of {len(samples)} samples, a line a method. Dropped: {words}."
    return Drawn(f"shaded-{model}", f"{TITLE}: {model}", caption, alt, figure)
