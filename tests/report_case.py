"""A run's tidy tables, made up: the shape of the real ones, with numbers that a test can look for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from sstoken.report.results import AVERAGE, Facts

KINDS = ["wrong_answer", "boilerplate", "gibberish", "other_prompt", "repetition"]
BENCHMARKS = ["WinoGrande", "ARC-C", "ARC-E", "TyDiQA"]


def facts(**changes) -> Facts:
    values = {
        "experiment": "made-up",
        "models": ["small-llama", "small-qwen2"],
        "methods": ["base", "full", "random", "rho1", "sstoken", "oracle"],
        "seeds": [0, 1],
        "untrained": ["base"],
        "bounds": ["oracle"],
        "catalogue": [
            {
                "method": "rho1",
                "equation": "score_i = L_θ(x_i) - L_ref(x_i), θ = <the current model> at each step",
                "needs": "loss",
                "cost": "a reference model and 1 pass of it (shared)",
                "source": "arXiv 2404.07965, Eqs. 3 and 4",
            },
        ],
        "ablations": [
            {"name": "gamma", "option": "loss_weight", "models": ["small-llama"], "points": []},
            {"name": "layer", "option": "attention_layer", "models": ["small-llama"], "points": []},
            {"name": "noise", "option": "world.options.noise_factor", "models": ["small-llama"], "points": []},
            {"name": "length", "option": "training.epochs", "models": ["small-llama"], "points": []},
        ],
    }
    return Facts(**values | changes)


def write_tables(root: Path, case: Facts, *, truth: bool = True, seed: int = 0) -> None:
    """``report/tables/*.csv`` (and .md of some) and ``selection.csv`` below ``root``."""
    draw = np.random.default_rng(seed)
    tables = root / "report" / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    level = {m: 50 + 2.0 * place for place, m in enumerate(case.methods)}
    averages, differences, costs, selection = [], [], [], []
    for model in case.models:
        for method in case.methods:
            for benchmark in [*BENCHMARKS, AVERAGE]:
                estimate = level[method] + draw.normal() * 0.3
                row = {"model": model, "method": method, "benchmark": benchmark}
                averages.append({**row, "runs": 2, "estimate": estimate, "low": estimate - 1, "high": estimate + 1})
                if method not in ("full", "base"):
                    gap = estimate - level["full"]
                    ends = {"estimate": gap, "low": gap - 1.5, "high": gap + 1.5}
                    tests = {"p": 0.01, "p_holm": 0.03, "significant": abs(gap) > 3, "mde": 0.9, "equivalent": False}
                    differences.append({**row, "against": "full", **ends, **tests})
            if method not in case.untrained:
                reference = 3.0 if method == "rho1" else 0.0
                numbers = [6.0, reference, 3.0, 1000, 600, 1e9, 2e8, 5e8]
                names = (
                    "training_seconds reference_seconds evaluation_seconds training_tokens kept_tokens training_flops"
                )
                columns = [*names.split(), "reference_flops", "peak_memory_bytes"]
                costs.append({"model": model, "method": method, **dict(zip(columns, numbers, strict=True))})
                for phase in ("all", *"12345"):
                    for kind in ("all", *KINDS):
                        rates = {
                            "auc": draw.uniform(),
                            "kept": draw.uniform(),
                            "auc_open": np.nan,
                            "teaching_kept": 0.5,
                        }
                        both = {"precision": 0.75, "recall": 0.7, "auc_kinds": 0.4} if kind == "all" else {}
                        key = {"model": model, "method": method, "seed": 0, "phase": phase, "kind": kind}
                        selection.append({**key, "tokens": 100, **rates, **both})
    ablations = [
        {"ablation": "gamma", "option": "loss_weight", "value": value, "run": f"sstoken.gamma={value}"}
        for value in (0, 0.25, 0.5, 0.75, 1)
    ] + [
        {"ablation": "layer", "option": "attention_layer", "value": value, "run": f"sstoken.layer={value}"}
        for value in ("shallow", "middle", "deep")
    ]
    for place, row in enumerate(ablations):
        row |= {
            "model": case.models[0],
            "method": "sstoken",
            "estimate": 50 + place,
            "low": 49 + place,
            "high": 51 + place,
            "minus_full": place - 1.0,
            "minus_full_low": place - 2.0,
            "minus_full_high": float(place),
            "noise": 0.25,
        }
    ablations += [
        {
            "ablation": name,
            "option": option,
            "value": value,
            "run": f"{method}.{name}={value}",
            "model": case.models[0],
            "method": method,
            **{column: shift + 10 * value for column, shift in (("estimate", 50), ("low", 49), ("high", 51))},
            **{f"minus_full{end}": shift - value for end, shift in (("", 1.0), ("_low", 0.0), ("_high", 2.0))},
            "noise": 0.2 * value if name == "noise" else 0.25,
        }
        for name, option in (("noise", "world.options.noise_factor"), ("length", "training.epochs"))
        for method in ("rho1", "sstoken")
        for value in (0.25, 1, 2)
    ]
    axes = [
        {"model": model, "method": method, "taught": 3.0, "taught_low": 2.0, "taught_high": 4.0, "teaches": True,
         "lost": 1.0, "lost_low": 0.5, "lost_high": 1.5}
        for model in case.models for method in case.methods
    ]  # fmt: skip
    pooled = pd.DataFrame(differences).groupby(["method", "against", "benchmark"], sort=False)
    pooled = (
        pooled[["estimate", "low", "high", "p", "p_holm", "significant", "mde", "equivalent"]].first().reset_index()
    )
    pooled = pooled.assign(model="all models", above=3, pairs=4).to_dict("records")
    frames = {
        "averages": averages,
        "axes": axes,
        "pooled": pooled,
        "differences": differences,
        "costs": costs,
        "ablations": ablations,
    }
    for name, rows in frames.items():
        pd.DataFrame(rows).to_csv(tables / f"{name}.csv", index=False)
    pd.DataFrame(columns=["model", "method", "seed", "why"]).to_csv(tables / "missing.csv", index=False)
    main = pd.DataFrame(averages).pivot(index=["model", "method"], columns="benchmark", values="estimate")
    lines = ["| model | method | " + " | ".join(main.columns) + " |", "|---|---|" + "--:|" * len(main.columns)]
    lines += [f"| {m} | {n} | " + " | ".join(f"{v:.1f}" for v in row) + " |" for (m, n), *row in main.itertuples()]
    (tables / "main.md").write_text("\n".join(lines) + "\n\nScores in percent.\n")
    if truth:
        pd.DataFrame(selection).to_csv(root / "selection.csv", index=False)


def write_logs(root: Path, case: Facts) -> None:
    """``run.json`` and ``log.jsonl`` of every run of a selecting method."""
    for model in case.models:
        for method in ("rho1", "sstoken"):
            for seed in case.seeds:
                folder = root / "runs" / model / method / f"seed{seed}"
                folder.mkdir(parents=True)
                record = {
                    "cost": {"model": model, "method": method, "seed": seed, "device": "a processor"},
                    "counted": {"kept_tokens": 60, "response_tokens": 100},
                    "software": {"commit": "abc123", "versions": {"torch": "2.0"}, "platform": "Linux"},
                    "base_sha256": "0" * 64,
                    "tokens_sha256": "1" * 64,
                }
                (folder / "run.json").write_text(json.dumps(record))
                signal = "rel" if method == "sstoken" else "excess_loss"
                rows = [{f"{signal}_kept": s / 10, f"{signal}_dropped": -s / 10, "step": s} for s in range(1, 41)]
                (folder / "log.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
