"""The workflow, run for real: Snakemake in a process of its own, results in a folder of the test's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).parents[1]
SECRET = "hf_" + "notatokenbutmustneverbewritten"  # stands for one that a user has set


class Workflow:
    """A working directory with the repository's files linked in, so that results land beside, not in, the checkout."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("Snakefile", "workflow", "config", "sstoken"):
            if not (folder / name).exists():
                (folder / name).symlink_to(ROOT / name)

    def command(self, config: Path | str, *options: str) -> list[str]:
        base = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
        profile = ["--workflow-profile", str(ROOT / "workflow" / "profiles" / "default")]
        return [*base, *profile, "--configfile", str(config), *options]

    def run(self, config: Path | str, *options: str, ok: bool = True) -> str:
        done = subprocess.run(
            self.command(config, *options), cwd=self.folder, env=self.environment(), capture_output=True, text=True
        )
        text = done.stdout + done.stderr
        assert (done.returncode == 0) is ok, text[-6000:]
        return text

    def environment(self) -> dict[str, str]:
        return os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "HF_TOKEN": SECRET}

    def configuration(self, name: str, **changes) -> Path:
        """ci.yaml with changes, as a file of its own."""
        document = yaml.safe_load((ROOT / "config" / "ci.yaml").read_text()) | {"experiment": name} | changes
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    def results(self, name: str) -> Path:
        return self.folder / "results" / name


def same_rows(part: Path, whole: Path, choice: dict[str, list]) -> None:
    """Scores and samples of some models, methods and seeds are those of a grid that has more."""
    for name, read in (("scores.csv", pd.read_csv), ("samples.parquet", pd.read_parquet)):
        mine, theirs = read(part / name), read(whole / name)
        for column, values in (("model", "models"), ("method", "methods"), ("seed", "seeds")):
            theirs = theirs[theirs[column].isin(choice[values])]
        assert len(mine) and mine.reset_index(drop=True).equals(theirs.reset_index(drop=True)), name
