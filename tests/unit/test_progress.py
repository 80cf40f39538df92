"""What is left, from what was done."""

import json
import time

from sstoken.experiment.config import load_config
from sstoken.experiment.grid import Grid
from sstoken.experiment.progress import Progress


def write(path, seconds):
    path.write_text(json.dumps({"cost": {"seconds": seconds}}))


def test_time_left_follows_stage_and_model(tmp_path):
    clock = [0.0]
    records = {tmp_path / f"small{i}": ("trained", "small") for i in range(3)}
    records |= {tmp_path / f"large{i}": ("trained", "large") for i in range(2)}
    write(tmp_path / "small0", 999)  # of an earlier run: its speed says nothing about this machine
    progress = Progress(records, now=lambda: clock[0])
    assert progress.line() == "trained 1 of 5; time left is not known yet"
    write(tmp_path / "small1", 1)
    write(tmp_path / "large0", 100)
    clock[0] = 50.5  # two jobs at a time
    # left: a small one (mean of 999 and 1) and a large one (100), at two seconds of work a second
    assert progress.line() == "trained 3 of 5; about 5 minutes left"
    for name in ("small2", "large1"):
        write(tmp_path / name, 1)
    assert progress.line() == "trained 5 of 5; all done"


def test_a_stage_that_has_not_begun_is_not_guessed(tmp_path):
    clock = [0.0]
    records = {tmp_path / f"{stage}{i}": (stage, "m") for stage in ("trained", "evaluated") for i in range(2)}
    progress = Progress(records, now=lambda: clock[0])
    write(tmp_path / "trained0", 100)
    clock[0] = 100.0
    assert progress.line() == "trained 1 of 2, evaluated 0 of 2; about 2 minutes until all are trained"
    write(tmp_path / "trained1", 100)
    clock[0] = 200.0
    assert progress.line() == "trained 2 of 2, evaluated 0 of 2; time left is not known yet"
    write(tmp_path / "evaluated0", 20)
    clock[0] = 220.0
    assert progress.line() == "trained 2 of 2, evaluated 1 of 2; about 20 seconds left"


def test_it_speaks_when_something_is_done(tmp_path):
    said = []
    stop = Progress({tmp_path / "a": ("trained", "m")}).watch(said.append, every=0.02)
    time.sleep(0.2)
    assert said == []
    write(tmp_path / "a", 1)
    deadline = time.monotonic() + 5
    while not said and time.monotonic() < deadline:
        time.sleep(0.02)
    stop.set()
    assert said == ["trained 1 of 1; all done"]


def test_a_record_of_another_ticket_is_still_to_be_made(tmp_path):
    path = tmp_path / "a"
    path.write_text(json.dumps({"cost": {"seconds": 1}, "ticket": "of the old formula"}))
    progress = Progress({path: ("trained", "m")}, {path: "of the new"})
    assert progress.line().startswith("trained 0 of 1")
    path.write_text(json.dumps({"cost": {"seconds": 1}, "ticket": "of the new"}))
    assert progress.line() == "trained 1 of 1; all done"


def test_a_models_table_is_told_once_and_as_soon_as_it_is_there(tmp_path):
    def score(name, *values):
        rows = [{"benchmark": name, "score": value} for name, value in zip("ab", values, strict=True)]
        rows.append({"benchmark": "heldout", "score": 0.99})  # in no average
        (tmp_path / name).write_text(json.dumps({"cost": {"seconds": 1}, "scores": rows}))

    records = {
        tmp_path / f"{m}{r}{s}": ("evaluated", m) for m in ("one", "two") for r in ("base", "full") for s in "01"
    }
    tables = {m: {r: [tmp_path / f"{m}{r}{s}" for s in "01"] for r in ("base", "full")} for m in ("one", "two")}
    progress = Progress(records, None, tables)
    score("onebase0", 0.5, 0.7)
    score("onebase1", 0.1, 0.3)
    score("onefull0", 1, 0)
    progress.line()
    assert progress.first_table() == ""
    score("onefull1", 1, 0.5)
    progress.line()
    assert progress.first_table().splitlines()[1:] == ["  base  40.00", "  full  62.50"]
    assert progress.first_table() == ""
    assert list(Progress(records, None, tables).tables) == ["two"]


def test_where_held_out_loss_is_all_there_is_it_is_told(tmp_path):
    row = {"benchmark": "heldout", "score": 0.25}
    progress = Progress({tmp_path / "a": ("evaluated", "one")}, None, {"one": {"base": [tmp_path / "a"]}})
    (tmp_path / "a").write_text(json.dumps({"cost": {"seconds": 1}, "scores": [row]}))
    progress.line()
    assert "25.00" in progress.first_table()


def test_benchmarks_that_stand_in_no_average_are_in_none_here(tmp_path):
    tables = {"one": {"base": [tmp_path / "a"]}}
    progress = Progress({tmp_path / "a": ("evaluated", "one")}, None, tables, apart=["refusal"])
    rows = [{"benchmark": "refusal", "score": 1.0}, {"benchmark": "triviaqa", "score": 0.25}]
    (tmp_path / "a").write_text(json.dumps({"cost": {"seconds": 1}, "scores": rows}))
    progress.line()
    assert "25.00" in progress.first_table()


def test_a_grids_first_seed_is_told_before_its_tables_and_its_refusals_stand_apart(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = Grid(load_config(root / "config" / "safety.yaml"))
    progress = Progress.of(grid, {})
    first, *models = progress.tables
    assert first == f"Seed {grid.seeds[0]} of {models[0]}" and models == list(grid.models)
    assert {len(paths) for paths in progress.tables[first].values()} == {1} and len(grid.seeds) > 1
    assert progress.tables[first].keys() == progress.tables[models[0]].keys()
    assert progress.apart == {"heldout", "refusal", "over_refusal", *grid.refusal_benchmarks}


def test_what_comes_after_a_first_table_is_called_from_then_on(tmp_path):
    called, said = [], []
    write(tmp_path / "a", 1)
    tables = {"m": {"full": [tmp_path / "b"]}}
    progress = Progress({tmp_path / name: ("trained", "m") for name in "abc"}, tables=tables)
    stop = progress.watch(said.append, every=0.02, then=lambda: called.append(len(said)))
    (tmp_path / "b").write_text(json.dumps({"cost": {"seconds": 1}, "scores": [{"benchmark": "a", "score": 0.5}]}))
    deadline = time.monotonic() + 5
    while not called and time.monotonic() < deadline:
        time.sleep(0.02)
    stop.set()
    assert called and called[0] == 2 and said[1].startswith("m is done")
