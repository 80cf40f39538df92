"""How often intervals hold the truth and tests call noise an effect, over simulated grids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sstoken.report.statistics import estimate, holm, recovered
from sstoken.report.tables.estimates import with_average
from tests.simulation import World, simulate


def covered(world: World, grids: int, seed: int, forget: str = "") -> dict[str, float]:
    """Shares of 95 % intervals that hold the truth.

    average, benchmark: differences from full of the average, of one benchmark. worst: the average of the least covered
    method. score: the average itself. recovered: its share of the way to the oracle.

    Args:
        forget: "seeds", "passages", or "sharing" (that an entity stands in several benchmarks): what the analysis is
            not told of.
    """
    generator = np.random.default_rng(seed)
    held: dict[str, list] = {"average": [], "benchmark": [], "score": [], "recovered": []}
    full = world.methods.index("full")
    unit = np.eye(len(world.methods))
    others = [row for row in range(len(unit)) if row != full]
    for _ in range(grids):
        runs, truth_MB = simulate(world, generator)
        if forget == "seeds":
            runs = replace(runs, scores=tuple(part.mean(axis=1, keepdims=True) for part in runs.scores))
        elif forget == "passages":
            runs = replace(
                runs,
                clusters=tuple(
                    np.arange(world.questions) + task * world.questions for task in range(len(runs.clusters))
                ),
            )
        elif forget == "sharing":
            apart = [part + task * world.questions for task, part in enumerate(runs.clusters)]
            runs = replace(runs, clusters=tuple(apart))
        cells = with_average(len(runs.benchmarks))
        truth = truth_MB @ cells.T
        found = estimate(runs, np.vstack([unit[others] - unit[full], unit]), cells)
        inside = _inside(found[: len(others)].interval(), truth[others] - truth[full])
        held["average"].append(inside[:, -1])
        held["benchmark"].append(inside[:, :-1])
        held["score"].append(_inside(found[len(others) :].interval(), truth)[:, -1])
        if "oracle" in world.methods and world.effects is not None:
            way = truth[:, -1] - truth[full, -1]
            rows = [row for row in others if world.methods[row] != "oracle"]
            _, low, high = recovered(runs, cells[-1], "full", "oracle")
            held["recovered"].append(_inside((low, high), way / way[world.methods.index("oracle")])[rows])
    shares = {
        name: float(np.nanmean(np.concatenate([part.ravel() for part in parts])))
        for name, parts in held.items()
        if parts
    }
    return shares | {"worst": float(np.mean(held["average"], axis=0).min())}


def _inside(interval, truth) -> np.ndarray:
    """1 inside, 0 outside, NaN where there is no interval."""
    low, high = interval
    return np.where(np.isnan(low), np.nan, (low <= truth) & (truth <= high))


def false_alarms(world: World, grids: int, seed: int, models: int = 2) -> dict[str, float]:
    """Where no method differs, what is called significant (5 % after Holm).

    average, benchmark: share of grids with any such difference from full, over ``models`` models. called: share of the
    averages' comparisons. bold: share of grids where the best average of any model "leads" its runner-up.
    """
    generator = np.random.default_rng(seed)
    full = world.methods.index("full")
    unit = np.eye(len(world.methods))
    others = [row for row in range(len(unit)) if row != full]
    average, benchmark, called, bold = [], [], [], []
    for _ in range(grids):
        p, lead = [], []
        for _ in range(models):
            runs, _ = simulate(world, generator)
            cells = with_average(len(runs.benchmarks))
            best, second = np.argsort(-np.array([part.mean(axis=(1, 2)) for part in runs.scores]).mean(axis=0))[:2]
            found = estimate(runs, np.vstack([unit[others] - unit[full], unit[best] - unit[second]]), cells).p_value()
            p.append(found[:-1])
            lead.append(found[-1, -1])
        p = np.concatenate(p)
        found = holm(p[:, -1]) <= 0.05
        average.append(found.any())
        called.append(found.mean())
        benchmark.append((holm(p[:, :-1].ravel()) <= 0.05).any())
        bold.append((holm(np.array(lead)) <= 0.05).any())
    found = {"average": average, "benchmark": benchmark, "called": called, "bold": bold}
    return {name: float(np.mean(values)) for name, values in found.items()}


def bootstrap_covered(world: World, grids: int, seed: int, draws: int = 200) -> dict[str, float]:
    """The same for the percentile bootstrap over benchmarks (strata) x passages x seeds: the rival that was not taken."""
    generator = np.random.default_rng(seed)
    full = world.methods.index("full")
    held = []
    for _ in range(grids):
        runs, truth_MB = simulate(world, generator)
        gaps = [part - part[full] for part in runs.scores]
        found = np.zeros((draws, len(world.methods)))
        for draw in range(draws):
            seeds = generator.integers(world.seeds, size=world.seeds)
            for gap, clusters in zip(gaps, runs.clusters, strict=True):
                names, cluster = np.unique(clusters, return_inverse=True)
                size = len(names)
                counts = np.bincount(generator.integers(size, size=size), minlength=size)[cluster]
                found[draw] += (gap[:, seeds].mean(axis=1) @ counts) / counts.sum() / len(gaps)
        interval = np.quantile(found, [0.025, 0.975], axis=0)
        average = truth_MB.mean(axis=1)
        held.append(np.delete(_inside(interval, average - average[full]), full))
    return {"average": float(np.mean(held))}
