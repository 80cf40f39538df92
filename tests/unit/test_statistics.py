"""Agreement with scipy and statsmodels where they cover a case, and what no library covers against naive oracles."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from statsmodels.formula.api import ols
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from sstoken.report.question_scores import ModelRuns, pooled
from sstoken.report.statistics import Estimates, estimate, holm, mcnemar, prior_df, recovered, seed_variance
from sstoken.report.tables.estimates import with_average
from tests.simulation import World, simulate, with_effects

DIFFERENCE = np.array([[1.0, -1.0]])
EXACT = {"rel": 1e-10, "abs": 1e-10}


def runs_of(*scores, clusters=None, seeded=None) -> ModelRuns:
    """scores: of each benchmark [M, S, Q]."""
    methods = scores[0].shape[0]
    first = np.cumsum([0, *(score.shape[2] for score in scores)])
    clusters = clusters or [start + np.arange(score.shape[2]) for start, score in zip(first, scores, strict=False)]
    seeded = np.ones(methods, dtype=bool) if seeded is None else np.array(seeded)
    names = tuple(f"method{m}" for m in range(methods))
    return ModelRuns("model", names, seeded, tuple(f"task{b}" for b in range(len(scores))), scores, tuple(clusters))


@pytest.fixture
def generator():
    return np.random.default_rng(3)


def test_one_run_each_is_the_paired_t_test(generator):
    scores = generator.normal(50, 20, (2, 1, 40))
    found = estimate(runs_of(scores), DIFFERENCE, np.eye(1))
    theirs = stats.ttest_rel(scores[0, 0], scores[1, 0])
    interval = theirs.confidence_interval(0.95)
    assert found.p_value()[0, 0] == pytest.approx(theirs.pvalue, **EXACT)
    assert found.df[0, 0] == pytest.approx(39, **EXACT)
    assert [bound[0, 0] for bound in found.interval()] == pytest.approx([interval.low, interval.high], **EXACT)


@pytest.mark.parametrize("questions, size", [(60, 3), (61, 7)])
def test_questions_about_one_passage_give_the_cluster_robust_error_of_statsmodels(generator, questions, size):
    clusters = np.arange(questions) // size
    passage = generator.normal(0, 10, clusters[-1] + 1)[clusters]
    scores = generator.normal(50, 20, (2, 1, questions)) + np.array([0, 1])[:, None, None] * passage
    found = estimate(runs_of(scores, clusters=[clusters]), DIFFERENCE, np.eye(1))
    fit = sm.OLS(scores[0, 0] - scores[1, 0], np.ones(questions)).fit(
        cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True
    )
    assert found.error[0, 0] == pytest.approx(fit.bse[0], **EXACT)
    assert found.p_value()[0, 0] == pytest.approx(fit.pvalues[0], **EXACT)
    assert [bound[0, 0] for bound in found.interval()] == pytest.approx(fit.conf_int()[0], **EXACT)


def test_seeds_crossed_with_questions_give_the_mean_squares_of_an_analysis_of_variance(generator):
    seeds, questions = 3, 25
    scores = (
        generator.normal(0, 9, (1, seeds, 1))
        + generator.normal(0, 5, (1, 1, questions))
        + generator.normal(50, 3, (1, seeds, questions))
    )
    found = estimate(runs_of(scores), np.ones((1, 1)), np.eye(1))
    long = pd.DataFrame(
        {
            "score": scores[0].ravel(),
            "seed": np.repeat(range(seeds), questions),
            "question": list(range(questions)) * seeds,
        }
    )
    table = sm.stats.anova_lm(ols("score ~ C(seed) + C(question)", long).fit())
    seed, question, both = table["mean_sq"] / (seeds * questions)
    variance = seed + question - both
    df = variance**2 / (
        seed**2 / (seeds - 1) + question**2 / (questions - 1) + both**2 / ((seeds - 1) * (questions - 1))
    )
    assert found.variance[0, 0] == pytest.approx(variance, **EXACT)
    assert found.df[0, 0] == pytest.approx(df, **EXACT)


def test_the_average_weighs_benchmarks_alike_whatever_their_size(generator):
    small, large = generator.normal(20, 5, (2, 1, 10)), generator.normal(80, 5, (2, 1, 1000))
    found = estimate(runs_of(small, large), np.eye(2), with_average(2))
    assert found.value[:, 2] == pytest.approx((small.mean((1, 2)) + large.mean((1, 2))) / 2, **EXACT)
    parts = [stats.sem(score[0, 0]) ** 2 / 4 for score in (small, large)]
    assert found.variance[0, 2] == pytest.approx(sum(parts), **EXACT)
    assert found.df[0, 2] == pytest.approx(sum(parts) ** 2 / (parts[0] ** 2 / 9 + parts[1] ** 2 / 999), **EXACT)


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_clusters_of_several_benchmarks_are_added_before_they_are_squared(data):
    """Against the sum over clusters, written out; which clusters a benchmark has, and how large they are, is drawn."""
    benchmarks, seeds = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    draw = np.random.default_rng(data.draw(st.integers(0, 999)))
    numbers = st.lists(st.integers(0, 6), min_size=2, max_size=12).filter(lambda found: len(set(found)) > 1)
    clusters = [np.array(sorted(data.draw(numbers))) for _ in range(benchmarks)]
    scores = [draw.normal(50, 20, (2, seeds, len(part))) for part in clusters]
    weight = draw.random(benchmarks)
    found = estimate(runs_of(*scores, clusters=clusters, seeded=[False, False]), DIFFERENCE, weight[None])
    total = 0.0
    for cluster in range(7):
        added = 0.0
        for w, score, part in zip(weight, scores, clusters, strict=True):
            gap = (score[0] - score[1]).mean(axis=0)
            count = len(set(part))
            added += w * np.sqrt(count / (count - 1)) * (gap - gap.mean())[part == cluster].sum() / len(part)
        total += added**2
    assert found.variance[0, 0] == pytest.approx(total, **EXACT)
    fewest = min(len(set(part)) for part in clusters)
    most = len(set(np.concatenate(clusters)))
    assert 0 < found.df[0, 0] <= most and (benchmarks > 1 or found.df[0, 0] == pytest.approx(fewest - 1))


def test_entities_that_stand_in_two_benchmarks_make_them_one(generator):
    """One question each, the same entities: the average is that of one benchmark of the entities' means."""
    scores = [generator.normal(50, 20, (2, 3, 30)) for _ in range(2)]
    both = estimate(runs_of(*scores, clusters=[np.arange(30)] * 2), DIFFERENCE, with_average(2))
    one = estimate(runs_of((scores[0] + scores[1]) / 2), DIFFERENCE, np.eye(1))
    for name in ("value", "variance", "df"):
        assert getattr(both, name)[0, 2] == pytest.approx(getattr(one, name)[0, 0], **EXACT)


def test_models_are_pooled_question_by_question_and_seed_by_seed(generator):
    """Two models that repeat each other say no more than one; two that err apart say more."""
    scores = generator.normal(50, 20, (2, 3, 40))
    one = estimate(runs_of(scores), DIFFERENCE, np.eye(1))
    twice = estimate(pooled([runs_of(scores), runs_of(scores)], "all"), DIFFERENCE, np.eye(1))
    assert twice.variance == pytest.approx(one.variance) and twice.df == pytest.approx(one.df)
    other = generator.normal(50, 20, (2, 3, 40))
    found = estimate(pooled([runs_of(scores), runs_of(other)], "all"), DIFFERENCE, np.eye(1))
    assert found.value[0, 0] == pytest.approx((scores[0] - scores[1] + other[0] - other[1]).mean() / 2)
    assert found.variance[0, 0] < one.variance[0, 0]


def test_models_of_other_questions_or_seeds_are_not_pooled(generator):
    first = replace(runs_of(generator.normal(50, 20, (2, 3, 4))), questions=(np.array(["a", "b", "c", "d"]),))
    asked = replace(first, questions=(np.array(["a", "b", "c", "e"]),))
    fewer = replace(first, scores=(first.scores[0][:, :2],))
    for other in (asked, fewer):
        with pytest.raises(ValueError, match="not scored on the same questions with the same seeds"):
            pooled([first, other], "all")


def test_methods_that_a_model_lacks_are_not_pooled(generator):
    whole = runs_of(generator.normal(50, 20, (3, 2, 9)))
    part = replace(whole, methods=whole.methods[1:], scores=(whole.scores[0][1:],), seeded=whole.seeded[1:])
    assert pooled([whole, part], "all").methods == ("method1", "method2")
    assert pooled([whole, part], "all").scores[0] == pytest.approx(whole.scores[0][1:])


@pytest.mark.parametrize("shift", [-0.9, 0.0, 0.4, 3.0])
def test_level_is_told_by_the_two_one_sided_tests_of_statsmodels(generator, shift):
    scores = generator.normal(50, 5, (1, 1, 200)) + np.array([0, shift])[:, None, None]
    scores = scores + generator.normal(0, 3, (2, 1, 200))
    found = estimate(runs_of(scores), DIFFERENCE, np.eye(1))
    theirs = ttost_paired(scores[0, 0], scores[1, 0], -1.0, 1.0)[0]
    assert found.equivalence_p(1.0)[0, 0] == pytest.approx(theirs, **EXACT)


def test_without_spread_nothing_is_called_level():
    same = estimate(runs_of(np.full((2, 1, 10), 100.0)), DIFFERENCE, np.eye(1))
    assert (same.equivalence_p() == 1).all()


def test_pairing_removes_what_questions_and_seeds_share(generator):
    shared = generator.normal(50, 20, (1, 3, 50))
    scores = np.concatenate([shared, shared + generator.normal(1, 0.1, (1, 3, 50))])
    assert estimate(runs_of(scores), DIFFERENCE, np.eye(1)).error[0, 0] < 0.1


def test_seed_variance_of_like_methods_is_the_residual_of_methods_x_seeds(generator):
    """Where every method has the same variance nothing is a method's own, so all residual degrees of freedom are used."""
    base = generator.normal(0, 1, 3)
    means = np.stack([np.roll(base, shift) + shift for shift in range(3)])[None]  # equal own variances
    variance, df = seed_variance(means, np.ones(3, dtype=bool), np.array([[1.0, -1.0, 0.0]]))
    long = pd.DataFrame({"y": means.ravel(), "method": np.repeat(range(3), 3), "seed": list(range(3)) * 3})
    residual = ols("y ~ C(method) + C(seed)", long).fit().mse_resid
    assert variance[0, 0] == pytest.approx(2 * residual, **EXACT)
    assert df[0, 0] == pytest.approx(4, **EXACT)


def test_a_method_unlike_the_others_keeps_most_of_its_own_seed_variance(generator):
    sd = np.array([0.01] * 5 + [1.0] * 2 + [5.0] * 5)
    means = (sd[:, None] * generator.standard_normal((12, 3)))[None]
    calm, wild = np.eye(12)[[0, 11]]
    variance, df = seed_variance(means, np.ones(12, dtype=bool), np.array([calm, wild]))
    assert variance[1, 0] > 1.5 * variance[0, 0]
    assert (df < 24).all()


def test_prior_degrees_of_freedom_recover_what_variances_were_drawn_with(generator):
    """Raising the smallest variances reads methods as more alike than they are, by up to a half."""
    d0 = np.array([[1.0], [3.0], [10.0]])
    variances = d0 / generator.chisquare(d0, (3, 20000)) * generator.chisquare(8, (3, 20000)) / 8
    assert (prior_df(variances, 8) / d0[:, 0] > 0.9).all()
    assert (prior_df(variances, 8) / d0[:, 0] < 1.6).all()
    assert prior_df(np.array([[2.0] * 5, [0.0] * 5, [0.0] * 4 + [1.0]]), 2).tolist() == [np.inf] * 3
    assert prior_df(np.array([[2.0, 1.0]]), 2).tolist() == [np.inf]


def test_prior_degrees_of_freedom_solve_their_equation(generator):
    variances = np.exp(generator.normal(0, 3, (50, 11)))
    d0 = prior_df(variances, 4)
    low, middle = stats.chi2.ppf([0.05, 0.5], 4)
    floored = np.maximum(variances, np.median(variances, axis=1, keepdims=True) * low / middle)
    expected = np.log(floored).var(axis=1, ddof=1) - special.polygamma(1, 2)
    assert special.polygamma(1, d0 / 2) == pytest.approx(expected, rel=1e-10)


def test_the_untrained_base_has_no_seed_variance(generator):
    scores = np.repeat(generator.normal(50, 20, (1, 1, 30)), 3, axis=1)
    trained = generator.normal(50, 20, (1, 3, 30)) + np.array([-30, 0, 30])[None, :, None]
    both = runs_of(np.concatenate([scores, trained]), seeded=[False, True])
    found = estimate(both, np.eye(2), np.eye(1))
    assert found.variance[0, 0] == pytest.approx(stats.sem(scores[0, 0]) ** 2, **EXACT)
    assert found.error[1, 0] > 15


def test_mcnemar_counts_the_questions_that_one_of_the_two_got_right(generator):
    right = generator.random((4, 35)) < np.array([0.2, 0.5, 0.7, 0.7])[:, None]
    only, p = mcnemar(right)
    for i in range(4):
        for j in range(4):
            assert only[i, j] == (right[i] & ~right[j]).sum()
            if total := only[i, j] + only[j, i]:
                assert p[i, j] == pytest.approx(stats.binomtest(int(only[i, j]), int(total)).pvalue, **EXACT)
    assert p[0, 0] == 1


@pytest.mark.parametrize("count", [0, 1, 2, 22])
def test_holm_multiplies_the_nth_smallest_by_how_many_are_left(generator, count):
    p = generator.random(count) ** 3
    p[: count // 4] = p[-1] if count else 0
    expected, largest = np.empty(count), 0.0
    for place, index in enumerate(np.argsort(p, kind="stable")):
        largest = expected[index] = max(largest, min(1.0, (count - place) * p[index]))
    assert holm(p) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("df", [2.0, 9.0, 40.0, 5000.0])
def test_the_detectable_effect_is_found_with_80_percent_power(df):
    effect = Estimates(np.zeros((1, 1)), np.full((1, 1), 4.0), np.full((1, 1), df)).detectable()[0, 0]
    standardised = effect / 2 / np.sqrt(df + 1)
    power = TTestPower().power(standardised, nobs=df + 1, alpha=0.05, alternative="two-sided")
    assert power == pytest.approx(0.8, abs=2e-4)  # theirs counts finding the wrong sign, too


def test_no_spread_gives_no_interval_and_no_claim():
    same = np.full((2, 3, 10), 100.0)
    found = estimate(runs_of(same, np.full((2, 3, 1), 50.0)), DIFFERENCE, np.eye(2))
    assert np.isnan(found.interval()).all()
    assert np.isnan(found.detectable()).all()
    assert (found.p_value() == 1).all()


def test_the_recovered_share_is_told_only_where_there_is_a_gap(generator):
    world = with_effects(World())
    runs, _ = simulate(world, generator)
    average = with_average(10)[-1]
    share, low, high = recovered(runs, average, "full", "oracle")
    where = runs.methods.index
    assert share[where("full")] == 0 and share[where("oracle")] == pytest.approx(1)
    told = low[where("sstoken")], share[where("sstoken")], high[where("sstoken")]
    assert told[0] < told[1] < told[2]
    assert all(np.isnan(part).all() for part in recovered(runs, average, "oracle", "full"))


def test_fieller_holds_every_share_that_its_test_does_not_reject(generator):
    """The interval's ends are where the t test of method - full - share·(oracle - full) turns at the 5 % level."""
    scores = [generator.normal(50, 20, (3, 1, 80)) + np.array([0, 5, 15])[:, None, None] for _ in range(2)]
    runs = runs_of(*scores)
    average = with_average(2)[-1]
    _, low, high = recovered(runs, average, "method0", "method2")
    for end in (low[1], high[1]):
        p = estimate(runs, np.array([[end - 1, 1, -end]]), average[None]).p_value()[0, 0]
        assert p == pytest.approx(0.05, abs=2e-3)  # the degrees of freedom are those at the estimate
