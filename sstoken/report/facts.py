"""What the grid asked for, as the report is told it: plain values, which the workflow can compare from run to run."""

from __future__ import annotations

from dataclasses import asdict

from sstoken.experiment.catalogue import cost_of, equation_of, plain
from sstoken.experiment.grid import Grid
from sstoken.records.documents import read_yaml
from sstoken.selection.methods import METHODS_FILE, Method


def facts_of(grid: Grid) -> dict:
    """Fields of ``sstoken.report.results.Facts``."""
    methods = grid.methods.items()
    shipped = read_yaml(METHODS_FILE)["methods"]
    sources = (grid.config.get("data") or {}).get("train", {}).get("sources", [])
    entries = {name: (entry.family, entry.size, entry.source) for name, entry in grid.models.items()}
    return {
        "experiment": grid.config["experiment"],
        "models": list(grid.models),
        "methods": list(grid.methods),
        "seeds": grid.seeds,
        "untrained": [name for name, method in methods if not method.trains],
        "catalogue": [_described(name, method) for name, method in methods],
        "own": [name for name in grid.methods if name not in shipped],
        "bounds": [n for n, m in methods if m.trains and ("truth" in m.needs or m.data != "train")],
        "ablations": [asdict(ablation) for ablation in grid.ablations],
        "described": {
            name: dict(zip(("family", "size", "source"), entry, strict=True)) for name, entry in entries.items()
        },
        "sources": list(sources),
        "made_up": bool(sources) and all("{world}" in source for source in sources),
        "data_per_seed": grid.draw("train", grid.seeds[0]) is not None,
        "labelled": bool(grid.noisy_runs()),
        "miniatures": "{world}" in (grid.config["benchmarks_data"] or ""),
    }


def _described(name: str, method: Method) -> dict[str, str]:
    return {
        "method": name,
        "equation": plain(equation_of(method)),
        "needs": ", ".join(sorted(method.needs)),
        "cost": cost_of(method),
        "source": " ".join(method.source.split()),
    }


def table_options(grid: Grid) -> dict:
    """Keyword arguments of ``sstoken.report.tables.write_tables``."""
    return {
        "models": list(grid.models),
        "seeds": {method: grid.reported_seeds(method) for method in grid.methods},
        "benchmarks": grid.config["benchmarks"],
        "passes": grid.passes(),
        "ablations": [asdict(ablation) for ablation in grid.ablations],
    }
