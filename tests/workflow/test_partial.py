"""A grid with a hole: its report shows the rest, names the hole, and averages nothing over it."""

import shutil

import pandas as pd
import pytest

from sstoken.experiment.config import load_config
from sstoken.experiment.grid import Grid, Run
from sstoken.records.documents import ConfigError
from sstoken.report.partial import render_partial


def test_what_is_done_is_shown_and_what_is_missing_is_named(ci, root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    grid = Grid(load_config("config/ci.yaml"))
    monkeypatch.chdir(tmp_path)
    for name in ("config", "workflow"):
        (tmp_path / name).symlink_to(root / name)
    with pytest.raises(ConfigError, match="no run has been evaluated yet"):
        render_partial(grid)
    shutil.copytree(ci.results("ci"), grid.root)
    lost = Run("tiny-llama", "sstoken", 1)
    grid.evaluation_record(lost).unlink()
    page = render_partial(grid)
    tables = page.parent / "tables"
    missing = pd.read_csv(tables / "missing.csv")
    assert missing[["model", "method", "seed"]].values.tolist() == [["tiny-llama", "sstoken", 1]]
    average = pd.read_csv(tables / "averages.csv").set_index(["model", "method", "benchmark"])["estimate"].sort_index()
    assert average["tiny-llama", "sstoken"].isna().all()
    whole = pd.read_csv(ci.results("ci") / "report" / "tables" / "averages.csv")
    expected = whole.set_index(["model", "method", "benchmark"])["estimate"].sort_index()
    assert average["tiny-qwen2", "sstoken"].equals(expected["tiny-qwen2", "sstoken"])
    assert "tiny-llama" in page.read_text() and "missing" in page.read_text().lower()
    assert not list((page.parent / "figures").glob("*tmp*"))
