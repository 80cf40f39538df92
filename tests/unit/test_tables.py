"""Tables from small made-up results: what each cell says, what a hole does, and how they read."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sstoken.report.numbers import quantity, signed
from sstoken.report.published import deviations_table, published_scores, published_table
from sstoken.report.question_scores import read_runs
from sstoken.report.statistics import holm
from sstoken.report.tables import write_tables
from sstoken.report.tables.captions import selection as selection_table
from sstoken.report.tables.costs import cost_table
from sstoken.report.tables.estimates import by_rank
from sstoken.report.tables.formats import latex, latex_cell

MODELS = ["one", "two"]
SEEDS = {"base": [0], "full": [0, 1], "sstoken": [0, 1], "oracle": [0, 1]}
LEVELS = {"base": 0.2, "full": 0.3, "sstoken": 0.35, "oracle": 0.9, "sstoken.gamma=0.25": 0.4}
BENCHMARKS = ["arc_easy", "tydiqa"]


def samples_of(methods: dict[str, list[int]], questions: int = 60, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    rows = []
    for model in MODELS:
        for benchmark in BENCHMARKS:
            easy = generator.random(questions)
            for method, seeds in methods.items():
                for run in seeds:
                    chance = 0.7 * easy + 0.3 * generator.random(questions)
                    score = (chance < LEVELS[method]).astype(float)
                    if benchmark == "tydiqa":
                        score *= 0.5
                    rows += [
                        (
                            model,
                            method,
                            run,
                            benchmark,
                            f"{benchmark}/{q}",
                            f"{benchmark}/{q // (1 + 2 * (benchmark == 'tydiqa'))}",
                            score[q],
                        )
                        for q in range(questions)
                    ]
    return pd.DataFrame(rows, columns=["model", "method", "seed", "benchmark", "question_id", "cluster_id", "score"])


def costs_of() -> pd.DataFrame:
    rows = [
        ("references", "one", "base", None, 10.0),
        ("references", "one", "reference", 0, 20.0),
        ("train", "one", "reference", 0, 5.0),
    ]
    for model in MODELS:
        for method, seeds in SEEDS.items():
            for run in seeds:
                if method != "base":
                    rows += [("train", model, method, run, 3.0 + run), ("train", model, method, run, 4.0)]
                rows.append(("evaluate", model, method, run, 7.0))
    frame = pd.DataFrame(rows, columns=["stage", "model", "method", "seed", "seconds"])
    return frame.assign(
        tokens=100,
        kept_tokens=40,
        flops=frame["seconds"] * 10,
        cpu_seconds=frame["seconds"],
        device="a CPU",
        peak_memory_bytes=2**30,
    )


@pytest.fixture
def write(tmp_path, root):
    """Write the tables of these samples, and read one back by its name."""

    def tables(samples: pd.DataFrame, folder: str = "tables", **changes):
        samples.to_parquet(tmp_path / "samples.parquet", index=False)
        costs_of().to_csv(tmp_path / "costs.csv", index=False)
        arguments = {
            "models": MODELS,
            "seeds": SEEDS,
            "benchmarks": BENCHMARKS,
            "passes": {"sstoken": [("base", None)]},
        }
        inputs = [tmp_path / "samples.parquet", tmp_path / "costs.csv", root / "sstoken" / "world" / "benchmarks.tsv"]
        write_tables(*inputs, tmp_path / folder, **(arguments | changes))

        def read(name: str):
            path = tmp_path / folder / name
            return pd.read_csv(path) if path.suffix == ".csv" else path.read_text()

        return read

    return tables


def test_averages_are_means_over_questions_then_seeds_then_benchmarks(write):
    samples = samples_of(SEEDS)
    averages = write(samples)("averages.csv")
    assert len(averages) == 2 * 4 * 3
    means = 100 * samples.groupby(["model", "method", "benchmark"])["score"].mean().unstack()
    for _, row in averages.iterrows():
        mine = means.loc[row["model"], row["method"]]
        expected = (
            mine.mean()
            if row["benchmark"] == "Average"
            else mine[{"ARC-E-mini": "arc_easy", "TyDiQA-mini": "tydiqa"}[row["benchmark"]]]
        )
        assert row["estimate"] == pytest.approx(expected)
        assert 0 <= row["low"] < row["estimate"] < row["high"] <= 100
        assert row["runs"] == len(SEEDS[row["method"]])


def test_every_pair_is_compared_both_ways_and_corrected_within_its_table(write):
    differences = write(samples_of(SEEDS))("differences.csv")
    assert len(differences) == 2 * 4 * 3 * 3
    assert not (differences["method"] == differences["against"]).any()
    keys = ["model", "method", "against", "benchmark"]
    mirrored = differences.rename(columns={"method": "against", "against": "method"}).set_index(keys)
    mine = differences.set_index(keys)
    mirrored = mirrored.loc[mine.index]
    assert np.array_equal(mine["estimate"], -mirrored["estimate"])
    assert np.allclose(mine["low"], -mirrored["high"])
    assert np.array_equal(mine["p"], mirrored["p"])
    for is_average in (True, False):
        table = differences[
            (differences["against"] == "full") & ((differences["benchmark"] == "Average") == is_average)
        ]
        assert len(table) == (6 if is_average else 12)
        assert np.allclose(table["p_holm"], holm(table["p"].to_numpy()))
    assert (differences["significant"] == (differences["p_holm"] <= 0.05)).all()
    assert (differences["mde"] > (differences["high"] - differences["low"]) / 2).all()


def test_with_one_run_each_p_is_exact_mcnemar_where_answers_are_right_or_wrong(write):
    seeds = {name: [0] for name in SEEDS}
    samples = samples_of(seeds)
    read = write(samples, seeds=seeds)
    differences, counts = read("differences.csv"), read("mcnemar.csv")
    right = samples[(samples["model"] == "one") & (samples["benchmark"] == "arc_easy")].pivot(
        index="question_id", columns="method", values="score"
    )
    only = (
        ((right["sstoken"] == 1) & (right["full"] == 0)).sum(),
        ((right["sstoken"] == 0) & (right["full"] == 1)).sum(),
    )
    expected = stats.binomtest(int(only[0]), int(sum(only))).pvalue
    pair = "model == 'one' and method == 'sstoken' and against == 'full' and benchmark == 'ARC-E-mini'"
    assert differences.query(pair)["p"].item() == pytest.approx(expected, rel=1e-10)
    row = counts.query(pair)
    assert (row["only_method"].item(), row["only_against"].item()) == only
    assert set(counts["benchmark"]) == {"ARC-E-mini"}  # TyDiQA is no right or wrong, and its questions share passages


def test_a_missing_run_empties_its_cells_and_leaves_the_others(write):
    samples = samples_of(SEEDS)
    whole = write(samples)("averages.csv")
    lost = (samples["model"] == "two") & (samples["method"] == "sstoken") & (samples["seed"] == 1)
    half = (
        (samples["model"] == "one")
        & (samples["method"] == "full")
        & (samples["seed"] == 0)
        & (samples["benchmark"] == "tydiqa")
    )
    read = write(samples[~lost & ~half])
    holes = read("averages.csv").set_index(["model", "method", "benchmark"])
    empty = holes["estimate"].isna()
    assert set(holes[empty].index.droplevel("benchmark")) == {("two", "sstoken"), ("one", "full")}
    whole = whole.set_index(["model", "method", "benchmark"])
    assert np.allclose(whole.loc[~empty, "estimate"], holes.loc[~empty, "estimate"])
    missing = read("missing.csv").astype({"seed": int})
    assert missing[["model", "method", "seed"]].to_numpy().tolist() == [["one", "full", 0], ["two", "sstoken", 1]]
    assert missing["why"][0] == "no scores of tydiqa"
    differences = read("differences.csv").query("benchmark == 'Average' and against == 'full'")
    assert differences.query("model == 'one'")["estimate"].isna().all()
    assert differences.query("model == 'two'")["estimate"].notna().sum() == 2
    assert read("recovered.csv").query("model == 'one'")["estimate"].isna().all()
    assert "| two     | sstoken  |      – |" in read("main.md")


def test_tables_of_nothing_are_empty_and_whole(write):
    read = write(samples_of(SEEDS).iloc[:0])
    assert read("averages.csv")["estimate"].isna().all()
    assert len(read("missing.csv")) == 2 * 7
    assert "oracle" in read("main.md")


def test_the_order_of_rows_and_rerunning_change_no_byte(write, tmp_path):
    samples = samples_of(SEEDS)
    write(samples, "first")
    write(samples.sample(frac=1, random_state=1), "second")
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "second").iterdir())
    for name in names:
        first, second = ((tmp_path / folder / name) for folder in ("first", "second"))
        if name.endswith((".md", ".tex")):
            assert first.read_bytes() == second.read_bytes(), name
    write(samples, "third")
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "third" / name).read_bytes(), name


@pytest.mark.parametrize("change", ["another question", "a question twice", "another passage"])
def test_runs_scored_on_different_questions_are_not_compared(tmp_path, change):
    samples = samples_of(SEEDS)
    row = samples.index[(samples["method"] == "sstoken") & (samples["benchmark"] == "arc_easy")][0]
    if change == "a question twice":
        samples = pd.concat([samples, samples.loc[[row]]])
    else:
        samples.loc[row, "question_id" if change == "another question" else "cluster_id"] = "arc_easy/new"
    samples.to_parquet(tmp_path / "samples.parquet")
    with pytest.raises(ValueError, match=r"arc_easy.*one.*same questions"):
        read_runs(tmp_path / "samples.parquet", "one", SEEDS, BENCHMARKS)


def test_the_best_is_bold_only_where_it_leads_for_sure(write):
    levels = dict(LEVELS)
    try:
        LEVELS["sstoken"] = 0.8
        sure = write(samples_of(SEEDS))
        LEVELS["sstoken"] = 0.305
        unsure = write(samples_of(SEEDS), "unsure")
    finally:
        LEVELS.update(levels)
    rows = [line for line in sure("main.md").splitlines() if "| sstoken " in line]
    assert all(row.count("**") == 6 for row in rows)
    assert "**" not in unsure("main.md").split("\n\n")[0]
    assert unsure("main.md").split("\n\n")[0].count("†") == 6
    leads = sure("leads.csv")
    assert (leads["method"] == "sstoken").all() and leads["significant"].all()
    assert "oracle" not in set(leads["method"]) | set(leads["runner_up"])
    assert r"\textbf{" in sure("main.tex") and r"\toprule" in sure("main.tex")


def test_scores_that_are_tied_have_no_best(write):
    samples = samples_of(SEEDS)
    nothing = write(samples.assign(score=0.0), "nothing")
    assert "**" not in nothing("main.md").split("\n\n")[0] and "†" not in nothing("main.md").split("\n\n")[0]
    assert nothing("leads.csv").empty
    full = samples[samples["method"] == "full"]
    alike = write(pd.concat([samples[samples["method"] != "sstoken"], full.assign(method="sstoken")]), "alike")
    assert not set(alike("leads.csv")["method"]) & {"full", "sstoken"}


def test_both_axes_are_in_every_table_of_scores(write):
    samples = samples_of(SEEDS)
    read = write(samples)
    means = 100 * samples.groupby(["model", "method", "benchmark"])["score"].mean().groupby(["model", "method"]).mean()
    axes = read("axes.csv").set_index(["model", "method"])
    for model in MODELS:
        for method in ("full", "sstoken", "oracle"):
            assert axes.loc[model, method]["taught"] == pytest.approx(means[model, method] - means[model, "base"])
        for method in ("base", "full", "sstoken"):
            row = axes.loc[model, method]
            assert row["lost"] == pytest.approx(means[model, "oracle"] - means[model, method])
            assert row["lost_low"] < row["lost"] < row["lost_high"]
    assert axes["taught"].xs("base", level="method").isna().all()
    assert axes["lost"].xs("oracle", level="method").isna().all()
    for name in ("main", "differences", "recovered", "pooled"):
        head = read(f"{name}.md").splitlines()[0]
        assert " taught " in head and " lost " in head, name


def test_leaving_the_base_as_it_was_stands_last_and_recovers_nothing(write):
    """Where training on everything hurts, doing nothing lies between full and oracle: the degenerate winner."""
    levels = {"base": 0.7, "full": 0.3, "sstoken": 0.85, "oracle": 0.9, "idle": 0.7}
    seeds = {"base": [0], "full": [0, 1], "idle": [0, 1], "sstoken": [0, 1], "oracle": [0, 1]}
    before = dict(LEVELS)
    LEVELS.update(levels)
    try:
        samples = samples_of(seeds, questions=200)
    finally:
        LEVELS.clear()
        LEVELS.update(before)
    read = write(samples, seeds=seeds)
    axes = read("axes.csv").set_index(["model", "method"])
    assert axes.loc["one", "idle"]["recovered"] > 0.5, "the share alone would praise it"
    assert axes.loc["one", "sstoken"]["teaches"] in (True, "True") and axes.loc["one", "idle"]["teaches"] in (
        False,
        "False",
    )
    rows = [line.split("|")[1:-1] for line in read("recovered.md").splitlines() if line.startswith("| one ")]
    assert [row[1].strip() for row in rows] == ["sstoken", "idle", "base"]
    assert rows[0][4].strip() != "–" and rows[1][4].strip() == rows[1][5].strip() == "–"
    order = [line.split("|")[1].strip() for line in read("pooled.md").splitlines()[2:] if line.startswith("|")]
    assert order[:2] == ["oracle", "sstoken"] and order[-1] == "base" and order.index("idle") > order.index("sstoken")


def test_what_is_not_shown_to_teach_stands_after_what_is():
    """A large gain that may be chance stands after a small one that is sure; the base and holes last."""
    rows = [("m", "chance", 9.0, False), ("m", "base", None, None), ("m", "sure", 2.0, True), ("m", "more", 3.0, True)]
    table = pd.DataFrame([*rows, ("k", "harm", -1.0, False)], columns=["model", "method", "taught", "teaches"])
    assert by_rank(table)["method"].tolist() == ["more", "sure", "chance", "base", "harm"]


def test_models_together_are_the_mean_of_the_models(write):
    samples = samples_of(SEEDS)
    read = write(samples)
    pooled = read("pooled.csv")
    assert len(pooled) == 4 * 3 * 3 and set(pooled["model"]) == {"all models"}
    single = read("differences.csv")
    key = ["method", "against", "benchmark"]
    mean = single.groupby(key)["estimate"].mean()
    assert np.allclose(pooled.set_index(key)["estimate"].sort_index(), mean.sort_index())
    width = pooled["high"] - pooled["low"]
    assert width.mean() < (single["high"] - single["low"]).mean()
    runs = 100 * samples.groupby(["model", "method", "seed"])["score"].mean()
    row = pooled.query("method == 'oracle' and against == 'full' and benchmark == 'Average'").iloc[0]
    assert (row["above"], row["pairs"]) == (4, 4)
    by_seed = samples.groupby(["model", "method", "seed", "benchmark"])["score"].mean().groupby(level=[0, 1, 2]).mean()
    above = sum(by_seed[m, "sstoken", s] > by_seed[m, "full", s] for m in MODELS for s in (0, 1))
    row = pooled.query("method == 'sstoken' and against == 'full' and benchmark == 'Average'").iloc[0]
    assert row["above"] == above and len(runs) == 14
    family = pooled[(pooled["against"] == "full") & (pooled["benchmark"] == "Average")]
    assert np.allclose(family["p_holm"], holm(family["p"].to_numpy()))


def test_one_model_alone_or_one_without_runs_is_not_pooled(write):
    samples = samples_of(SEEDS)
    assert write(samples, models=["one"])("pooled.csv").empty
    assert write(samples[samples["model"] == "one"])("pooled.csv").empty


def test_level_is_said_only_where_it_is_shown(write):
    """Many questions that both methods answer alike are level; a difference that is merely not significant is open."""
    seeds = {name: [0] for name in SEEDS}
    samples = samples_of(seeds, questions=3000)
    chosen = samples["method"] == "sstoken"
    full = samples[samples["method"] == "full"].assign(method="sstoken")
    swapped = full["question_id"].isin(["arc_easy/1", "arc_easy/2", "tydiqa/5"])
    level = pd.concat([samples[~chosen], full.assign(score=full["score"].mask(swapped, 1 - full["score"]))])
    row = "against == 'full' and method == 'sstoken' and benchmark == 'Average'"
    found = write(level, "level", seeds=seeds)
    assert found("differences.csv").query(row)["equivalent"].all()
    assert not found("differences.csv").query(row)["significant"].any()
    assert found("differences.md").count(" level ") == 2
    few = write(samples_of(SEEDS, questions=30), "few")
    open_ = few("differences.csv").query(row)
    assert not open_["equivalent"].any() and not open_["significant"].any()
    assert few("differences.md").count(" open ") >= 2


def test_ablations_are_filed_apart_from_the_main_table(write):
    methods = {**SEEDS, "sstoken.gamma=0.25": [0, 1]}
    samples = samples_of(methods)
    points = [
        {"method": "sstoken", "value": 0.25, "run": "sstoken.gamma=0.25", "against": "full", "condition": ""},
        {"method": "sstoken", "value": 0.5, "run": "sstoken", "against": "full", "condition": ""},
    ]
    read = write(samples, ablations=[{"name": "gamma", "option": "loss_weight", "models": ["one"], "points": points}])
    found = read("ablations.csv")
    assert found["value"].tolist() == [0.25, 0.5]
    mine = samples[(samples["model"] == "one") & (samples["method"] == "sstoken.gamma=0.25")]
    assert found["estimate"][0] == pytest.approx(100 * mine.groupby("benchmark")["score"].mean().mean())
    assert "gamma" not in read("main.md")
    assert not read("averages.csv")["method"].str.contains("gamma").any()


def test_costs_are_means_over_runs_with_the_references_counted_in():
    needs = {"sstoken": [("base", None)], "oracle": [("base", None), ("reference", 0)]}
    table = cost_table(costs_of(), MODELS, SEEDS | {"new": [0]}, needs).set_index(["model", "method"])
    row = table.loc["one", "oracle"]
    assert row["training_seconds"] == pytest.approx(7.5)  # two parts a run: 3 + 4 and 4 + 4
    assert row["reference_seconds"] == 35 and row["reference_flops"] == 350
    assert row["training_tokens"] == 200 and row["kept_tokens"] == 80
    assert table.loc["one", "sstoken"]["reference_seconds"] == 10
    assert table.loc["one", "base"]["training_seconds"] == 0
    assert table.loc["one", "full"]["evaluation_seconds"] == 7
    assert table.loc["one", "new"].isna().all()


def test_published_scores_stand_beside_those_of_the_same_model_method_and_benchmark():
    columns = {"mmlu": "MMLU"}
    averages = pd.DataFrame(
        [("Llama-3.2-3B", "full", "MMLU", 55.0, 54.0, 56.0), ("Llama-3.2-3B", "sstoken", "Average", 52.0, 51.0, 53.0)],
        columns=["model", "method", "benchmark", "estimate", "low", "high"],
    )
    table = published_table(averages, columns).set_index(["model", "method", "benchmark"])
    row = table.loc["Llama-3.2-3B", "full", "MMLU"]
    assert (row["published"], row["published_runs"], row["reproduced"]) == (
        pytest.approx((57.07 + 56.87 + 56.90) / 3),
        3,
        55.0,
    )
    assert table.loc["Llama-3.2-3B", "sstoken", "Average"]["published"] == 52.5
    assert table["reproduced"].notna().sum() == 2


def test_an_average_stands_beside_a_published_one_over_the_same_benchmarks():
    five = ["truthfulqa_mc2", "boolq", "logiqa", "tydiqa", "asdiv", "Average"]
    averages = pd.DataFrame(
        [("Llama-3.2-3B", "forgetting", name, 50.0, 49.0, 51.0) for name in five],
        columns=["model", "method", "benchmark", "estimate", "low", "high"],
    )
    found = published_table(averages, {}).set_index(["source", "model", "method", "benchmark"])
    assert found.loc["Forgetting, arXiv 2508.04329", "Llama-3.2-3B", "forgetting", "Average (5 tasks)"].tolist() == [
        52.18, 1, 50.0, 49.0, 51.0,
    ]  # fmt: skip
    assert found["reproduced"].notna().sum() == 1
    more = pd.concat([averages, averages.tail(1).assign(benchmark="mmlu")])
    for other in (averages[averages["benchmark"] != "boolq"], more):
        assert published_table(other, {})["reproduced"].isna().all()


def test_published_averages_are_those_of_the_published_scores():
    rows = published_scores()
    theirs = rows[rows["source"].str.startswith("TokenCleaning")].pivot(
        index=["model", "method"], columns="benchmark", values="published"
    )
    seven = theirs.drop(columns="Average (7 tasks)")
    assert seven.shape[1] == 7
    assert (seven.mean(axis=1) - theirs["Average (7 tasks)"]).abs().max() < 0.06  # rounded to one decimal


def test_every_deviation_says_what_is_done_here():
    table = deviations_table()
    assert list(table.columns) == ["point", "paper", "release", "here"]
    assert (table.map(len) > 0).all(axis=None)
    assert not table["point"].duplicated().any()


def test_the_selection_table_has_a_column_a_kind_of_noise():
    rows = [("m", "rho1", seed, "all", "all", 9, 0.6 + seed / 10, 0.5, 0.7, 0.3, 0.8, 0.9) for seed in (0, 1)]
    rows += [
        ("m", "rho1", 0, "all", "boilerplate", 9, 0.5, None, None, 0.85, None, 0.1),
        ("m", "rho1", 0, "1", "all", 9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1),
    ]
    names = ["model", "method", "seed", "phase", "kind", "tokens", "auc", "precision", "recall", "kept", "auc_kinds"]
    table = pd.DataFrame(rows, columns=[*names, "teaching_kept"])
    frame, _ = selection_table(table)
    assert frame.to_numpy().tolist() == [["m", "rho1", "0.80", "0.65", "50.0", "70.0", "90.0", "85.0"]]
    assert frame.columns.tolist()[-2:] == ["teaching kept", "boilerplate kept"]
    assert "teaching kept" not in selection_table(table.assign(teaching_kept=np.nan))[0]


def test_text_is_safe_in_latex_and_reads_well():
    assert latex_cell("a_b & 5 % **1.0 ± 2.0** †") == r"a\_b \& 5 \% \textbf{1.0 $\pm$ 2.0} $^\dagger$"
    assert signed(-0.001) == "0.00" and signed(-1.5) == "−1.50" and signed(2) == "+2.00" and signed(np.nan) == "–"
    assert quantity(114490) == "1.14e5" and quantity(6.604) == "6.6"
    table = latex(pd.DataFrame({"x_1": ["a&b"], "n": ["1"]}), ["left", "right"], "50 %", "tab:x")
    for part in (
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"x\_1 & n \\",
        r"a\&b & 1 \\",
        r"\bottomrule",
        r"\caption{50 \%}",
    ):
        assert part in table


def test_seconds_are_of_the_cpu_where_there_is_no_gpu():
    jobs = pd.DataFrame(
        [("train", "m", "full", 0, 9.0, 2.0), ("evaluate", "m", "full", 0, 5.0, 1.0)],
        columns=["stage", "model", "method", "seed", "seconds", "cpu_seconds"],
    ).assign(tokens=1, kept_tokens=1, flops=1, peak_memory_bytes=1)
    for device, expected in (("Intel(R) Xeon(R) Processor", 2.0), ("NVIDIA H100", 9.0)):
        table = cost_table(jobs.assign(device=device), ["m"], {"full": [0]}, {})
        assert table["training_seconds"].tolist() == [expected]
