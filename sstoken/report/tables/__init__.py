"""``report/tables``: every table as CSV, and as Markdown and LaTeX where a person would read it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sstoken.records.documents import pick, read_table
from sstoken.report.published import deviations_table, published_table
from sstoken.report.question_scores import AVERAGE, MISSING_COLUMNS, pooled, read_runs
from sstoken.report.tables import captions, heldout, safety
from sstoken.report.tables.ablations import CLAIM, ablation_tables, main_claims
from sstoken.report.tables.costs import cost_table
from sstoken.report.tables.estimates import (
    ALL_MODELS,
    AVERAGES,
    AXES,
    BASELINE,
    BOUNDS,
    CEILING,
    MCNEMAR,
    POOLED,
    RECOVERED,
    axes,
    complete,
    concat,
    differences,
    leads,
    main_table,
    model_tables,
    pooled_differences,
)
from sstoken.report.tables.formats import write_csv, write_text

PUBLISHED_BENCHMARKS = "sstoken/evaluation/benchmarks.tsv"


def write_tables(
    samples: Path,
    costs: Path,
    benchmarks_file: Path,
    folder: Path,
    *,
    models: list[str],
    seeds: dict[str, list[int]],
    benchmarks: list[str],
    passes: dict[str, list],
    ablations: list[dict] = (),
    selection: Path | None = None,
) -> None:
    """Write every table of the report into ``folder``.

    Args:
        samples, costs: of ``collect``. benchmarks_file: names and display names.
        models, benchmarks: in the order of the report. seeds: method -> its seeds, in the order of the report.
        passes: see ``cost_table``. ablations: see ``ablation_tables``. selection: ``selection.csv``, where data carries truth.

    Raises:
        ValueError: runs that were scored on different questions.
    """
    if selection is None:
        for kind in ("csv", "md", "tex"):  # of rows that carried labels once
            (folder / f"selection.{kind}").unlink(missing_ok=True)
    for kind in ("csv", "md", "tex"):  # of benchmarks that were asked for once
        (folder / f"safety.{kind}").unlink(missing_ok=True)
    table = read_table(benchmarks_file, "benchmarks")
    known = {row["name"]: row["column"] for row in table}
    published = {row["name"]: row["column"] for row in read_table(PUBLISHED_BENCHMARKS, "benchmarks")}
    metrics = {row["name"]: row["metric"] for row in table}
    benchmarks, refusal = safety.apart(benchmarks, metrics)
    benchmarks, held = heldout.apart(benchmarks, metrics)
    columns = pick("benchmark", benchmarks, known, benchmarks_file)
    titles = [*columns.values(), AVERAGE]
    found, missing, complete_runs = [], [], []
    for model in models:
        runs, holes = read_runs(samples, model, seeds, benchmarks)
        missing.append(holes)
        if runs.methods:
            found.append(model_tables(runs, columns))
            complete_runs.append(runs)

    methods = list(seeds)
    scores = complete(
        concat([part.averages for part in found], AVERAGES), {"model": models, "method": methods, "benchmark": titles}
    )
    pairs = differences([part.differences for part in found], models, methods, titles)
    best = leads(scores, pairs, [method for method in methods if method not in BOUNDS])
    between = [method for method in methods if method not in (BASELINE, CEILING)]
    share = complete(concat([part.recovered for part in found], RECOVERED), {"model": models, "method": between})
    both_axes = axes(pairs, share, models, methods)
    over_models = pd.DataFrame(columns=POOLED)
    if len(complete_runs) == len(models) > 1:
        whole = pooled(complete_runs, ALL_MODELS)
        if whole.methods:
            together = model_tables(whole, columns)
            over_models = pooled_differences(complete_runs, whole, together.differences, methods, titles)
            both_axes = concat([both_axes, axes(over_models, together.recovered, [ALL_MODELS], methods)], AXES)
    truth = pd.read_csv(selection) if selection is not None else None
    ablated, at_values, holes = ablation_tables(samples, models, seeds, benchmarks, list(ablations), truth)
    claims = concat([main_claims(concat([pairs, over_models], list(pairs.columns))), at_values], CLAIM)
    tidy = {
        "averages": scores,
        "differences": pairs,
        "pooled": over_models,
        "axes": both_axes,
        "leads": best,
        "recovered": share,
        "mcnemar": concat([part.mcnemar for part in found], MCNEMAR),
        "main": main_table(scores, titles, both_axes),
        "ablations": ablated,
        "claims": claims,
        "costs": cost_table(pd.read_csv(costs), models, seeds, passes),
        "published": published_table(scores, published),
        "deviations": deviations_table(),
        "missing": concat([*missing, holes], MISSING_COLUMNS).drop_duplicates(),
    }
    if held:
        tidy["heldout"] = heldout.heldout_table(samples, models, seeds, held)
    if refusal:
        tidy["safety"] = safety.safety_table(samples, models, seeds, refusal, pairs, scores)
    for name, frame in tidy.items():
        write_csv(frame, folder / f"{name}.csv")
    texts = {
        "main": captions.main(tidy["main"], best, titles),
        "differences": captions.differences(pairs, both_axes),
        "pooled": captions.pooled(over_models, both_axes, len(models)),
        "recovered": captions.recovered(both_axes),
        "costs": captions.costs(tidy["costs"]),
        "claims": captions.claims(claims),
        "published": captions.published(tidy["published"]),
        "deviations": captions.deviations(tidy["deviations"]),
    }
    if held:
        texts["heldout"] = heldout.shown(tidy["heldout"])
    if refusal:
        texts["safety"] = safety.shown(tidy["safety"])
    texts |= {f"ablation-{a['name']}": captions.ablation(ablated[ablated["ablation"] == a["name"]]) for a in ablations}
    if truth is not None:
        texts["selection"] = captions.selection(truth)
    for name, (frame, caption) in texts.items():
        write_text(frame, folder / name, caption)
