"""``selection.safetensors``: what a run chose, and the tokens that it speaks of.  docs/how-to/read-what-was-kept.md.

Shapes: R response tokens of the data set, S samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

if TYPE_CHECKING:
    from sstoken.data import TokenData  # imports torch, which most of the report does without

FILE = "selection.safetensors"


@dataclass(frozen=True)
class Selection:
    """score float32 [R], higher = kept first, NaN where never scored. keep bool [R]. step int32 [S], -1 where never trained."""

    score: np.ndarray
    keep: np.ndarray
    step: np.ndarray

    def trained(self, data: TokenData) -> np.ndarray:
        """bool [R]: the response tokens of samples that were trained on; of the others ``keep`` says nothing."""
        return np.repeat(self.step >= 0, data.response_offset.diff().numpy())


def folders_of(run: Path) -> list[Path]:
    """The parts of a chain in order, the run itself last."""
    return [*sorted(run.glob("part*"), key=lambda part: int(part.name.removeprefix("part"))), run]


def read_parts(folders: Iterable[Path]) -> Selection:
    """A run's selection, its parts one after the other; steps count on from part to part."""
    parts = [load_file(folder / FILE) for folder in folders]
    steps, before = [], 0
    for part in parts:
        steps.append(np.where(part["step"] < 0, -1, part["step"] + before))
        before += int(part["step"].max(initial=-1)) + 1
    score, keep = (np.concatenate([part[name] for part in parts]) for name in ("score", "keep"))
    return Selection(score, keep, np.concatenate(steps))


def belongs(run: Path, data: TokenData) -> bool:
    """Whether the run was trained on this data: each part's file carries the hash of its tokens."""
    folders = folders_of(run)
    for number, folder in enumerate(folders):
        start, stop = (len(data) * (number + step) // len(folders) for step in (0, 1))
        with safe_open(folder / FILE, framework="np") as file:
            expected = (data.slice(start, stop) if len(folders) > 1 else data).sha256
            if (file.metadata() or {}).get("tokens_sha256") != expected:
                return False
    return True


def read_selection(run: str | Path, data: TokenData) -> Selection:
    """What a run chose of its tokens.

    Args:
        run: the run's folder, ``…/runs/{model}/{method}/seed{seed}``. data: the tokens that it was trained on.

    Raises:
        ValueError: there is no such file, or the run was trained on other tokens.
    """
    run = Path(run)
    if not (run / FILE).exists():
        raise ValueError(f"{run}: no {FILE}; give the folder of a finished run, …/runs/<model>/<method>/seed<seed>")
    if not belongs(run, data):
        raise ValueError(f"{run}: was trained on other tokens than these; give the token file that its run.json names")
    return read_parts(folders_of(run))


def selections_of(
    root: Path, model: str, methods: list[str], seed: int
) -> tuple[TokenData, dict[str, Selection]] | None:
    """What each method chose of the same tokens, and these tokens; None where no run is there.

    Methods that keep every token are left out, and those that were trained on other data than most.
    """
    from sstoken.data import TokenData

    runs = {method: root / "runs" / model / method / f"seed{seed}" for method in methods}
    runs = {m: run for m, run in runs.items() if (run / "run.json").exists() and (run / FILE).exists()}
    best: tuple[TokenData, dict[str, Selection]] | None = None
    for path in sorted((root / "tokens" / model).rglob("*.safetensors")) if runs else []:
        data = TokenData.load(path)
        found = {method: read_parts(folders_of(run)) for method, run in runs.items() if belongs(run, data)}
        found = {method: chosen for method, chosen in found.items() if not chosen.keep[chosen.trained(data)].all()}
        if found and (best is None or len(found) > len(best[1])):
            best = data, found
    return best
