"""One run on every benchmark."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from sstoken.evaluation import EvaluationSettings, evaluate
from sstoken.jobs import device_of, each, job, run_folder
from sstoken.models.flops import Shape
from sstoken.models.load import Weights, load_tokenizer
from sstoken.records.files import atomic_write
from sstoken.records.provenance import Cost, Record, measured, read_record


def evaluate_all(records: list[Path], trained: list[bool], **options) -> None:
    """Evaluate the runs of one job. Benchmarks finished before another run failed, or before a kill, are not run again."""
    each(
        (str(record.parent), partial(evaluate_run, out=record.parent, trained=trains, **options))
        for record, trains in zip(records, trained, strict=True)
    )
    for record in records:
        shutil.rmtree(record.parent / "benchmarks", ignore_errors=True)


def evaluate_run(
    *, out: Path, trained: bool, benchmarks: list, settings: dict, data_root: str | None, device: str,
    threads: int = 1,
) -> None:  # fmt: skip
    """Score one run on every benchmark; finished benchmarks survive a crash beside the record.

    ``out`` is ``…/scores/{model}/{method}/seed{seed}``.
    """
    record, seed, root = out / "evaluation.json", int(out.name.removeprefix("seed")), out.parents[3]
    method, model = out.parent.name, out.parents[1].name
    weights = Weights(root / "models" / model, run_folder(root, model, f"{method}.seed{seed}") if trained else None)
    parts = [weights.sha256, settings, [asdict(benchmark) for benchmark in benchmarks], data_root]
    identity = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    with job(record, threads):
        if record.exists() and read_record(record).get("identity") == identity:
            return  # an orphan of a killed workflow has finished it meanwhile
        cost = Cost("evaluate", model=model, method=method, seed=seed)
        with measured(cost, device := device_of(device)):
            loaded = weights.load(dtype=settings["dtype"], device=device)
            with counted_tokens(loaded) as tokens:
                found = evaluate(
                    loaded,
                    load_tokenizer(weights.base),
                    benchmarks,
                    EvaluationSettings(**settings),
                    data_root=data_root,
                    checkpoint=out / "benchmarks",
                    weights_id=weights.sha256,
                )
            with atomic_write(out / "samples.parquet") as temporary:
                found.samples.to_parquet(temporary, index=False)
        cost.tokens = cost.forward_tokens = sum(tokens)
        cost.flops = Shape.of(loaded).forward(cost.tokens, 0, cost.tokens)
        details = {"scores": found.scores, "evaluation": found.provenance, "weights_sha256": weights.sha256}
        Record(cost, {"identity": identity, **details}).write(record)


@contextmanager
def counted_tokens(model: torch.nn.Module) -> Iterator[list[int]]:
    """Tokens of each forward pass, padding included: what the evaluation really cost."""
    passes: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append((args[0] if args else kwargs["input_ids"]).numel()), with_kwargs=True
    )
    try:
        yield passes
    finally:
        hook.remove()
