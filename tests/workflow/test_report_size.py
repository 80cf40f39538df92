"""A made-up result set of the paper's size is collected, tabled, drawn and shown within minutes and 4 GB."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from sstoken.experiment.config import load_config
from sstoken.experiment.grid import Grid
from sstoken.records.provenance import Cost, software

QUESTIONS = 60_000
STEPS = 1_041  # of 50,000 samples, 48 a step
# of the questions; the other benchmarks share the rest evenly
SHARES = {"mmlu": 0.25, "triviaqa": 0.3, "hellaswag": 0.17}

STAGES = {
    "collect": """
from sstoken.report.collect import collect
names = {name: f"{grid.root}/{name}.{kind}" for name, kind in (("scores", "csv"), ("samples", "parquet"), ("costs", "csv"))}
collect(grid.evaluations(), grid.cost_records(), **names)
""",
    "tables": """
from sstoken.report.facts import table_options
from sstoken.report.tables import write_tables
folder = grid.root / "report" / "tables"
folder.mkdir(parents=True)
table = Path(grid.config["benchmarks_file"])
write_tables(grid.root / "samples.parquet", grid.root / "costs.csv", table, folder, **table_options(grid))
""",
    "figures": """
from sstoken.report.figures import draw_figures
draw_figures(results, grid.root / "report" / "figures", processes=2)
""",
    "page": """
from sstoken.report.page import render_page
render_page(results, grid.root / "report" / "index.html", config=grid.config)
""",
}
BEGIN = """
from pathlib import Path
from sstoken.experiment.config import load_config
from sstoken.experiment.grid import Grid
from sstoken.report.facts import facts_of
from sstoken.report.results import Facts, Results
grid = Grid(load_config("config/paper.yaml"))
results = Results(grid.root, Facts(**facts_of(grid)))
"""


def write_results(grid: Grid) -> int:
    """Evaluations, costs and logs of every run; returns how many rows of questions there are."""
    draw = np.random.default_rng(0)
    names = grid.config["benchmarks"]
    rest = (1 - sum(SHARES.values())) / (len(names) - len(SHARES))
    counts = [round(QUESTIONS * SHARES.get(name, rest)) for name in names]
    number = np.concatenate([np.arange(count) for count in counts])
    questions = pd.DataFrame({"benchmark": np.repeat(names, counts)})
    questions["question_id"] = questions["benchmark"] + [f"/{n}" for n in number]
    questions["cluster_id"] = questions["benchmark"] + [f"/{n // 3}" for n in number]
    hard = {model: draw.random(len(questions)) for model in grid.models}
    made, hashes = software(), {"tokens_sha256": "0" * 64, "weights_sha256": "0" * 64, "dropped_rows": []}

    def write(path, cost, **details):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"cost": asdict(cost), "software": made, **details}))

    for path in grid.evaluations():
        model, method, seed = path.parents[2].name, path.parents[1].name, int(path.parent.name.removeprefix("seed"))
        right = 0.8 * hard[model] + 0.2 * draw.random(len(questions)) < 0.55
        table = questions.assign(score=right.astype(float))
        scores = [
            {"benchmark": name, "metric": "acc", "score": part.mean(), "stderr": 0.01, "n_questions": len(part)}
            for name, part in table.groupby("benchmark", sort=False)["score"]
        ]
        write(path, Cost("evaluate", model, method, seed), scores=[row | {"task_version": "1"} for row in scores])
        table.to_parquet(path.with_name("samples.parquet"), index=False)
    row = {"loss": 1.5, "learning_rate": 1e-4, "loss_kept": 1.6, "loss_response": 1.5, "kept_share": 0.6, "epoch": 0.5}
    for path in grid.cost_records():
        if path.name == "run.json":
            model, method, seed, *_ = path.relative_to(grid.root / "runs").parts
            counted = {"response_tokens": 10_000_000, "kept_tokens": 6_000_000}
            write(path, Cost("train", model, method, int(seed.removeprefix("seed")), seconds=3600), counted=counted)
            path.with_name("log.jsonl").write_text(f"{json.dumps(row)}\n" * STEPS)
        elif not path.exists():
            write(path, Cost("tokens"), **hashes)
    return len(grid.evaluations()) * len(questions)


@pytest.mark.slow
def test_the_papers_size_takes_minutes_and_less_than_4_gb(root, tmp_path, monkeypatch):
    for name in ("config", "workflow"):
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.chdir(tmp_path)
    grid = Grid(load_config("config/paper.yaml"))
    assert write_results(grid) >= 4 * 12 * 3 * QUESTIONS
    seconds, gigabytes = {}, {}
    for stage, code in STAGES.items():
        start = time.monotonic()
        process = subprocess.Popen([sys.executable, "-c", BEGIN + code], env=os.environ | {"PYTHONPATH": str(root)})
        _, status, used = os.wait4(process.pid, 0)
        assert status == 0, stage
        seconds[stage], gigabytes[stage] = time.monotonic() - start, used.ru_maxrss / 1e6
    print({stage: f"{seconds[stage]:.0f} s, {gigabytes[stage]:.1f} GB" for stage in STAGES})
    assert sum(seconds.values()) < 300
    assert max(gigabytes.values()) < 4
    averages = pd.read_csv(grid.root / "report" / "tables" / "averages.csv")
    assert averages["estimate"].notna().all()
    assert "Llama-3.1-8B" in (grid.root / "report" / "index.html").read_text()
