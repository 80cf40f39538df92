"""The embedded world as an instrument: fine-tuning teaches, noise costs, and doing little loses, on every base model."""

import pandas as pd
import pytest
import yaml

BOUNDS = ["base", "full", "random", "easiest", "tenth-rate", "oracle", "clean"]
FEWEST_IN_RANGE = {"as-shipped": 8}
"""Benchmarks on which clean training stands between chance + 5 and 95; other worlds were not chosen by it."""


def judged(tables, chance: pd.Series) -> pd.DataFrame:
    """Model -> what docs/world.md asks of a world, from a finished grid's tables."""
    differences = pd.read_csv(tables / "differences.csv")

    def of(method, against, benchmarks="Average"):
        """estimate, low of method - against, which the table may hold the other way round."""
        rows, sign = differences[(differences["method"] == method) & (differences["against"] == against)], 1
        if rows.empty:
            rows, sign = differences[(differences["method"] == against) & (differences["against"] == method)], -1
        rows = rows[(rows["benchmark"] == "Average") == (benchmarks == "Average")].set_index("model")
        ends = [sign * rows["low"], sign * rows["high"]]
        return pd.DataFrame({"estimate": sign * rows["estimate"], "low": pd.concat(ends, axis=1).min(axis=1)})

    averages = pd.read_csv(tables / "averages.csv").query("method == 'clean' and benchmark != 'Average'")
    floor = averages["benchmark"].map(chance) * 100 + 5
    within = averages["estimate"].between(floor, 95)
    found = {
        "clean - base": of("clean", "base")["estimate"],
        "benchmarks above base": (of("clean", "base", "each")["low"] > 0).groupby(level="model").sum(),
        "full - base, low": of("full", "base")["low"],
        "oracle - full": of("oracle", "full")["estimate"],
        "oracle - full, low": of("oracle", "full")["low"],
        "oracle - nearest of doing little": pd.concat(
            [of("oracle", idle)["estimate"] for idle in ("base", "easiest", "tenth-rate")], axis=1
        ).min(axis=1),
        "benchmarks in range": within.groupby(averages["model"]).sum(),
    }
    return pd.DataFrame(found)


def test_differences_are_read_whichever_way_round_they_stand(tmp_path):
    """The proof below, on a table of two benchmarks."""
    rows = [
        (m, a, b, k, value, value - 2, value + 2)
        for m, a, b, values in (
            ("one", "base", "clean", (-12, -3, -1)), ("one", "base", "full", (-5, -4, -6)),
            ("one", "oracle", "full", (6, 6, 6)), ("one", "oracle", "easiest", (7, 7, 7)), ("one", "oracle", "base", (9, 9, 9)),
        )
        for k, value in zip(("Average", "a", "b"), values, strict=True)
    ]  # fmt: skip
    columns = ["model", "method", "against", "benchmark", "estimate", "low", "high"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "differences.csv")
    averages = [("one", "clean", k, value) for k, value in (("Average", 60), ("a", 29), ("b", 96))]
    averages += [("one", "base", "a", 60), ("one", "base", "b", 60)]
    named = pd.DataFrame(averages, columns=["model", "method", "benchmark", "estimate"])
    named.to_csv(tmp_path / "averages.csv")
    found = judged(tmp_path, pd.Series({"a": 0.25, "b": 0.25})).loc["one"]
    assert found.to_dict() == {
        "clean - base": 12, "benchmarks above base": 1, "full - base, low": 3, "oracle - full": 6, "oracle - full, low": 4,
        "oracle - nearest of doing little": 7, "benchmarks in range": 0,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "world"),
    [
        ("as-shipped", {}),
        ("other-rows", {"seed": 1}),
        # other names and facts, and bases of its own: 20 minutes of a core
        ("other-facts", {"pretrain_share": 1, "options": {"facts": 1}}),
    ],
)
def test_fine_tuning_teaches_noise_costs_and_doing_little_loses(workflow, root, name, world):
    document = yaml.safe_load((root / "config" / "config.yaml").read_text())
    changes = {"experiment": name, "methods": BOUNDS, "ablations": [], "world": world}
    path = workflow.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document | changes))
    workflow.run(path)
    benchmarks = pd.read_csv(root / "sstoken" / "world" / "benchmarks.tsv", sep="\t", comment="#")
    found = judged(workflow.results(name) / "report" / "tables", benchmarks.set_index("column")["chance"])
    assert sorted(found.index) == sorted(document["models"])
    least = {
        "clean - base": 10,
        "benchmarks above base": 6,
        "full - base, low": 0,
        "oracle - full": 5,
        "oracle - full, low": 0,
        "oracle - nearest of doing little": 5,
        "benchmarks in range": FEWEST_IN_RANGE.get(name, 6),
    }
    assert (found >= pd.Series(least)[found.columns]).all(axis=None), found
