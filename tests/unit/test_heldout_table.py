"""Held-out loss in the report: bits per byte, lower is better, in no average."""

import math

import numpy as np
import pandas as pd
import pytest

from sstoken.report.comparison import compare
from sstoken.report.tables import write_tables
from sstoken.report.tables.heldout import apart, heldout_table, shown
from tests.unit.test_tables import BENCHMARKS, MODELS, SEEDS, costs_of, samples_of

BITS = {"base": 1.5, "full": 1.2, "sstoken": 1.1, "oracle": 1.0}
ROWS = 40


def loss_rows(seed=0, bits=BITS):
    draw = np.random.default_rng(seed)
    rows = []
    for model in MODELS:
        easy = draw.normal(0, 0.3, ROWS)
        for method, seeds in SEEDS.items():
            for run in seeds:
                value = bits[method] + easy + draw.normal(0, 0.02, ROWS)
                rows += [(model, method, run, "heldout", f"h/{q}", f"h/{q}", 2.0 ** -value[q]) for q in range(ROWS)]
    return pd.DataFrame(rows, columns=["model", "method", "seed", "benchmark", "question_id", "cluster_id", "score"])


def written(root, samples, benchmarks, folder):
    samples.to_parquet(folder / "samples.parquet", index=False)
    costs_of().to_csv(folder / "costs.csv", index=False)
    out = folder / "tables"
    out.mkdir()
    write_tables(
        folder / "samples.parquet", folder / "costs.csv", root / "sstoken/evaluation/benchmarks.tsv", out,
        models=MODELS, seeds=SEEDS, benchmarks=benchmarks, passes={name: [] for name in SEEDS},
    )  # fmt: skip
    return out


def test_bits_and_their_differences_are_those_of_the_rows(tmp_path):
    samples = loss_rows()
    samples.to_parquet(tmp_path / "samples.parquet", index=False)
    table = heldout_table(tmp_path / "samples.parquet", MODELS, SEEDS, ["heldout"]).set_index(["model", "method"])
    own = samples.assign(bits=-np.log2(samples["score"])).groupby(["model", "method"])["bits"].mean()
    assert table["bits"].to_dict() == pytest.approx(own.to_dict())
    for model in MODELS:
        row = table.loc[model, "sstoken"]
        assert row["minus_full"] == pytest.approx(own[model, "sstoken"] - own[model, "full"])
        assert row["minus_full_low"] < row["minus_full"] < row["minus_full_high"] < 0 and row["significant"]
        assert row["recovered"] == pytest.approx(
            (own[model, "full"] - own[model, "sstoken"]) / (own[model, "full"] - own[model, "oracle"])
        )
        assert 0 < row["recovered_low"] < row["recovered"] < row["recovered_high"] < 1
        assert table.loc[(model, "base"), "recovered"] < 0 < table.loc[(model, "base"), "minus_full"]
        assert math.isnan(table.loc[(model, "full"), "minus_full"])


def test_no_share_is_told_where_the_oracle_gains_nothing(tmp_path):
    loss_rows(bits=BITS | {"oracle": 1.2}).to_parquet(tmp_path / "samples.parquet", index=False)
    table = heldout_table(tmp_path / "samples.parquet", MODELS, SEEDS, ["heldout"])
    assert table["recovered"].isna().all() and table["minus_full"].notna().any()


def test_a_lower_loss_is_better_and_comes_first(tmp_path):
    loss_rows().to_parquet(tmp_path / "samples.parquet", index=False)
    frame, caption = shown(heldout_table(tmp_path / "samples.parquet", MODELS, SEEDS, ["heldout"]))
    for model in MODELS:
        mine = frame[frame["model"] == model]
        assert list(mine["method"]) == ["oracle", "sstoken", "full", "base"]
        assert list(mine["verdict"]) == ["better", "better", "–", "worse"]
    assert "lower is better" in caption and f"{ROWS} rows" in caption


def test_a_score_that_underflowed_is_a_large_loss(tmp_path):
    samples = loss_rows()
    samples.loc[0, "score"] = 0.0
    samples.to_parquet(tmp_path / "samples.parquet", index=False)
    table = heldout_table(tmp_path / "samples.parquet", MODELS, SEEDS, ["heldout"])
    assert np.isfinite(table["bits"]).all()


def test_no_other_table_knows_of_it(root, tmp_path):
    for name in ("without", "with"):
        (tmp_path / name).mkdir()
    without = written(root, samples_of(SEEDS), BENCHMARKS, tmp_path / "without")
    both = pd.concat([samples_of(SEEDS), loss_rows()])
    beside = written(root, both, [*BENCHMARKS, "heldout"], tmp_path / "with")
    for path in without.glob("*"):
        assert path.read_bytes() == (beside / path.name).read_bytes(), path.name
    assert {path.name for path in beside.iterdir()} - {path.name for path in without.iterdir()} == {
        "heldout.csv", "heldout.md", "heldout.tex",
    }  # fmt: skip


def test_where_there_is_nothing_else_it_is_what_the_tables_speak_of(root, tmp_path):
    out = written(root, loss_rows(), ["heldout"], tmp_path)
    averages = pd.read_csv(out / "averages.csv")
    assert set(averages["benchmark"]) == {"Held-out", "Average"} and averages["estimate"].notna().all()
    assert apart(["a", "b"], {"b": "likelihood_per_byte"}) == (["a"], ["b"])
    assert apart(["b"], {"b": "likelihood_per_byte"}) == (["b"], ["b"])


def test_two_experiments_are_compared_without_it(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        better = {k: v / 2 for k, v in BITS.items()} if name == "b" else BITS
        pd.concat([samples_of(SEEDS), loss_rows(bits=better)]).to_parquet(
            tmp_path / name / "samples.parquet", index=False
        )
        metrics = [("arc_easy", "acc"), ("tydiqa", "f1"), ("heldout", "likelihood_per_byte")]
        pd.DataFrame(metrics, columns=["benchmark", "metric"]).to_csv(tmp_path / name / "scores.csv", index=False)
    found = compare(tmp_path / "a", tmp_path / "b").differences
    average = found[found["benchmark"] == "Average"]
    assert average["estimate"].abs().max() < 1e-9
    assert (found[found["benchmark"] == "heldout"]["estimate"] > 5).all()
