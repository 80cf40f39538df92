"""What an audit says: does a method's score find the noise, does it point the right way, whom does it agree with?

Shapes: R response tokens of the data set, S samples, M methods.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from sstoken.data import TokenData
from sstoken.report.selection_scores import PHASES, sample_weights, wins_within_samples

COLUMNS = ["model", "method", "seed", "phase", "kind", "auc", "low", "high", "precision", "recall", "n_tokens"]
LEVEL = 0.95
FEWEST = 20
"""Times that a token must stand in the data before its share of drops is told."""


def clustered_auc(wins_KS: np.ndarray, pairs_KS: np.ndarray) -> tuple[float, float, float]:
    """``A = Σ wins / Σ pairs`` over kinds and samples, with a 95 % interval that takes each sample as a cluster.

    The variance is that of ratios of means, ``S/(S-1) · Σ_s (Σ_k wins_ks - A_k·pairs_ks)² / (Σ pairs)²`` with
    ``A_k = Σ_s wins_ks / Σ_s pairs_ks`` (Cochran 1977, sections 5A.9 and 6.3), its t has S-1 degrees of freedom, and the
    interval is cut to [0, 1].  The mix of kinds is taken as it is: other samples, of the same mix.
    NaN where no sample has a pair; no interval where one sample alone has.

    Args:
        wins_KS, pairs_KS: a row a kind of noise, or [S] for one; weighted or not.
    """
    wins_KS, pairs_KS = np.atleast_2d(wins_KS), np.atleast_2d(pairs_KS)
    used = pairs_KS.sum(axis=0) > 0
    wins, pairs = wins_KS[:, used], pairs_KS[:, used]
    count, total = pairs.shape[1], pairs.sum()
    if not count:
        return np.nan, np.nan, np.nan
    auc = wins.sum() / total
    if count == 1:
        return auc, np.nan, np.nan
    pairs_K1 = pairs.sum(axis=1, keepdims=True)
    auc_K1 = wins.sum(axis=1, keepdims=True) / np.where(pairs_K1 > 0, pairs_K1, 1)
    deviation = np.sqrt(count / (count - 1) * ((wins - auc_K1 * pairs).sum(axis=0) ** 2).sum()) / total
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * deviation
    return auc, max(auc - half, 0.0), min(auc + half, 1.0)


def audit_rows(record: Mapping[str, np.ndarray], step_S: np.ndarray, data: TokenData) -> pd.DataFrame:
    """One method's rows of ``audit.csv``: ``phase, kind, auc, low, high, precision, recall, n_tokens``.

    phase: ``all``, or a fifth of training, from 1. kind: ``all`` noise, ``harm`` (the mean over kinds, each counting once),
    ``varying`` (all noise against those clean tokens that stand where noise can stand), or one kind. auc: pairs of a clean
    and a noise token of one sample, samples weighted by ``sample_weights``. precision: clean share of what is kept;
    recall: kept share of what is clean (kind ``all`` alone). n_tokens: noise tokens; where nothing is labelled, response
    tokens.

    Args:
        record: ``score`` [R], ``keep`` [R]. step_S: as ``SelectionTrainer`` leaves it. data: S samples.
    """
    counts = data.response_offset.diff().numpy()
    sample_R = np.repeat(np.arange(len(data)), counts)
    phase_S = np.where(step_S < 0, 0, step_S * PHASES // max(step_S.max() + 1, 1) + 1)
    phase_R = phase_S[sample_R]
    score_R, keep_R = np.nan_to_num(record["score"].astype(np.float64)), record["keep"].astype(bool)
    phases = ["all", *range(1, PHASES + 1)]
    if data.truth is None:
        seen = {phase: phase_R > 0 if phase == "all" else phase_R == phase for phase in phases}
        rows = [{"phase": p, "kind": "unlabelled", "n_tokens": int(within.sum())} for p, within in seen.items()]
        return pd.DataFrame(rows).reindex(columns=COLUMNS[3:])
    truth_R = data.truth[data.response_mask].numpy()
    clean_R = truth_R == 0
    varying_R = np.ones_like(clean_R)
    if getattr(data, "always_clean", None) is not None:
        varying_R = ~data.always_clean[data.response_mask].numpy()
    noise_KR = truth_R == np.arange(1, len(data.kinds) + 1)[:, None]

    def counted(clean_R: np.ndarray, *codes: int) -> tuple[np.ndarray, np.ndarray]:
        """(wins [K, S], pairs [K, S]) of these kinds' tokens against these clean ones, times the samples' weights."""
        found_2KS = np.zeros((2, len(codes), len(data)))
        for place, code in enumerate(codes):
            at_R = (noise_KR[code] | clean_R) & (phase_R > 0)
            found_2KS[:, place] = wins_within_samples(score_R[at_R], sample_R[at_R], clean_R[at_R], len(data))
        all_R = (noise_KR[list(codes)].any(axis=0) | clean_R) & (phase_R > 0)
        wins_KS, pairs_KS = found_2KS * sample_weights(sample_R[all_R], len(data))
        return wins_KS, pairs_KS

    every = range(len(data.kinds))
    open_R = clean_R & varying_R
    against = {"all": (~clean_R, *counted(clean_R, *every)), "varying": (~clean_R, *counted(open_R, *every))}
    against |= {kind: (noise_KR[code], *counted(open_R, code)) for code, kind in enumerate(data.kinds)}
    rows = []
    for kind, (noise_R, wins_KS, pairs_KS) in against.items():
        for phase in phases:
            within_S = phase_S > 0 if phase == "all" else phase_S == phase
            within_R = within_S[sample_R]
            auc, low, high = clustered_auc(wins_KS[:, within_S], pairs_KS[:, within_S])
            row = {"phase": phase, "kind": kind, "auc": auc, "low": low, "high": high}
            row["n_tokens"] = int((noise_R & within_R).sum())
            if kind == "all":
                row["precision"] = _mean(clean_R[keep_R & within_R])
                row["recall"] = _mean(keep_R[clean_R & within_R])
            rows.append(row)
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS[3:])
    return pd.concat([frame, _harm(frame, data.kinds)], ignore_index=True)


def _harm(frame: pd.DataFrame, kinds: tuple[str, ...]) -> pd.DataFrame:
    """The mean over kinds, each counting once, so that a common kind does not drown a rare one; intervals as if independent."""
    rows = []
    for phase, part in frame[frame["kind"].isin(kinds)].groupby("phase", sort=False):
        known = part[part["auc"].notna()]
        auc = known["auc"].mean() if len(known) else np.nan
        # of a kind of one sample no interval is known, so none of the mean
        squares = ((known["high"] - known["low"]) / 2) ** 2
        half = np.sqrt(squares.sum(skipna=False)) / len(known) if len(known) else np.nan
        ends = {"low": max(auc - half, 0.0), "high": min(auc + half, 1.0)}
        rows.append({"phase": phase, "kind": "harm", "auc": auc, **ends, "n_tokens": int(part["n_tokens"].sum())})
    return pd.DataFrame(rows).reindex(columns=COLUMNS[3:])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def agreement(records: Mapping[str, Mapping[str, np.ndarray]], sample_R: np.ndarray) -> pd.DataFrame:
    """``method, other, spearman, overlap`` of every pair: rank correlation within samples; kept by both over either."""
    ranks = {}
    for name, record in records.items():
        rank = pd.Series(record["score"].astype(np.float64)).groupby(sample_R).rank()
        ranks[name] = (rank - rank.groupby(sample_R).transform("mean")).to_numpy()
    rows = []
    for a, mine in ranks.items():
        for b, other in ranks.items():
            scale = np.sqrt(np.nansum(mine**2) * np.nansum(other**2))
            both = (records[a]["keep"] & records[b]["keep"]).sum()
            either = (records[a]["keep"] | records[b]["keep"]).sum()
            row = {"method": a, "other": b, "spearman": np.nansum(mine * other) / scale if scale else np.nan}
            rows.append(row | {"overlap": both / either if either else np.nan})
    return pd.DataFrame(rows)


def directions(found: pd.DataFrame) -> pd.DataFrame:
    """``method, step, cosine, low, high, minus_full, minus_full_low, minus_full_high, batches`` from a row a batch.

    Intervals are t's over batches; the difference from full is paired by batch.  step ``all``: a batch's mean over steps.
    """
    pooled = found.groupby(["method", "batch"], sort=False)["cosine"].mean().reset_index().assign(step="all")
    rows = []
    for (method, step), part in pd.concat([pooled, found]).groupby(["method", "step"], sort=False):
        own = part.set_index("batch")["cosine"]
        every = pooled if step == "all" else found[found["step"] == step]
        full = every[every["method"] == "full"].set_index("batch")["cosine"]
        mean, low, high = _interval(own.to_numpy())
        less, less_low, less_high = _interval((own - full.reindex(own.index)).to_numpy())
        rows.append((method, step, mean, low, high, less, less_low, less_high, len(own)))
    names = ["cosine", "low", "high", "minus_full", "minus_full_low", "minus_full_high", "batches"]
    return pd.DataFrame(rows, columns=["method", "step", *names])


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, np.nan, np.nan
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * values.std(ddof=1) / np.sqrt(count)
    return mean, mean - half, mean + half


def dropped_tokens(keep_R: np.ndarray, token_R: np.ndarray, most: int = 20) -> pd.DataFrame:
    """``token, count, dropped``: the tokens with the largest dropped share, and those with the smallest."""
    table = pd.DataFrame({"token": token_R, "dropped": ~keep_R.astype(bool)})
    table = table.groupby("token")["dropped"].agg(["size", "mean"]).reset_index()
    table.columns = ["token", "count", "dropped"]
    table = table[table["count"] >= FEWEST].sort_values(["dropped", "count"], ascending=False)
    return table if len(table) <= 2 * most else pd.concat([table.head(most), table.tail(most)])
