"""Two experiments compared: against differences taken by hand, and what cannot be compared."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sstoken.report import compare

METHODS = {"base": [0], "full": [0, 1, 2], "sstoken": [0, 1, 2]}
COLUMNS = ["model", "method", "seed", "benchmark", "question_id", "cluster_id", "score"]


def experiment(root, gain=0.0, models=("one", "two"), seeds=METHODS, names="q", questions=60):
    """A folder with scores: answers of ``sstoken`` are more often right by ``gain``; the rest is the same each time."""
    rows = []
    for m, model in enumerate(models):
        for benchmark in ("arc_easy", "mmlu"):
            easy = np.random.default_rng([m, len(benchmark)]).random(questions)
            for method, known in seeds.items():
                for seed in known:
                    answer = np.random.default_rng([m, len(method), seed]).random(questions)
                    right = 0.7 * easy + 0.3 * answer < 0.5 + gain * (method == "sstoken")
                    key = (model, method, seed, benchmark)
                    rows += [(*key, f"{names}{q}", f"{benchmark}/{q}", float(right[q])) for q in range(questions)]
    root.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=COLUMNS).to_parquet(root / "samples.parquet", index=False)
    return root


def scores_of(root, question="model == 'one' and method == 'sstoken'"):
    return pd.read_parquet(root / "samples.parquet").query(question)


def test_a_difference_is_b_minus_a_question_by_question(tmp_path):
    a, b = experiment(tmp_path / "a"), experiment(tmp_path / "b", gain=0.3)
    found = compare(a, b).differences.set_index(["model", "method", "benchmark"])
    for model in ("one", "two"):
        for benchmark in ("arc_easy", "mmlu"):
            chosen = f"model == '{model}' and method == 'sstoken' and benchmark == '{benchmark}'"
            expected = [100 * scores_of(root, chosen)["score"].mean() for root in (a, b)]
            row = found.loc[(model, "sstoken", benchmark)]
            assert [row["a"], row["b"], row["estimate"]] == pytest.approx([*expected, expected[1] - expected[0]])
    average = found.xs("Average", level="benchmark")["estimate"].unstack()
    assert (average["full"] == 0).all() and (average["base"] == 0).all() and (average["sstoken"] > 5).all()
    assert average.loc["all models"]["sstoken"] == pytest.approx(average.loc[["one", "two"]]["sstoken"].mean())
    assert found.loc[("all models", "sstoken", "Average")]["significant"]
    assert found.xs("Average", level="benchmark").query("method == 'base'")["same"].all()
    assert not found.xs("Average", level="benchmark").query("method == 'sstoken'")["same"].any()
    turned = compare(b, a).differences.set_index(["model", "method", "benchmark"])
    assert np.allclose(turned["estimate"], -found["estimate"]) and np.allclose(turned["p"], found["p"])


def test_with_one_run_each_it_is_the_paired_t_test(tmp_path):
    a, b = (experiment(tmp_path / n, gain, ("one",), {"sstoken": [0]}) for n, gain in (("a", 0.0), ("b", 0.1)))
    row = compare(a, b).differences.set_index("benchmark").loc["mmlu"]
    theirs = stats.ttest_rel(*(scores_of(root, "benchmark == 'mmlu'")["score"] for root in (b, a)))
    assert row["p"] == pytest.approx(theirs.pvalue)
    assert [row["low"], row["high"]] == pytest.approx([100 * end for end in theirs.confidence_interval(0.95)])


def test_pairing_makes_a_difference_surer_than_two_averages(tmp_path):
    a, b = experiment(tmp_path / "a"), experiment(tmp_path / "b", gain=0.02)
    row = compare(a, b, "sstoken").differences.query("model == 'one' and benchmark == 'Average'").iloc[0]
    scores = scores_of(a, "model == 'one' and method == 'sstoken' and seed == 0")["score"]
    assert row["high"] - row["low"] < 2 * 100 * scores.std() / np.sqrt(len(scores))


def test_only_what_both_have_is_compared(tmp_path):
    a = experiment(tmp_path / "a")
    b = experiment(tmp_path / "b", 0.1, ("one",), {"sstoken": [1, 2, 3], "rho1": [1, 2, 3]})
    found = compare(a, b).differences
    assert set(found["model"]) == {"one"} and set(found["method"]) == {"sstoken"}
    before, after = (scores_of(root, "model == 'one' and method == 'sstoken' and seed in [1, 2]") for root in (a, b))
    gap = 100 * (after["score"].mean() - before["score"].mean())
    assert found.query("benchmark == 'Average'")["estimate"].item() == pytest.approx(gap)


@pytest.mark.parametrize(
    "case, message",
    [
        ("nothing", "no such file"),
        ("method", "no scores of method 'rho2'; known: base, full, sstoken"),
        ("questions", "scored on different questions"),
        ("models", "no model, method, seed and benchmark in common"),
        ("itself", "compared with itself"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path, case, message):
    a = experiment(tmp_path / "a")
    changes = {"models": {"models": ("three",)}, "questions": {"names": "z"}}.get(case, {})
    b = experiment(tmp_path / "b", **changes)
    b = {"nothing": tmp_path / "c", "itself": tmp_path / "b" / ".." / "a"}.get(case, b)
    with pytest.raises(ValueError, match=message) as error:
        compare(a, b, "rho2" if case == "method" else None)
    assert "\n" not in str(error.value)


def test_the_settings_that_differ_are_named_and_no_others(tmp_path):
    a, b = experiment(tmp_path / "low"), experiment(tmp_path / "high", 0.1)
    for root, rate in ((a, 1e-3), (b, 1e-2)):
        folder = root / "runs" / "one" / "sstoken" / "seed0"
        folder.mkdir(parents=True)
        training = {"learning_rate": rate, "adapter": {"rank": 4}}
        record = {"settings": training, "entry": {"keep_ratio": 0.6}, "steps": 10, "samples": 80}
        (folder / "run.json").write_text(json.dumps(record))
    found = compare(a, b)
    assert found.settings.to_numpy().tolist() == [["training.learning_rate", "0.001", "0.01"]]
    for needed in ("training.learning_rate", "low |", "high |", "all models", "better"):
        assert needed in found.table


def test_it_leaves_a_table_and_a_figure_the_same_each_time(tmp_path):
    found = compare(experiment(tmp_path / "a"), experiment(tmp_path / "b", 0.1))
    paths = found.write(tmp_path / "out")
    assert {path.suffix for path in paths} == {".csv", ".md", ".svg", ".pdf", ".png"}
    again = compare(tmp_path / "a", tmp_path / "b").write(tmp_path / "again")
    for first, second in zip(paths, again, strict=True):
        assert first.stat().st_size and first.read_bytes() == second.read_bytes(), first.name
    axis = found.figure().figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["base", "full", "sstoken"]


def test_settings_of_the_data_that_differ_are_named(tmp_path):
    """Of every section that a data set is read from, as the tokens' record has them."""
    for name, limit in (("a", 8), ("b", 9)):
        root = experiment(tmp_path / name)
        (root / "tokens" / "one").mkdir(parents=True)
        sections = [{"sources": [name], "limit": 5}, {"sources": [name], "limit": limit}]
        (root / "tokens" / "one" / "train.json").write_text(json.dumps({"sections": sections, "tokens_sha256": "x"}))
    found = compare(tmp_path / "a", tmp_path / "b").settings
    assert found.to_dict("records") == [{"setting": "data.train.1.limit", "a": "8", "b": "9"}]


def test_what_cannot_differ_takes_no_part_in_the_correction(tmp_path):
    """The untrained base answers alike in both: counted as a test, it would halve the others' significance."""
    seeds = {"base": [0], "full": [0, 1], "sstoken": [0, 1]}
    a, b = (experiment(tmp_path / name, gain, ("one",), seeds) for name, gain in (("a", 0.0), ("b", 0.05)))
    both = compare(a, b)
    row = both.differences.query("benchmark == 'Average'").set_index("method")
    assert row.loc["sstoken", "p_holm"] == pytest.approx(
        row.loc["sstoken", "p"]
    )  # full's and base's runs are alike here
    assert row.loc[["base", "full"], "p_holm"].isna().all() and row["significant"].dtype == bool
    assert both.table.count(" same ") == 2
