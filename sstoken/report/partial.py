"""The report of a grid that is not finished, or has failed.

``python -m sstoken.report.partial CONFIG [key=value …] [--refresh=SECONDS]``

What is current is tabled, drawn and shown in ``results/{experiment}/so-far``; what is missing or stale is named, and nothing is
averaged over it.  The workflow's own files are left alone.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from sstoken.experiment.config import load_config, settings_of
from sstoken.experiment.grid import Grid
from sstoken.experiment.redraw import SO_FAR
from sstoken.experiment.status import status, write_status
from sstoken.records.documents import ConfigError
from sstoken.report.collect import collect
from sstoken.report.facts import facts_of, table_options
from sstoken.report.figures import draw_figures
from sstoken.report.page import render_page
from sstoken.report.results import Facts, Results
from sstoken.report.selection_scores import write_selection
from sstoken.report.tables import write_tables
from sstoken.selection.methods import MethodError

REFRESH = "--refresh="
SHARED = ("runs", "scores", "models", "tokens", "references", "data")


def render_partial(grid: Grid, refresh: int | None = None) -> Path:
    """Render what there is; returns the page.

    Args:
        refresh: seconds after which a browser is to read the page again; None: never.

    Raises:
        ConfigError: no run has been evaluated yet.
    """
    states = status(grid)
    current = {state.record for state in states if state.state == "current"}
    evaluations = [path for path in grid.evaluations() if path in current]
    if not evaluations:
        raise ConfigError(f"{grid.root}: no run has been evaluated yet; `make reproduce` starts the grid")
    out = grid.root / SO_FAR
    out.mkdir(exist_ok=True)
    for name in ("figures", "tables"):  # of results that were current once; the page stays until it is replaced
        shutil.rmtree(out / "report" / name, ignore_errors=True)
    for name in SHARED:
        if (out / name).is_dir() and not (out / name).is_symlink():
            shutil.rmtree(out / name)  # a copy of the results that followed links left it
        if (grid.root / name).exists() and not (out / name).is_symlink():
            (out / name).symlink_to(Path("..") / name)
    samples, costs = out / "samples.parquet", out / "costs.csv"
    write_status(states, out / "status.csv", grid.root)
    records = [path for path in grid.cost_records() if path in current]
    collect(evaluations, records, scores=out / "scores.csv", samples=samples, costs=costs)
    trained = [run for run in grid.noisy_runs() if grid.run_record(run) in current]
    selection = out / "selection.csv" if trained else None
    (out / "selection.csv").unlink(missing_ok=True)  # of runs that were current once
    if selection:
        write_selection([grid.selection_source(run) for run in trained], selection)
    tables = out / "report" / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    write_tables(
        samples, costs, Path(grid.config["benchmarks_file"]), tables, selection=selection, **table_options(grid)
    )
    results = Results(out, Facts(**facts_of(grid)))
    draw_figures(results, out / "report" / "figures")
    render_page(results, out / "report" / "index.html", config=grid.config, refresh=refresh)
    return out / "report" / "index.html"


def main(arguments: list[str]) -> None:
    path, *words = arguments
    settings = [word for word in words if not word.startswith(REFRESH)]
    refresh = next((int(word.removeprefix(REFRESH)) for word in words if word.startswith(REFRESH)), None)
    try:
        print(render_partial(Grid(load_config(path, **settings_of(settings))), refresh))
    except (ConfigError, MethodError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
