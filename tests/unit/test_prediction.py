"""What an audit says against how methods end up: rank correlations, and the tables of docs/results.md."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sstoken.report.audit_results import auc_table, direction_table, sources_table, spent
from sstoken.report.fill import fill
from sstoken.report.prediction import audited_scores, prediction_table, rank_correlations, spearman

METHODS = ["random", "rho1", "semantic-aware", "sstoken", "easiest", "oracle"]


def experiment(root, models=("a", "b"), seed=0):
    """The cosine orders the scores as they are; the AUC the other way round."""
    draw = np.random.default_rng(seed)
    averages = []
    for model in models:
        folder = root / "audit" / model
        folder.mkdir(parents=True)
        level = {m: 40.0 + place for place, m in enumerate(METHODS)} | {"full": 45.5}
        rows, ways = [], []
        for method in METHODS:
            for phase in ("all", "1"):
                for kind in ("all", "varying", "harm", "wrong"):
                    auc = 0.9 - level[method] / 100 if phase == "all" else draw.random()
                    rows.append((model, method, 0, phase, kind, auc, auc - 0.02, auc + 0.02, 0.8, 0.7, 100))
        for method in [*METHODS, "full"]:
            for step in ("all", "3"):
                value = level[method] / 100 if step == "all" else draw.random()
                ways.append((method, step, value, value - 0.01, value + 0.01, value - 0.455, -0.5, 0.5, 8, model, 0))
        columns = ["model", "method", "seed", "phase", "kind", "auc", "low", "high", "precision", "recall", "n_tokens"]
        frame = pd.DataFrame(rows, columns=columns)
        frame.to_csv(folder / "scores.csv", index=False)
        names = [
            "method",
            "step",
            "cosine",
            "low",
            "high",
            "minus_full",
            "minus_full_low",
            "minus_full_high",
            "batches",
        ]
        pd.DataFrame(ways, columns=[*names, "model", "seed"]).to_csv(folder / "direction.csv", index=False)
        averages += [(model, m, "Average", value) for m, value in (level | {"clean": 60.0, "base": 10.0}).items()]
        averages += [(model, m, "MMLU", draw.random()) for m in level]
    tables = root / "report" / "tables"
    tables.mkdir(parents=True)
    pd.DataFrame(averages, columns=["model", "method", "benchmark", "estimate"]).to_csv(
        tables / "averages.csv", index=False
    )
    parts = [pd.read_csv(root / "audit" / model / "scores.csv") for model in models]
    pd.concat(parts).to_csv(root / "audit" / "audit.csv", index=False)
    return root


def test_a_sign_that_orders_the_scores_has_1_and_one_that_turns_them_round_has_its_opposite(tmp_path):
    table = audited_scores(experiment(tmp_path))
    assert set(table["method"]) == {*METHODS, "full"} and set(table["model"]) == {"a", "b"}
    assert (table[table["method"] == "full"]["auc"] == 0.5).all()
    found = rank_correlations(table).set_index("sign")
    assert found.loc["cosine", "estimate"] == pytest.approx(1)
    mine = table[table["model"] == "a"]
    assert found.loc["auc", "estimate"] == pytest.approx(stats.spearmanr(mine["auc"], mine["score"]).statistic)
    assert found.loc["auc", "estimate"] < 0 < found.loc["cosine", "minus_auc_low"]
    assert found.loc["cosine", "minus_auc"] == pytest.approx(1 - found.loc["auc", "estimate"])
    assert "oracle" not in set(table[~table["method"].isin(["oracle"])]["method"])


def test_a_blind_sign_has_an_interval_about_0():
    draw = np.random.default_rng(1)
    covered = 0
    for _ in range(30):
        methods = [f"m{n}" for n in range(9)]
        rows = [(model, m, *draw.random(4), draw.random()) for model in "ab" for m in methods]
        table = pd.DataFrame(rows, columns=["model", "method", "auc", "varying", "harm", "cosine", "score"])
        found = rank_correlations(table).set_index("sign").loc["cosine"]
        covered += found["low"] <= 0 <= found["high"]
    assert covered >= 25


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_scipys(seed):
    draw = np.random.default_rng(seed)
    x, y = draw.integers(0, 4, (3, 8)), draw.integers(0, 4, (3, 8))  # with ties
    assert spearman(x, y) == pytest.approx([stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)])


def test_methods_that_one_model_lacks_do_not_count(tmp_path):
    table = audited_scores(experiment(tmp_path))
    lacking = table[(table["model"] == "a") | table["method"].isin(METHODS[:3])]
    with pytest.raises(ValueError, match="only 3 methods were audited and evaluated on every model"):
        rank_correlations(lacking)
    with pytest.raises(ValueError, match="needs an audit with held-out rows and an evaluated grid"):
        audited_scores(tmp_path / "nowhere")


def test_what_an_experiment_took_is_the_sum_of_its_records(tmp_path):
    config = {"models": ["m"], "seeds": [0, 1]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    costs = {
        "tokens/m/train": {
            "cost": {"stage": "tokens", "cpu_seconds": 60, "seconds": 9},
            "dataset": "train",
            "samples": 7,
        },
        "runs/m/full/seed0/run": {"cost": {"stage": "train", "cpu_seconds": 90, "seconds": 9}},
        "runs/m/full/seed1/run": {"cost": {"stage": "train", "cpu_seconds": None, "seconds": 30}},
        "models/m/config": {"layers": 2},
        "models/m/list": [1],
    }
    for name, record in costs.items():
        path = tmp_path / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
    assert spent(tmp_path) == "m; seeds 0, 1; rows: 7 train. 3 CPU minutes: tokens 1.0, train 2.0."


def test_audits_of_several_files_stand_side_by_side(tmp_path):
    for name, half in (("one", 0.02), ("two", 0.04), ("three", 0.06)):
        root = experiment(tmp_path / "results" / name, models=("a",))
        source = "{instruct_data}" if name == "two" else f"{name}/rows.jsonl" if name == "three" else f"{name}.jsonl"
        config = {"instruct_data": "here/two.jsonl", "data": {"train": {"sources": [source]}}}
        (root / "config.json").write_text(json.dumps(config))
        (root / "tokens").mkdir()
        record = {"cost": {"stage": "tokens", "cpu_seconds": 90, "seconds": 9}, "dataset": "train", "samples": 7}
        (root / "tokens" / "train.json").write_text(json.dumps(record))
        path = root / "audit" / "audit.csv"
        rows = pd.read_csv(path)
        rows.assign(low=rows["auc"] - half, high=rows["auc"] + half).to_csv(path, index=False)
    path = tmp_path / "x.md"
    path.write_text("<!-- table: sources one two -->\n<!-- end -->\n<!-- table: sources one four -->\n<!-- end -->\n")
    assert fill(path, tmp_path / "results") == (["sources one two"], ["sources one four"])
    lines = path.read_text().splitlines()
    assert "| method | one | two |" in lines and "| random | 0.50 ± 0.02 | 0.50 ± 0.04 |" in lines
    assert "| rows; noise tokens | 7; 100 | 7; 100 |" in lines and "| CPU minutes | 2 | 2 |" in lines
    twice = [tmp_path / "results" / "three"] * 2
    assert sources_table(twice).startswith("| method | three | three |")  # two files of one name
    with pytest.raises(ValueError, match="of one model"):
        sources_table([experiment(tmp_path / "both", models=("a", "b"))])


def test_the_tables_of_an_audit_are_put_into_a_document(tmp_path):
    experiment(tmp_path / "results" / "made-up")
    path = tmp_path / "x.md"
    words = ["auc made-up", "direction made-up", "prediction made-up", "auc nowhere"]
    path.write_text("".join(f"<!-- table: {word} -->\n<!-- end -->\n" for word in words))
    assert fill(path, tmp_path / "results") == (words[:3], words[3:])
    text = path.read_text()
    assert "| a: noise | tokens | random | rho1 |" in text and "| all noise | 100 | 0.50 ± 0.02 |" in text
    assert "| method | a | b |" in text and "| full | 0.455 [0.445, 0.465] | 0.455 [0.445, 0.465] |" in text
    assert "| cosine with the held-out gradient | +1.00 [+1.00, +1.00] |" in text
    one = direction_table(experiment(tmp_path / "one", models=("a",)))
    assert "| method | cosine | minus full |" in one and "| full | 0.455 [0.445, 0.465] | – |" in one
    assert "| easiest | 0.440 [0.430, 0.450] | −0.015 [−0.500, +0.500] |" in one
    root = tmp_path / "results" / "made-up"
    assert auc_table(root) in text and direction_table(root) in text and prediction_table(root) in text
