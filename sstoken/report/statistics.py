"""Intervals and tests for contrasts of methods: questions and seeds are random, benchmarks and methods are fixed.

A contrast is Σ_m w_m y_m; y_msq, the score of method m with seed s on question q, is an effect of the method plus random
effects of question, seed, and both.  ``docs/statistics.md`` says how well the intervals cover.

Shapes: K contrasts, M methods, S seeds, Q questions, B benchmarks, C cells (a benchmark, or a weighted mean of some).
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import special, stats
from statsmodels.stats import contingency_tables, multitest

from sstoken.report.question_scores import ModelRuns

LEVEL = 0.95
POWER = 0.8
MARGIN = 1.0
"""Percent points.  Two methods are level if their difference is shown to lie within ± this; stated before any result."""


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

    def equivalence_p(self, margin: float = MARGIN) -> np.ndarray:
        """Two one-sided t tests of |value| >= margin, the larger p of both (Schuirmann 1987)."""
        with np.errstate(invalid="ignore"):
            above = stats.t.sf((self.value + margin) / self.error, self.df)
            below = stats.t.cdf((self.value - margin) / self.error, self.df)
        return np.nan_to_num(np.maximum(above, below), nan=1.0)

    def detectable(self) -> np.ndarray:
        """The smallest true effect that the t test at 1 - LEVEL would find with probability POWER."""
        critical = stats.t.ppf((1 + LEVEL) / 2, self.df)
        return special.nctdtrinc(self.df, 1 - POWER, critical) * self.error


def estimate(runs: ModelRuns, weights_KM: np.ndarray, cells_CB: np.ndarray) -> Estimates:
    """Contrasts of methods in each cell: ``var = V_questions + max(V_seeds - V_both, 0)``.

    V_questions: cluster-robust variance of the mean over questions of the seed-averaged contrast (CR1).  A cluster's
    questions may stand in several benchmarks; within a cell they count as one draw.
    V_seeds: variance over seeds of the contrast's mean over questions, divided by S; see ``seed_variance``.
    V_both: the share of the interaction, which the other two both contain.
    df: Satterthwaite's.  With one seed only V_questions is left: the value holds for these runs, not for new seeds.

    Args:
        weights_KM: a row a contrast. cells_CB: a row a cell, weights of the benchmarks (summing to 1).
    """
    sums = [_cluster_sums(weights_KM, *part) for part in zip(runs.scores, runs.clusters, strict=True)]
    clusters = [np.unique(part) for part in runs.clusters]
    mean_BMS = np.array([scores.mean(axis=2) for scores in runs.scores])
    mean_CMS = np.einsum("cb,bms->cms", cells_CB, mean_BMS)
    value_KC = weights_KM @ mean_CMS.mean(axis=2).T

    seeds = mean_CMS.shape[2]
    over_seeds = [part.mean(axis=1, keepdims=True) for part in sums]
    question, question_df = _sum_of_squares(cells_CB, over_seeds, clusters)
    rest = [part - mean for part, mean in zip(sums, over_seeds, strict=True)]
    both, both_df = _sum_of_squares(cells_CB, rest, clusters)
    both, both_df = both / (seeds * max(seeds - 1, 1)), both_df * max(seeds - 1, 1)
    seed, seed_df = seed_variance(mean_CMS, runs.seeded, weights_KM)
    seed /= seeds
    extra = np.maximum(seed - both, 0)
    variance = question + extra
    spread = _over(question**2, question_df) + np.where(extra > 0, _over(seed**2, seed_df) + _over(both**2, both_df), 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(variance > 0, variance**2 / spread, np.nan)
    return Estimates(value_KC, variance, df)


def _cluster_sums(weights_KM: np.ndarray, scores_MSQ: np.ndarray, clusters_Q: np.ndarray) -> np.ndarray:
    """[K, S, G]: what each cluster adds to the mean of one benchmark, beyond its share of that mean.

    Scaled so that the sum of their squares is the CR1 variance of the mean.  NaN where there is a single cluster.
    """
    contrast = np.einsum("km,msq->ksq", weights_KM, scores_MSQ, optimize=True)
    starts = np.flatnonzero(np.diff(clusters_Q, prepend=-1))
    if len(starts) < 2:
        return np.full((*contrast.shape[:2], len(starts)), np.nan)
    centred = contrast - contrast.mean(axis=2, keepdims=True)
    scale = np.sqrt(len(starts) / (len(starts) - 1)) / contrast.shape[2]
    return scale * np.add.reduceat(centred, starts, axis=2)


def _sum_of_squares(cells_CB: np.ndarray, sums: list[np.ndarray], clusters: list[np.ndarray]):
    """Variance [K, C] of each cell, and Satterthwaite's degrees of freedom.

    Parts that are independent of each other: of each benchmark the clusters that it has to itself, and together all
    clusters that stand in several benchmarks of the cell.  There a cluster's sums are added before they are squared.

    Args:
        sums: of each benchmark [K, S, G], see ``_cluster_sums``. clusters: of each benchmark [G], ascending.
    """
    names, count = np.unique(np.concatenate(clusters), return_counts=True)
    names_H = names[count > 1]
    place = [np.where(np.isin(part, names_H), np.searchsorted(names_H, part), -1) for part in clusters]
    present_BH = np.array([np.isin(names_H, part) for part in clusters])
    shape = (len(sums[0]), len(cells_CB))
    total, spread = np.zeros(shape), np.zeros(shape)
    for c, cell in enumerate(cells_CB):
        used = np.flatnonzero(cell)
        held_H = present_BH[used].sum(axis=0)
        shared_H1 = np.append(held_H > 1, False)  # the last place stands for clusters of one benchmark
        together = np.zeros((*sums[0].shape[:2], len(names_H)))
        lost_H = np.zeros(len(names_H))  # degrees of freedom that centring within each benchmark costs
        parts = []
        for b in used:
            shared_G, size = shared_H1[place[b]], len(clusters[b])
            own = (cell[b] * sums[b][..., ~shared_G]) ** 2
            parts.append((own.sum(axis=(1, 2)), (~shared_G).sum() * (1 - 1 / max(size, 2))))
            together[..., place[b][shared_G]] += cell[b] * sums[b][..., shared_G]
            lost_H[place[b][shared_G]] += 1 / size
        free_H = (1 - np.divide(lost_H, held_H, out=np.zeros_like(lost_H), where=held_H > 0))[held_H > 1]
        parts.append(((together**2).sum(axis=(1, 2)), free_H.sum()))
        for variance, df in parts:
            total[:, c] += variance
            spread[:, c] += _over(variance**2, np.full_like(variance, df))
    with np.errstate(invalid="ignore", divide="ignore"):
        return total, total**2 / spread


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
    """p values adjusted over one family of comparisons (Holm 1979)."""
    if not len(p):
        return np.asarray(p, dtype=float)
    gc.freeze()  # multipletests collects garbage at each call: tables have a hundred families, a large process takes a second
    try:
        return multitest.multipletests(p, method="holm")[1]
    finally:
        gc.unfreeze()


def mcnemar(right_MN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact McNemar test of every pair of methods on N questions, answered right (1) or wrong (0).

    Returns:
        only_MM: how many questions only the first (row) method got right; p_MM: two-sided.
    """
    right = right_MN.astype(np.float64)
    only_MM = (right @ (1 - right).T).round().astype(np.int64)
    p_MM = np.ones(only_MM.shape)
    for i, j in combinations(range(len(right)), 2):
        table = [[0, only_MM[i, j]], [only_MM[j, i], 0]]  # the questions that both got right or wrong do not matter
        p_MM[i, j] = p_MM[j, i] = contingency_tables.mcnemar(table, exact=True).pvalue
    return only_MM, p_MM


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
