"""Selection scored directly: does a method's score tell planted noise from clean tokens?

Shapes: R response tokens of the data set, S samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file
from scipy.stats import rankdata

from sstoken.data import TokenData
from sstoken.records.files import atomic_write

COLUMNS = ["model", "method", "seed", "phase", "kind", "tokens", "auc", "auc_pooled", "precision", "recall", "kept"]
PHASES = 5


def wins_within_samples(
    score_R: np.ndarray, sample_R: np.ndarray, clean_R: np.ndarray, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mann-Whitney's U of each sample: (wins [S], pairs [S]), float64.

    A pair is a clean and a noise token of one sample; it is won where the clean token's score is higher, half won at a
    tie. ``sum(wins) / sum(pairs)`` is the AUC of a score that is ranked within the sample.

    Args:
        score_R: scores. sample_R: each token's sample, in [0, samples). clean_R: bool.
    """
    order = np.lexsort((score_R, sample_R))
    score, sample, clean = score_R[order], sample_R[order], clean_R[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (score[1:] != score[:-1]) | (sample[1:] != sample[:-1])
    group = new.cumsum() - 1
    first = np.flatnonzero(new)
    size = np.diff(np.append(first, len(order)))
    tokens = np.bincount(sample, minlength=samples)
    start = tokens.cumsum() - tokens
    rank = first[group] + (size[group] + 1) / 2 - start[sample]  # from 1, within the sample, ties shared
    count = np.bincount(sample, weights=clean, minlength=samples)
    wins = np.bincount(sample, weights=rank * clean, minlength=samples) - count * (count + 1) / 2
    return wins, count * (tokens - count)


def selection_scores(record: dict[str, np.ndarray], data: TokenData) -> pd.DataFrame:
    """One run's rows: ``phase, kind, tokens, auc, auc_pooled, precision, recall, kept``.

    phase: ``all``, or a fifth of training, from 1. kind: ``all`` noise, or one kind of it. tokens: noise tokens of that
    kind. auc: the share of (clean token, noise token) pairs of one sample in which the clean one scores higher (1: the
    score finds the noise, 0.5: it knows nothing of it); auc_pooled: the same over pairs of any two samples, which is
    what a ranking over the whole data set sees. kept: share of the kind's tokens that were trained on; precision: share
    of the kept tokens that are clean; recall: share of the clean tokens that were kept (kind ``all`` alone).

    Args:
        record: ``score`` float32 [R], ``keep`` bool [R], ``step`` int32 [S] (-1: never trained on), as
            ``SelectionTrainer`` leaves them. data: its S samples, with truth.
    """
    counts = data.response_offset.diff().numpy()
    sample_R = np.repeat(np.arange(len(data)), counts)
    truth_R = data.truth[data.response_mask].numpy()
    step_S = record["step"]
    last = step_S.max() + 1
    phase_S = np.where(step_S < 0, 0, step_S * PHASES // max(last, 1) + 1)
    score_R, keep_R, clean_R = record["score"].astype(np.float64), record["keep"].astype(bool), truth_R == 0
    rows = []
    for code, kind in enumerate(["all", *data.kinds]):
        noise_R = ~clean_R if code == 0 else truth_R == code
        chosen_R = (clean_R | noise_R) & (phase_S[sample_R] > 0)
        chosen = (score_R[chosen_R], sample_R[chosen_R], clean_R[chosen_R])
        wins_S, pairs_S = wins_within_samples(*chosen, len(data))
        for phase in ("all", *range(1, PHASES + 1)):
            within_S = phase_S > 0 if phase == "all" else phase_S == phase
            within_R = within_S[sample_R]
            noise, pairs = noise_R & within_R, pairs_S[within_S].sum()
            row = {"phase": phase, "kind": kind, "tokens": int(noise.sum())}
            row["auc"] = wins_S[within_S].sum() / pairs if pairs else np.nan
            row["auc_pooled"] = _auc(score_R[(clean_R | noise_R) & within_R], clean_R[(clean_R | noise_R) & within_R])
            row["precision"] = _mean(clean_R[keep_R & within_R]) if code == 0 else np.nan
            row["recall"] = _mean(keep_R[clean_R & within_R]) if code == 0 else np.nan
            row["kept"] = _mean(keep_R[noise])
            rows.append(row)
    return pd.DataFrame(rows)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _auc(score: np.ndarray, clean: np.ndarray) -> float:
    positive = int(clean.sum())
    pairs = positive * (len(clean) - positive)
    return (rankdata(score)[clean].sum() - positive * (positive + 1) / 2) / pairs if pairs else np.nan


def run_record(folders: Iterable[Path]) -> dict[str, np.ndarray]:
    """A run's selection, its parts one after the other: ``score`` [R], ``keep`` [R], ``step`` [S]."""
    parts = [load_file(folder / "selection.safetensors") for folder in folders]
    steps, before = [], 0
    for part in parts:
        steps.append(np.where(part["step"] < 0, -1, part["step"] + before))
        before += int(part["step"].max()) + 1
    return {name: np.concatenate([part[name] for part in parts]) for name in ("score", "keep")} | {
        "step": np.concatenate(steps)
    }


def write_selection(runs: list[dict], out: str | Path) -> None:
    """``selection.csv`` of all runs.

    Args:
        runs: ``{model, method, seed, tokens, folders}`` each: the token file of its data, and the folders of its parts.
    """
    frames, loaded = [], {}
    for run in runs:
        data = loaded.setdefault(run["tokens"], None) or TokenData.load(run["tokens"])
        loaded[run["tokens"]] = data
        if data.truth is None:
            continue  # a data set without labels, such as one that has no noise
        scores = selection_scores(run_record(map(Path, run["folders"])), data)
        frames.append(scores.assign(**{key: run[key] for key in ("model", "method", "seed")}))
    with atomic_write(out) as temporary:
        pd.concat(frames)[COLUMNS].to_csv(temporary, index=False)
