"""Adding a method is one new file and one entry: shown on a copy of the repository."""

import shutil

import pandas as pd
import yaml

from tests.flow import Workflow
from tests.scorers import MINE


def test_one_file_and_one_entry_reach_the_table(tmp_path, root):
    for name in ("Snakefile", "workflow", "config", "sstoken"):
        source = root / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    (tmp_path / "sstoken" / "selection" / "methods" / "mine.py").write_text(MINE)
    with open(tmp_path / "sstoken" / "selection" / "methods" / "methods.yaml", "r+") as file:
        text = file.read().replace("  full:\n", "  mine:\n    scorer: mine\n    keep_ratio: 0.5\n  full:\n", 1)
        file.seek(0)
        file.write(text)

    class Copy(Workflow):
        def __init__(self, folder):
            self.folder = folder

        def command(self, config, *options):
            moved = {str(root / name): str(tmp_path / name) for name in ("Snakefile", "workflow/profiles/default")}
            return [moved.get(part, part) for part in super().command(config, *options)]

    flow = Copy(tmp_path)
    document = yaml.safe_load((tmp_path / "config" / "ci.yaml").read_text())
    document |= {
        "models": ["tiny-llama"],
        "methods": ["mine"],
        "benchmarks": ["arc_easy"],
        "seeds": [0],
        "experiment": "mine",
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(document))
    flow.run(path)
    scores = pd.read_csv(tmp_path / "results" / "mine" / "scores.csv")
    assert scores["method"].unique().tolist() == ["mine"]
    kept = pd.read_csv(tmp_path / "results" / "mine" / "costs.csv").query("stage == 'train'").iloc[0]
    assert 0 < kept["kept_tokens"] < kept["tokens"]
