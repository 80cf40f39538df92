"""Selection scored directly: does a method's score tell planted noise from clean tokens?

Shapes: R response tokens of the data set, S samples.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from sstoken.data import TokenData
from sstoken.records.files import atomic_write
from sstoken.report.selection_files import Selection, read_parts

COLUMNS = [
    "model", "method", "seed", "phase", "kind", "tokens", "auc", "auc_pooled", "precision", "recall", "kept",
    "auc_open", "auc_kinds", "teaching_tokens", "teaching_kept",
]  # fmt: skip
PHASES = 5


def wins_within_samples(
    score_R: np.ndarray, sample_R: np.ndarray, clean_R: np.ndarray, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mann-Whitney's U of each sample: (wins [S], pairs [S]), float64.

    A pair is a clean and a noise token of one sample; it is won where the clean token's score is higher, half won at a
    tie. ``wins / pairs`` is the AUC of a score within the sample; samples are pooled with ``sample_weights``.

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


def sample_weights(sample_R: np.ndarray, samples: int) -> np.ndarray:
    """``w_s = 1 / (m_s + n_s + 1)`` [S] for m_s clean and n_s noise tokens, all of them given (van Elteren 1960).

    The AUC of several samples is ``Σ w_s·wins_s / Σ w_s·pairs_s``.  At equal shares of noise a sample counts by its tokens; by
    its pairs, which grow with the square of its length, a few long samples would outvote all others.
    """
    return 1 / (np.bincount(sample_R, minlength=samples) + 1)


def selection_scores(record: Selection, data: TokenData) -> pd.DataFrame:
    """One run's rows: the columns of ``COLUMNS`` from ``phase`` on.

    phase: ``all``, or a fifth of training, from 1. kind: ``all`` noise, or one kind of it. tokens: noise tokens of that
    kind. auc: the share of (clean token, noise token) pairs of one sample in which the clean one scores higher (1: the
    score finds the noise, 0.5: it knows nothing of it), samples weighted by ``sample_weights``; auc_pooled: the share over
    pairs of any two samples, which is what a ranking over the whole data set sees. kept: share of the kind's tokens that
    were trained on; precision: share of the kept tokens that are clean; recall: share of the clean tokens that were kept
    (kind ``all`` alone).

    auc_open: auc over clean tokens that could have been noise: those of ``data.always_clean`` (fixed labels, end of turn) are
    left out, since a score tells them apart by their place. auc_kinds (kind ``all`` alone): the unweighted mean of the
    kinds' auc_open, so that a frequent harmless kind does not drown a rare harmful one; of their auc where always_clean is
    not known. teaching_tokens, teaching_kept: how many clean tokens teach (``data.teaches``: what the prompt does not give
    away), and the share of them that was trained on; in a kind's row, those of the samples that have such noise. NaN and 0
    where the data does not say.

    Args:
        record: what the run chose. data: its S samples, with truth.
    """
    counts = data.response_offset.diff().numpy()
    sample_R = np.repeat(np.arange(len(data)), counts)
    truth_R = data.truth[data.response_mask].numpy()
    step_S = record.step
    last = step_S.max() + 1
    phase_S = np.where(step_S < 0, 0, step_S * PHASES // max(last, 1) + 1)
    score_R, keep_R, clean_R = record.score.astype(np.float64), record.keep.astype(bool), truth_R == 0
    open_R, teaches_R = _of_response(data, "always_clean"), _of_response(data, "teaches")
    open_R = None if open_R is None else ~(open_R & clean_R)
    rows = []
    for code, kind in enumerate(["all", *data.kinds]):
        noise_R = ~clean_R if code == 0 else truth_R == code
        chosen_R = (clean_R | noise_R) & (phase_S[sample_R] > 0)
        chosen = (score_R[chosen_R], sample_R[chosen_R], clean_R[chosen_R])
        won = _weighted(*chosen, len(data))
        if open_R is not None:
            opened = (score_R[chosen_R & open_R], sample_R[chosen_R & open_R], clean_R[chosen_R & open_R])
            open_won = _weighted(*opened, len(data))
        with_kind_S = np.bincount(sample_R, weights=noise_R, minlength=len(data)) > 0
        for phase in ("all", *range(1, PHASES + 1)):
            within_S = phase_S > 0 if phase == "all" else phase_S == phase
            within_R = within_S[sample_R]
            noise = noise_R & within_R
            row = {"phase": phase, "kind": kind, "tokens": int(noise.sum())}
            row["auc"] = _ratio(*won, within_S)
            row["auc_pooled"] = _auc(score_R[(clean_R | noise_R) & within_R], clean_R[(clean_R | noise_R) & within_R])
            row["precision"] = _mean(clean_R[keep_R & within_R]) if code == 0 else np.nan
            row["recall"] = _mean(keep_R[clean_R & within_R]) if code == 0 else np.nan
            row["kept"] = _mean(keep_R[noise])
            row["auc_open"] = _ratio(*open_won, within_S) if open_R is not None else np.nan
            teaching = teaches_R & clean_R & within_R if teaches_R is not None else np.zeros_like(clean_R)
            teaching = teaching if code == 0 else teaching & with_kind_S[sample_R]
            row["teaching_tokens"], row["teaching_kept"] = int(teaching.sum()), _mean(keep_R[teaching])
            rows.append(row)
    frame = pd.DataFrame(rows)
    column = "auc" if open_R is None else "auc_open"
    kinds = (
        frame[frame["kind"] != "all"].groupby("phase", sort=False)[column].mean()
    )  # kinds without a pair do not count
    frame["auc_kinds"] = frame["phase"].map(kinds).where(frame["kind"] == "all")
    return frame


def _of_response(data: TokenData, name: str) -> np.ndarray | None:
    """A label of tokens, bool [R]; None where the data set does not have it."""
    labels_N = getattr(data, name)
    return None if labels_N is None else labels_N[data.response_mask].numpy().astype(bool)


def _weighted(
    score_R: np.ndarray, sample_R: np.ndarray, clean_R: np.ndarray, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """(wins [S], pairs [S]), both times the samples' weights."""
    weight_S = sample_weights(sample_R, samples)
    wins_S, pairs_S = wins_within_samples(score_R, sample_R, clean_R, samples)
    return wins_S * weight_S, pairs_S * weight_S


def _ratio(wins_S: np.ndarray, pairs_S: np.ndarray, within_S: np.ndarray) -> float:
    pairs = pairs_S[within_S].sum()
    return float(wins_S[within_S].sum() / pairs) if pairs else np.nan


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _auc(score: np.ndarray, clean: np.ndarray) -> float:
    positive = int(clean.sum())
    pairs = positive * (len(clean) - positive)
    return (rankdata(score)[clean].sum() - positive * (positive + 1) / 2) / pairs if pairs else np.nan


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
        scores = selection_scores(read_parts(map(Path, run["folders"])), data)
        frames.append(scores.assign(**{key: run[key] for key in ("model", "method", "seed")}))
    with atomic_write(out) as temporary:
        (pd.concat(frames) if frames else pd.DataFrame(columns=COLUMNS))[COLUMNS].to_csv(temporary, index=False)
