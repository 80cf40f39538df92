"""Intervals and tests for contrasts of methods: questions and seeds are random, benchmarks and methods are fixed.

A contrast is Σ_m w_m y_m; y_msq, the score of method m with seed s on question q, is an effect of the method plus random
effects of question, seed, and both.  ``docs/statistics.md`` says how well the intervals cover.

Shapes: K contrasts, M methods, S seeds, Q questions, B benchmarks, C cells (a benchmark, or a weighted mean of some).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from sstoken.report.question_scores import ModelRuns

LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Estimates:
    """value, variance (of the value), df (Satterthwaite): each [K, C], in the scores' units.

    variance is 0 where no question and no seed made a difference, NaN where a benchmark has a single question or passage:
    then there is nothing to judge the value by, and intervals and detectable effects are NaN and p is 1.
    """

    value: np.ndarray
    variance: np.ndarray
    df: np.ndarray

    def __getitem__(self, contrasts) -> Estimates:
        return Estimates(self.value[contrasts], self.variance[contrasts], self.df[contrasts])

    @property
    def error(self) -> np.ndarray:
        return np.sqrt(np.where(self.variance > 0, self.variance, np.nan))

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        half = stats.t.ppf((1 + LEVEL) / 2, self.df) * self.error
        return self.value - half, self.value + half

    def p_value(self) -> np.ndarray:
        """Two-sided t test of value = 0."""
        return np.nan_to_num(2 * stats.t.sf(np.abs(self.value) / self.error, self.df), nan=1.0)

    def detectable(self) -> np.ndarray:
        """The smallest true effect that the t test at 1 - LEVEL would find with probability POWER."""
        critical = stats.t.ppf((1 + LEVEL) / 2, self.df)
        return special.nctdtrinc(self.df, 1 - POWER, critical) * self.error


def estimate(runs: ModelRuns, weights_KM: np.ndarray, cells_CB: np.ndarray) -> Estimates:
    """Contrasts of methods in each cell: ``var = V_questions + max(V_seeds - V_both, 0)``.

    V_questions: cluster-robust variance of the mean over questions of the seed-averaged contrast (CR1, within benchmarks).
    V_seeds: variance over seeds of the contrast's mean over questions, divided by S; see ``seed_variance``.
    V_both: the share of the interaction, which the other two both contain.
    df: Satterthwaite's.  With one seed only V_questions is left: the value holds for these runs, not for new seeds.

    Args:
        weights_KM: a row a contrast. cells_CB: a row a cell, weights of the benchmarks (summing to 1).
    """
    moments = [
        _questions(weights_KM, scores, clusters) for scores, clusters in zip(runs.scores, runs.clusters, strict=True)
    ]
    question_BK, question_df_B, both_BK, both_df_B = (np.array(part) for part in zip(*moments, strict=True))
    mean_BMS = np.array([scores.mean(axis=2) for scores in runs.scores])
    mean_CMS = np.einsum("cb,bms->cms", cells_CB, mean_BMS)
    value_KC = weights_KM @ mean_CMS.mean(axis=2).T

    question, question_df = _weighted_sum(cells_CB, question_BK, question_df_B)
    both, both_df = _weighted_sum(cells_CB, both_BK, both_df_B)
    seed, seed_df = seed_variance(mean_CMS, runs.seeded, weights_KM)
    seed /= mean_CMS.shape[2]
    extra = np.maximum(seed - both, 0)
    variance = question + extra
    spread = _over(question**2, question_df) + np.where(extra > 0, _over(seed**2, seed_df) + _over(both**2, both_df), 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(variance > 0, variance**2 / spread, np.nan)
    return Estimates(value_KC, variance, df)


def _questions(weights_KM: np.ndarray, scores_MSQ: np.ndarray, clusters_Q: np.ndarray):
    """V_questions [K], its degrees of freedom, V_both [K], its degrees of freedom, of one benchmark."""
    contrast = np.einsum("km,msq->ksq", weights_KM, scores_MSQ, optimize=True)
    seeds, questions = contrast.shape[1:]
    starts = np.flatnonzero(np.diff(clusters_Q, prepend=-1))
    count = len(starts)
    if count < 2:
        return np.full(len(contrast), np.nan), 1, np.zeros(len(contrast)), 1
    over_seeds = contrast.mean(axis=1, keepdims=True)
    centred = over_seeds - over_seeds.mean(axis=2, keepdims=True)
    rest = contrast - contrast.mean(axis=2, keepdims=True) - centred
    scale = count / (count - 1) / questions**2
    question = scale * (np.add.reduceat(centred[:, 0], starts, axis=1) ** 2).sum(axis=1)
    both = scale * (np.add.reduceat(rest, starts, axis=2) ** 2).sum(axis=(1, 2)) / (seeds * max(seeds - 1, 1))
    return question, count - 1, both, (count - 1) * max(seeds - 1, 1)


def _weighted_sum(cells_CB, variance_BK, df_B):
    """Variance [K, C] of a weighted sum of independent parts, and Satterthwaite's degrees of freedom."""
    # einsum, not matmul: 0 · NaN would carry one benchmark's NaN into every cell
    used = cells_CB != 0
    parts_CBK = np.where(used[:, :, None], cells_CB[:, :, None] ** 2 * variance_BK, 0)
    total = parts_CBK.sum(axis=1).T
    with np.errstate(invalid="ignore", divide="ignore"):
        df = total**2 / (parts_CBK**2 / df_B[:, None]).sum(axis=1).T
    return total, df


def _over(square, df):
    """square / df, and 0 where there is no variance (and so no df)."""
    return np.divide(square, df, out=np.zeros_like(square), where=square != 0)


def seed_variance(mean_CMS: np.ndarray, seeded_M: np.ndarray, weights_KM: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance over seeds of each contrast [K, C] and its degrees of freedom: its own, moderated by that of all methods.

    Three seeds tell next to nothing about one method's variance.  So ``(d0·pooled + (S-1)·own) / (d0 + S-1)`` with
    ``d0 + S-1`` degrees of freedom (at most those of the pool), where d0 says how alike the methods' variances are (infinite:
    no more unlike than chance makes them).  Smyth 2004, "Linear models and empirical Bayes methods", section 4.  Runs of one
    seed number share their initial weights, so seeds are a block: the pool is the residual of methods x seeds.
    """
    weights = weights_KM[:, seeded_M]
    values_CMS = mean_CMS[:, seeded_M]
    cells, methods, seeds = values_CMS.shape
    free = seeds - 1
    if methods == 0 or free == 0:
        return np.zeros((len(weights), cells)), np.ones((len(weights), cells))
    own_CM = values_CMS.var(axis=2, ddof=1)
    total_C = own_CM.mean(axis=1)
    if methods > 1:
        centred = values_CMS - values_CMS.mean(axis=2, keepdims=True)
        rest = centred - centred.mean(axis=1, keepdims=True)
        residual_C = (rest**2).sum(axis=(1, 2)) / ((methods - 1) * free)
    else:
        residual_C = total_C
    shared_C = np.maximum(total_C - residual_C, 0)
    balanced_K = np.abs(weights.sum(axis=1)) < 1e-9  # the block of the seed cancels
    pooled = np.outer((weights**2).sum(axis=1), residual_C) + np.outer(weights.sum(axis=1) ** 2, shared_C)
    pooled_df = np.where(balanced_K, max(methods - 1, 1), methods)[:, None] * free
    own = np.einsum("km,cms->kcs", weights, values_CMS).var(axis=2, ddof=1)
    prior_df_C = prior_df(own_CM, free)
    share = 1 / (1 + free / prior_df_C)
    return share * pooled + (1 - share) * own, np.minimum(prior_df_C + free, pooled_df)


def prior_df(variance_CM: np.ndarray, df: int) -> np.ndarray:
    """d0 [C] of Smyth 2004: solves ``trigamma(d0 / 2) = var(log s²) - trigamma(df / 2)``; infinite where the right is not > 0.

    Variances far below the median (under equal variances, 5 in 100) are raised to where such are still likely: scores lie on a
    lattice, so three seeds often agree by chance, and the logarithm would read that as a method without any seed variance.
    """
    if variance_CM.shape[1] < 3:
        return np.full(len(variance_CM), np.inf)
    least = np.where(variance_CM > 0, variance_CM, np.inf).min(axis=1)
    low, middle = 2 * special.gammaincinv(df / 2, [0.05, 0.5])
    floor = np.maximum(np.median(variance_CM, axis=1) * low / middle, np.where(np.isinf(least), 1, least))
    excess = np.log(np.maximum(variance_CM, floor[:, None])).var(axis=1, ddof=1) - special.polygamma(1, df / 2)
    alike = excess < 1e-4
    target = np.where(alike, 1, excess)
    half = 0.5 + 1 / target
    for _ in range(12):  # Newton's method on 1 / trigamma, monotone from here: Smyth 2004, appendix
        trigamma = special.polygamma(1, half)
        half += trigamma * (1 - trigamma / target) / special.polygamma(2, half)
    return np.where(alike, np.inf, 2 * half)


def holm(p: np.ndarray) -> np.ndarray:
    """p values adjusted over one family of comparisons (Holm 1979).

    statsmodels' ``multipletests`` gives the same, but collects all garbage at each call (0.1 s), and tables have many families.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.arange(len(p), 0, -1) * np.asarray(p)[order]), 1)
    return adjusted


def mcnemar(right_MN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact McNemar test of every pair of methods on N questions, answered right (1) or wrong (0).

    Returns:
        only_MM: how many questions only the first (row) method got right; p_MM: two-sided.
    """
    right = right_MN.astype(np.float64)
    only_MM = (right @ (1 - right).T).round().astype(np.int64)
    fewer, both = np.minimum(only_MM, only_MM.T), only_MM + only_MM.T
    return only_MM, np.minimum(2 * stats.binom.cdf(fewer, both, 0.5), 1.0)


def recovered(runs: ModelRuns, cell_B: np.ndarray, baseline: str, ceiling: str) -> tuple[np.ndarray, ...]:
    """Share [M] of the way from baseline to ceiling that each method goes, and its interval (Fieller 1954).

    Returns:
        share, low, high; NaN where the ceiling is not above the baseline at this level: no share of that can be told.
    """
    unit, count = np.eye(len(runs.methods)), len(runs.methods)
    base, top = runs.methods.index(baseline), runs.methods.index(ceiling)
    cells = cell_B[None]
    both = estimate(runs, np.vstack([unit - unit[base], unit - unit[top]]), cells)
    part, rest, whole = both[:count], both[count:], both[[top]]
    told = (whole.value > 0) & (whole.interval()[0] > 0)
    share = np.divide(part.value, whole.value, out=np.zeros_like(part.value), where=told)
    df = estimate(runs, unit - unit[base] - share * (unit[top] - unit[base]), cells).df
    t2 = stats.t.ppf((1 + LEVEL) / 2, np.where(np.isnan(df), whole.df, df)) ** 2
    covariance = (part.variance + whole.variance - rest.variance) / 2
    a = whole.value**2 - t2 * whole.variance
    b = part.value * whole.value - t2 * covariance
    c = part.value**2 - t2 * part.variance
    told = told & (a > 0)
    a = np.where(told, a, 1)
    root = np.sqrt(np.maximum(b**2 - a * c, 0))
    return tuple(np.where(told, bound, np.nan)[:, 0] for bound in (share, (b - root) / a, (b + root) / a))
