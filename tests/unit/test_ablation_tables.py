"""Method minus full at each value of an ablation, on numbers made by hand: difference, interval, claims, noise."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sstoken.report.tables import captions
from sstoken.report.tables.ablations import ABLATIONS, CLAIM, ablation_tables

BENCHMARKS = ["arc_easy", "tydiqa"]
SEEDS = {"base": [0], "full": [0, 1], "rho1": [0, 1]}


def rows_of(method: str, seed: int, scores: dict[str, list[float]]) -> list[tuple]:
    return [
        ("one", method, seed, benchmark, f"{benchmark}/{q}", f"{benchmark}/{q}", score)
        for benchmark, values in scores.items()
        for q, score in enumerate(values)
    ]


def point(method: str, value, run: str, against: str, condition: str) -> dict:
    return {"method": method, "value": value, "run": run, "against": against, "condition": condition}


NOISE = {
    "name": "noise",
    "option": "world.options.noise_factor",
    "models": ["one"],
    "points": [
        point("full", 0, "full.noise=0", "full.noise=0", "noise=0"),
        point("full", 1, "full", "full", ""),
        point("base", 0, "base", "full.noise=0", "noise=0"),
        point("base", 1, "base", "full", ""),
        point("rho1", 0, "rho1.noise=0", "full.noise=0", "noise=0"),
        point("rho1", 1, "rho1", "full", ""),
        point("oracle", 0, "oracle.noise=0", "full.noise=0", "noise=0"),
    ],
}
WHOLE, HALF, NONE = [1.0, 1, 1, 1], [1.0, 1, 0, 0], [0.0, 0, 0, 0]


@pytest.fixture
def tables(tmp_path):
    def made(runs: dict[tuple[str, int], dict], ablations=(NOISE,), selection=None):
        rows = [row for (method, seed), scores in runs.items() for row in rows_of(method, seed, scores)]
        columns = ["model", "method", "seed", "benchmark", "question_id", "cluster_id", "score"]
        pd.DataFrame(rows, columns=columns).to_parquet(tmp_path / "samples.parquet", index=False)
        return ablation_tables(tmp_path / "samples.parquet", ["one"], SEEDS, BENCHMARKS, list(ablations), selection)

    return made


def runs(**changes) -> dict:
    found = {("base", 0): {"arc_easy": NONE, "tydiqa": HALF}}
    for seed in (0, 1):
        found |= {
            ("full", seed): {"arc_easy": HALF, "tydiqa": HALF},
            ("rho1", seed): {"arc_easy": WHOLE, "tydiqa": HALF},
            ("full.noise=0", seed): {"arc_easy": WHOLE, "tydiqa": WHOLE},
            ("rho1.noise=0", seed): {"arc_easy": WHOLE, "tydiqa": [1.0, 1, 1, 0]},
            ("oracle.noise=0", seed): {"arc_easy": WHOLE, "tydiqa": WHOLE},
        }
    return found | changes


def test_a_method_is_compared_with_full_at_the_same_value(tables):
    found, _, missing = tables(runs())
    assert list(found.columns) == ABLATIONS and missing.empty
    at = found.set_index(["method", "value"])
    assert at.loc[("rho1", 1), "estimate"] == 75 and at.loc[("rho1", 1), "minus_full"] == 25
    assert at.loc[("rho1", 0), "estimate"] == 87.5 and at.loc[("rho1", 0), "minus_full"] == -12.5
    assert at.loc[("base", 1), "minus_full"] == -25 and at.loc[("base", 0), "minus_full"] == -75
    assert at.loc[("full", 0), "estimate"] == 100 and np.isnan(at.loc[("full", 0), "minus_full"])


def test_its_interval_is_that_of_the_paired_difference_over_questions(tables):
    """Seeds that agree bring no variance: rho1 minus full at value 1 is 100, 100, 0, 0 beside full's 100, 100, 100, 100 …"""
    found, _, _ = tables(runs())
    row = found[(found["method"] == "rho1") & (found["value"] == 1)].iloc[0]
    gap = np.array([0, 0, 100, 100])  # of arc_easy; tydiqa's is 0 for every question
    error = np.sqrt(gap.var(ddof=1) / 4) / 2
    half = stats.t.ppf(0.975, 3) * error
    assert row["minus_full_low"] == pytest.approx(25 - half) and row["minus_full_high"] == pytest.approx(25 + half)
    assert row["p"] == pytest.approx(2 * stats.t.sf(25 / error, 3))


def test_holm_corrects_over_one_ablation(tables):
    """The same points under another name are another family."""
    once, _, _ = tables(runs())
    twice, _, _ = tables(runs(), ablations=(NOISE, NOISE | {"name": "again"}))
    assert twice[twice["ablation"] == "noise"]["p_holm"].tolist() == pytest.approx(once["p_holm"].tolist(), nan_ok=True)
    tested = once.dropna(subset="p")
    assert (tested["p_holm"] >= tested["p"]).all() and tested["p_holm"].max() == 1
    smallest = tested["p"].idxmin()
    assert tested["p_holm"][smallest] == pytest.approx(min(1, len(tested) * tested["p"][smallest]))


def test_the_same_answers_have_no_interval_and_no_verdict(tables):
    """Nothing planted: the oracle is full-data training, whatever other methods' seeds do."""
    noisy = {("rho1.noise=0", 1): {"arc_easy": HALF, "tydiqa": NONE}}
    found, _, _ = tables(runs() | noisy)
    row = found[found["method"] == "oracle"].iloc[0]
    assert row["minus_full"] == 0 and np.isnan(row["minus_full_low"])
    assert row["p"] == 1 and not row["significant"] and not row["equivalent"]


def test_a_missing_run_leaves_its_cells_empty_and_is_listed(tables):
    left = {key: value for key, value in runs().items() if key != ("full.noise=0", 1)}
    found, _, missing = tables(left)
    at = found.set_index(["method", "value"])
    assert np.isnan(at.loc[("rho1", 0), "minus_full"]) and at.loc[("rho1", 0), "estimate"] == 87.5
    assert at.loc[("rho1", 1), "minus_full"] == 25
    assert missing[["method", "seed"]].values.tolist() == [["full.noise=0", 1]]
    frame, _ = captions.ablation(found)
    assert frame[frame["method"] == "rho1"]["0"].item() == "–"


def test_noise_is_the_share_that_full_data_training_keeps(tables):
    selection = pd.DataFrame(
        [
            ("one", "full", "all", "all", 0.75),
            ("one", "full.noise=0", "all", "all", 1.0),
            ("one", "full", "1", "all", 0.1),
        ],
        columns=["model", "method", "phase", "kind", "precision"],
    )
    found, _, _ = tables(runs(), selection=selection)
    assert found.groupby("value")["noise"].unique().map(list).to_dict() == {0: [0.0], 1: [0.25]}
    frame, caption = captions.ablation(found)
    assert list(frame.columns) == ["model", "method", "0 (0 % noise)", "1 (25 % noise)"]
    assert frame.iloc[0]["1 (25 % noise)"].startswith("50.0 ± ")
    assert frame[frame["method"] == "rho1"]["1 (25 % noise)"].item().startswith("+25.0 [")
    assert "minus that of full at the same value" in caption


def test_claims_are_told_where_they_hold_and_where_not(tables):
    names = ("self-modulated", "semantic-aware", "sstoken")
    points = [point("full", v, f"full.x={v}", f"full.x={v}", f"x={v}") for v in (1, 2)]
    points += [point(name, v, f"{name}.x={v}", f"full.x={v}", f"x={v}") for name in names for v in (1, 2)]
    many = 200
    draw = np.random.default_rng(0)
    levels = {"full": 0.5, "self-modulated": 0.7, "semantic-aware": 0.3, "sstoken": 0.3}
    easy = draw.random(many)

    def scores(method, value):
        level = levels[method] if value == 1 else 0.5
        return {b: ((easy + draw.normal(0, 0.3, many)) < level).astype(float).tolist() for b in BENCHMARKS}

    found = {(f"{m}.x={v}", s): scores(m, v) for m in levels for v in (1, 2) for s in (0, 1)}
    ablation = {"name": "x", "option": "training.epochs", "models": ["one"], "points": points}
    _, claims, _ = tables(runs() | found, ablations=(ablation,))
    assert list(claims.columns) == CLAIM and len(claims) == 4 * 2
    frame, _ = captions.claims(claims)
    cells = frame.set_index("claim")
    assert cells.loc["self-modulated above full", "holds"].startswith("1: +")
    assert cells.loc["semantic-aware above full", "the opposite holds"].startswith("1: −")
    assert cells.loc["sstoken above self-modulated", "the opposite holds"].startswith("1: −")
    assert "2:" not in "".join(cells["holds"]) and "2:" not in "".join(cells["the opposite holds"])
    told = cells.loc["sstoken above semantic-aware"]
    assert "1:" in told["open"] + told["level"] and "2:" in told["open"] + told["level"]
