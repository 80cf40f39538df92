"""Numbers that are none: named, and never part of an average."""

from __future__ import annotations

import math
import subprocess
import sys

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sstoken.records.files import sha256_file
from sstoken.records.provenance import Record, read_record
from tests.campaign.runs import SMALL, Campaign, finish, launch
from tests.flow import Workflow

SHORT = SMALL | {"methods": ["base", "full", "sstoken"], "benchmarks": ["arc_easy", "triviaqa"]}


def numbers(campaign: Campaign) -> None:
    for what, case in CASES.items():
        if not campaign.over():
            campaign.count(what).add(case(campaign.flow("numbers")))


def diverging(flow: Workflow) -> str | None:
    training = {"learning_rate": 1e30, "adapter": {"rank": 4, "alpha": 8}, "micro_batch_size": 4, "accumulation": 2}
    code, text = run(flow, training=training | {"dtype": "float32"})
    if code == 0 or "diverged" not in text:
        return f"exit status {code}, without the word diverged: {text[-800:]}"
    report = [sys.executable, "-m", "sstoken", "report", "kill.yaml"]
    subprocess.run(report, cwd=flow.folder, env=flow.environment(), capture_output=True)
    return wrong_average(flow, "so-far/") or (
        None if "missing" in (flow.results("kill") / "so-far" / "status.csv").read_text() else "the hole is not named"
    )


def one_question(flow: Workflow) -> str | None:
    code, text = run(flow, evaluation={"dtype": "float32", "limit": 1, "max_gen_toks": 1})
    return wrong_average(flow) if code == 0 else text[-800:]


def half_precision(flow: Workflow) -> str | None:
    code, text = run(flow, evaluation={"dtype": "float16", "limit": 4, "max_gen_toks": 4})
    return wrong_average(flow) if code == 0 else text[-800:]


def reference_without_number(flow: Workflow) -> str | None:
    """Losses that hold a NaN, in a file that is what its record says."""
    code, text = run(flow, "--until", "losses")
    if code:
        return text[-800:]
    (path,) = flow.results("kill").glob("references/*/*/base.safetensors")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    arrays = load_file(path)
    arrays["loss"][3] = torch.nan
    save_file(arrays, path, metadata=metadata)
    record = path.with_suffix(".json")
    document = read_record(record) | {"files": {path.name: sha256_file(path)}, "content": sha256_file(path)}
    Record.rewrite(record, document)
    code, text = run(flow)
    if code and path.name in text and "finite" in text:
        return None
    return f"exit status {code}: {text[-800:]}"


CASES = {
    "learning rate 1e30: the run ends by name, its hole stands in no average": diverging,
    "one question a benchmark, answers of one token": one_question,
    "weights evaluated in half precision": half_precision,
    "NaN in a file of reference losses: refused by name": reference_without_number,
}


def run(flow: Workflow, *options: str, **changes) -> tuple[int, str]:
    flow.configuration("kill", **SHORT | changes)
    return finish(launch(flow, options=options))


def wrong_average(flow: Workflow, folder: str = "") -> str | None:
    scores = pd.read_csv(flow.results("kill") / f"{folder}scores.csv")
    if not scores["score"].map(math.isfinite).all():
        return "a score is no number"
    table = (flow.results("kill") / f"{folder}report/tables/main.csv").read_text()
    return "a mean is no number" if "nan" in table.lower() or "inf" in table.lower() else None
