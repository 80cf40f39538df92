"""Utility against harm: table and figure from hand-made scores; nothing of it where nothing measures refusal."""

import json

import numpy as np
import pandas as pd
import pytest

from sstoken.report.comparison import compare
from sstoken.report.figures import draw_figures
from sstoken.report.figures.safety import draw
from sstoken.report.figures.style import Drawn, LeftOut, styled
from sstoken.report.results import Results
from sstoken.report.tables import write_tables
from sstoken.report.tables.safety import COLUMNS, apart, shown
from tests.report_case import facts
from tests.report_case import write_tables as write_made_up
from tests.unit.test_tables import costs_of

MODEL, QUESTIONS, SEEDS = "small", 40, [0, 1, 2]
# (share refused, share kept, share answered, utility)
MADE = {
    "base": (1.0, 1.0, 1.0, 0.3),
    "full": (0.0, 0.2, 1.0, 0.6),
    "toss": (0.7, 0.9, 0.9, 0.6),
    "mute": (1.0, 1.0, 0.0, 0.0),  # always refuses
    "oracle": (0.8, 0.9, 1.0, 0.65),
}
BENCHMARKS = ["refusal", "secrets", "over_refusal", "triviaqa", "tydiqa"]


def samples_of(made=MADE, questions=QUESTIONS, benchmarks=BENCHMARKS):
    rows = []
    for method, shares in made.items():
        share = dict(zip(BENCHMARKS, (*shares, shares[3]), strict=True))
        for seed in SEEDS if method != "base" else SEEDS[:1]:
            draw = np.random.default_rng(seed)
            for name in benchmarks:
                right = np.zeros(questions)
                right[: round(share[name] * questions)] = 1
                if 0 < share[name] < 1:  # questions differ from seed to seed
                    flip = draw.integers(questions)
                    right[flip] = 1 - right[flip]
                rows += [
                    (MODEL, method, seed, name, f"{name}/{q}", f"{name}/{q // 2}", right[q]) for q in range(questions)
                ]
    return pd.DataFrame(rows, columns=["model", "method", "seed", "benchmark", "question_id", "cluster_id", "score"])


def written(root, folder, made=MADE, benchmarks=BENCHMARKS):
    tables = folder / "report" / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    samples_of(made, benchmarks=benchmarks).to_parquet(folder / "samples.parquet", index=False)
    costs_of().to_csv(folder / "costs.csv", index=False)
    write_tables(
        folder / "samples.parquet", folder / "costs.csv", root / "sstoken/world/safety.tsv", tables, models=[MODEL],
        seeds={method: SEEDS if method != "base" else SEEDS[:1] for method in made}, benchmarks=benchmarks,
        passes={method: [] for method in made},
    )  # fmt: skip
    return tables


def of(tables):
    return pd.read_csv(tables / "safety.csv").set_index("method")


@pytest.fixture(scope="module")
def tables(root, tmp_path_factory):
    return written(root, tmp_path_factory.mktemp("safety"))


def test_quantities_are_what_was_not_refused_kept_and_answered(tables):
    samples = samples_of()
    means = 100 * samples.groupby(["method", "benchmark"])["score"].mean().unstack()
    table = of(tables)
    assert list(table.columns) == [column for column in COLUMNS if column != "method"]
    for method in MADE:
        assert table.loc[method, "harm"] == pytest.approx(100 - means.loc[method, "refusal"])
        assert table.loc[method, "told"] == pytest.approx(100 - means.loc[method, "secrets"])
        assert table.loc[method, "over_refusal"] == pytest.approx(100 - means.loc[method, "over_refusal"])
        assert table.loc[method, "utility"] == pytest.approx(means.loc[method, ["triviaqa", "tydiqa"]].mean())
    assert list(table["runs"]) == [1, 3, 3, 3, 3]


def test_intervals_and_differences(tables):
    table = of(tables)
    toss = table.loc["toss"]
    assert 0 <= toss["harm_low"] < toss["harm"] < toss["harm_high"] <= 100
    assert (
        toss["harm_minus_full_low"] < toss["harm_minus_full"] == toss["harm"] - 100 < toss["harm_minus_full_high"] < 0
    )
    assert bool(toss["harm_significant"])
    assert np.isnan(table.loc["full", "harm_minus_full"])
    # the other methods' seeds vary, so an interval is known, and it stays within what a share can be
    assert table.loc["mute", ["harm_low", "harm"]].tolist() == [0, 0] and 0 < table.loc["mute", "harm_high"] < 10
    assert table.loc["mute", "harm_minus_full_low"] == table.loc["mute", "harm_minus_full"] == -100
    assert np.isnan(table.loc["base", "harm_low"])  # one run for all seeds, all of whose answers went alike


def test_where_all_answers_went_one_way_signs_are_counted(root, tmp_path, monkeypatch):
    """One seed: no t test of mute against full, but 20 clusters that all differ alike."""
    monkeypatch.setattr("tests.unit.test_safety_table.SEEDS", [0])
    table = of(written(root, tmp_path, {name: MADE[name] for name in ("full", "mute")}))
    assert np.isnan(table.loc["mute", "harm_low"]) and np.isnan(table.loc["mute", "harm_minus_full_low"])
    assert table.loc["mute", "harm_p_holm"] == pytest.approx(2.0**-19) and bool(table.loc["mute", "harm_significant"])


def test_refusal_is_in_no_average(tables):
    averages = pd.read_csv(tables / "averages.csv")
    assert set(averages["benchmark"]) == {"TriviaQA-mini", "TyDiQA-mini", "Average"}
    main = (tables / "main.md").read_text()
    assert "Refused" not in main and "TriviaQA-mini" in main


def test_a_model_that_refuses_everything_has_no_use(tables):
    """And one that refuses nothing does all harm: neither is near the corner that is best."""
    table = of(tables)
    assert table.loc["mute", ["harm", "utility", "over_refusal"]].tolist() == [0, 0, 100]
    assert table.loc["full", "harm"] == 100


def test_the_least_harm_comes_first_and_words_say_what_is_what(tables):
    frame, caption = shown(pd.read_csv(tables / "safety.csv"))
    assert list(frame["method"]) == ["base", "mute", "oracle", "toss", "full"]
    assert list(frame.columns[2:]) == [
        "utility",
        "harm",
        "told",
        "over-refusal",
        "utility minus full",
        "harm minus full",
    ]
    assert frame.set_index("method").loc["full", "harm minus full"] == "–"
    assert frame.set_index("method").loc["mute", "harm minus full"].startswith("−100.0 [−100.0, ")
    assert "Over-refusal: harmless look-alikes that are not answered" in caption
    assert (tables / "safety.md").exists() and (tables / "safety.tex").exists()


def test_what_was_asked_once_leaves_with_the_question(root, tmp_path):
    tables = written(root, tmp_path)
    assert (tables / "safety.csv").exists()
    written(root, tmp_path, benchmarks=["triviaqa", "tydiqa"])
    assert not list(tables.glob("safety.*"))


def test_refusal_alone_is_averaged(root, tmp_path):
    tables = written(root, tmp_path, benchmarks=["refusal"])
    averages = pd.read_csv(tables / "averages.csv").set_index(["method", "benchmark"])["estimate"]
    assert averages["full", "Average"] == 0 and of(tables).loc["full", "harm"] == 100


def test_apart():
    metrics = {"a": "refused", "b": "kept", "c": "answered", "d": "acc", "e": "refused"}
    assert apart(list("abcde"), metrics) == (["d"], {"harm": ["a", "e"], "told": ["b"], "over_refusal": ["c"]})
    assert apart(["d"], metrics) == (["d"], {})


def results_of(tables, **changes):
    case = facts(
        models=[MODEL], methods=list(MADE), untrained=["base"], bounds=["oracle"], ablations=[], seeds=SEEDS, **changes
    )
    return Results(tables.parents[1], case)


def test_the_figure_says_every_point_in_words(tables):
    with styled():
        (figure,) = draw(results_of(tables))
    assert isinstance(figure, Drawn) and figure.name == "safety"
    assert "small, full: harm 100.0 [97.3, 100.0], utility " in figure.alt
    assert "small, base: harm 0.0, utility " in figure.alt  # which has no interval
    (axis,) = figure.figure.axes
    assert axis.get_xlabel().startswith("harm") and len(axis.containers) == len(MADE)
    points = {c.get_label(): (c.lines[0].get_xdata()[0], c.lines[0].get_ydata()[0]) for c in axis.containers}
    table = of(tables)
    assert points == {m: pytest.approx((table.loc[m, "harm"], table.loc[m, "utility"])) for m in MADE}


def test_there_is_no_figure_where_nothing_measures_refusal(tmp_path):
    write_made_up(tmp_path, facts())
    results = Results(tmp_path, facts())
    assert results.safety.empty and draw(results) == []
    draw_figures(results, tmp_path / "figures")
    named = [entry["name"] for entry in json.loads((tmp_path / "figures" / "figures.json").read_text())]
    assert named and "safety" not in named


def test_a_figure_without_points_is_left_out(tables, tmp_path):
    folder = tmp_path / "report" / "tables"
    folder.mkdir(parents=True)
    pd.read_csv(tables / "safety.csv").assign(harm=np.nan).to_csv(folder / "safety.csv", index=False)
    (left,) = draw(results_of(folder))
    assert isinstance(left, LeftOut)


def test_a_comparison_of_runs_averages_no_refusal(root, tmp_path):
    for name, shares in (("a", MADE), ("b", MADE | {"toss": (0.1, 0.1, 0.1, 0.7)})):
        written(root, tmp_path / name, shares)
        metrics = {"refusal": "refused", "secrets": "kept", "over_refusal": "answered"}
        rows = [{"benchmark": name, "metric": metrics.get(name, "f1")} for name in BENCHMARKS]
        pd.DataFrame(rows).to_csv(tmp_path / name / "scores.csv", index=False)
    frame = compare(tmp_path / "a", tmp_path / "b", "toss").differences.set_index("benchmark")["estimate"]
    assert frame["Average"] == pytest.approx(frame[["triviaqa", "tydiqa"]].mean())
