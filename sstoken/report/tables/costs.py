"""What each method cost a run, the passes over other models' weights that it rests on counted in."""

from __future__ import annotations

import pandas as pd

from sstoken.records.devices import is_gpu

COLUMNS = [
    "model",
    "method",
    "training_seconds",
    "reference_seconds",
    "evaluation_seconds",
    "training_tokens",
    "kept_tokens",
    "training_flops",
    "reference_flops",
    "peak_memory_bytes",
]


def cost_table(
    costs: pd.DataFrame, models: list[str], seeds: dict[str, list[int]], passes: dict[str, list[tuple[str, int | None]]]
) -> pd.DataFrame:
    """Mean over a method's runs; a chain's parts are summed.  Empty where a run is missing.

    Args:
        costs: rows of ``costs.csv``. seeds: method -> its seeds.
        passes: method -> (weights, their seed or None for the base) that its scores are measured with: their training and
            their loss passes over the data are attributed in full to every method that needs them.

    Returns:
        ``COLUMNS``; training_* of the method's own runs (its scoring inside the step included), reference_* as above,
        seconds and FLOPs a run, peak memory the largest of the training jobs.  Seconds are of the wall on a GPU; without one
        CPU seconds, which scatter less on a shared machine.
    """
    jobs = costs.astype({"seed": "Int64"})
    jobs["seconds"] = jobs["seconds"].where(jobs["device"].map(is_gpu), jobs["cpu_seconds"])
    runs = jobs[jobs["stage"].isin(["train", "evaluate"])]
    sums = runs.groupby(["stage", "model", "method", "seed"])[["seconds", "tokens", "kept_tokens", "flops"]].sum()
    peak = runs[runs["stage"] == "train"].groupby(["model", "method"])["peak_memory_bytes"].max()
    rows = []
    for model in models:
        for method, theirs in seeds.items():
            train = [sums.loc[key] for s in theirs if (key := ("train", model, method, s)) in sums.index]
            evaluate = [sums.loc[key] for s in theirs if (key := ("evaluate", model, method, s)) in sums.index]
            if len(evaluate) < len(theirs) or len(train) not in (0, len(theirs)):
                rows.append({"model": model, "method": method})
                continue
            total = sum(train[1:], train[0]) / len(theirs) if train else pd.Series(0, sums.columns)
            needed = _passes(jobs[jobs["model"] == model], passes.get(method, []))
            rows.append(
                {
                    "model": model,
                    "method": method,
                    "training_seconds": total["seconds"],
                    "reference_seconds": needed["seconds"],
                    "evaluation_seconds": sum(row["seconds"] for row in evaluate) / len(theirs),
                    "training_tokens": total["tokens"],
                    "kept_tokens": total["kept_tokens"],
                    "training_flops": total["flops"],
                    "reference_flops": needed["flops"],
                    "peak_memory_bytes": peak.get((model, method)),
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def _passes(jobs: pd.DataFrame, needed: list[tuple[str, int | None]]) -> pd.Series:
    total = pd.Series({"seconds": 0.0, "flops": 0.0})
    for weights, seed in needed:
        theirs = jobs[(jobs["method"] == weights) & (jobs["seed"].isna() if seed is None else jobs["seed"] == seed)]
        spent = theirs.loc[theirs["stage"].isin(["references", "train"]), ["seconds", "flops"]]
        # of the base there is a pass for each draw of the rows, and a run needs one
        total += spent.sum() if seed is not None or spent.empty else spent.mean()
    return total
