"""A grid with a hole: its report shows the rest, names the hole, and averages nothing over it."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from sstoken.experiment.config import load_config
from sstoken.experiment.grid import Grid, Run
from sstoken.experiment.redraw import AT_LEAST, REFRESH, SO_FAR, Redraw
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


def test_the_page_of_a_running_grid_is_drawn_again_and_leads_on_to_the_finished_one(ci, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(root))
    for name in ("config", "workflow", "sstoken"):
        (tmp_path / name).symlink_to(root / name)
    results = Path("results", "ci")
    shutil.copytree(ci.results("ci"), results)
    Grid(load_config("config/ci.yaml")).evaluation_record(Run("tiny-llama", "sstoken", 1)).unlink()
    clock, said = [0.0], []
    redraw = Redraw(results, said.append, now=lambda: clock[0])
    redraw()
    assert redraw.process is None  # a short run needs none
    clock[0] = AT_LEAST
    redraw()
    drawn = redraw.process
    redraw()  # at work
    assert redraw.process is drawn and drawn.wait() == 0, (results / "logs" / "so-far.log").read_text()
    clock[0] += 8
    redraw()
    page = results / SO_FAR / "report" / "index.html"
    assert said == [f"The page so far, drawn again as results come: {page}"]
    assert redraw.process is None and redraw.next == clock[0] + AT_LEAST  # not before
    assert f'content="{REFRESH}"' in page.read_text() and "The experiment is running" in page.read_text()
    assert "The experiment is running" not in (ci.results("ci") / "report" / "index.html").read_text()
    clock[0] += AT_LEAST
    redraw()
    assert (
        page.exists() and redraw.process.poll() is None
    )  # a browser that reads it while it is drawn finds the last one
    late = redraw.process
    redraw.failed()
    assert late.poll() is not None and "The experiment is running" not in page.read_text()  # it shows what there is
    clock[0] += AT_LEAST
    redraw()
    assert redraw.process is late  # nothing is drawn any more
    redraw.finished()
    assert "url=../../report/index.html" in page.read_text()
    assert (page.parent / "../../report/index.html").resolve() == (results / "report" / "index.html").resolve()
