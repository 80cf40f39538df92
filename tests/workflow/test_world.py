"""The embedded world as an instrument: it tells a run on clean tokens from one on all of them, on every base model."""

import pandas as pd
import pytest
import yaml

BOUNDS = ["base", "full", "random", "oracle", "clean"]


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
def test_every_base_resolves_the_noise(workflow, root, name, world):
    document = yaml.safe_load((root / "config" / "config.yaml").read_text())
    changes = {"experiment": name, "methods": BOUNDS, "ablations": [], "world": world}
    path = workflow.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document | changes))
    workflow.run(path)
    tables = workflow.results(name) / "report" / "tables"
    differences = pd.read_csv(tables / "differences.csv").query("benchmark == 'Average'")
    gap = differences.query("method == 'oracle' and against == 'full'").set_index("model")
    assert list(gap.index) == document["models"]
    assert (gap["estimate"] >= 5).all(), gap
    assert (gap["low"] > 0).all(), gap
    chance = pd.read_csv(root / "sstoken" / "world" / "benchmarks.tsv", sep="\t", comment="#").set_index("column")[
        "chance"
    ]
    averages = pd.read_csv(tables / "averages.csv").query("method == 'base' and benchmark != 'Average'")
    floor = averages["benchmark"].map(chance) * 100 + 5
    within = averages["estimate"].between(floor, 95)
    assert (within.groupby(averages["model"]).sum() >= 8).all(), averages
