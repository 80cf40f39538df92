"""One run on every benchmark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from sstoken.evaluation import Benchmark, EvaluationSettings, benchmark_identity, evaluate
from sstoken.jobs import device_of, each, job, run_folder
from sstoken.models.flops import Shape
from sstoken.models.load import Weights, load_tokenizer
from sstoken.records.files import sha256_file, whole_folder
from sstoken.records.identity import LENGTH, name_of
from sstoken.records.provenance import Cost, Record, measured
from sstoken.records.ticket import ChangedMeanwhile, Ticket, intact


def evaluate_all(records: list[Path], trained: list[bool], tickets: list[Ticket], **options) -> None:
    """Evaluate the runs of one job. Benchmarks finished before another run failed, or before a kill, are not run again."""
    each(
        (str(record.parent), partial(evaluate_run, out=record.parent, trained=trains, ticket=ticket, **options))
        for record, trains, ticket in zip(records, trained, tickets, strict=True)
    )


def evaluate_run(
    *, out: Path, trained: bool, ticket: Ticket, benchmarks: list[Benchmark], settings: dict, data_root: str | None,
    device: str, threads: int = 1,
) -> None:  # fmt: skip
    """Score one run on every benchmark; those whose scores are there, by their identity, are not run again.

    ``out`` is ``…/scores/{model}/{method}/seed{seed}``.
    """
    record, seed, root = out / "evaluation.json", int(out.name.removeprefix("seed")), out.parents[3]
    method, model = out.parent.name, out.parents[1].name
    weights = Weights(root / "models" / model, run_folder(root, model, f"{method}.seed{seed}") if trained else None)
    with job(record, threads, ticket) as finished:
        if finished:
            return
        _check(benchmarks, EvaluationSettings(**settings), ticket, data_root)
        known = Known(record, benchmarks, ticket)
        cost = Cost("evaluate", model=model, method=method, seed=seed)
        checkpoint = out / "benchmarks"
        with measured(cost, device := device_of(device)):
            loaded = weights.load(dtype=settings["dtype"], device=device)
            with counted_tokens(loaded) as tokens:
                found = evaluate(
                    loaded,
                    load_tokenizer(weights.base),
                    [benchmark for benchmark in benchmarks if benchmark.name not in known.scores],
                    EvaluationSettings(**settings),
                    data_root=data_root,
                    checkpoint=checkpoint,
                    weights_id=ticket.identity,
                )
            scores, samples = known.with_new(found.scores, found.samples)
            with whole_folder(out, record.name) as folder:
                samples.to_parquet(folder / "samples.parquet", index=False)
        cost.tokens = cost.forward_tokens = sum(tokens) + getattr(loaded, "tokens_elsewhere", 0)  # vLLM's
        cost.flops = Shape.of(loaded).forward(cost.tokens, 0, cost.tokens)
        provenance = found.provenance | {"benchmarks": known.details | found.provenance["benchmarks"]}
        details = {
            "scores": scores, "evaluation": provenance, "weights_sha256": weights.sha256, "parts": known.identities,
            "files": {"samples.parquet": sha256_file(out / "samples.parquet")},
        }  # fmt: skip
        Record(cost, details | ticket.details()).write(record)
        shutil.rmtree(checkpoint, ignore_errors=True)


def _check(benchmarks: list[Benchmark], settings: EvaluationSettings, ticket: Ticket, data_root: str | None) -> None:
    """Refuse to ask other questions than the ticket's.

    Raises:
        ChangedMeanwhile: names the benchmark.
    """
    brought = any(what == "world" or what.startswith("rows of ") for what in ticket.needs)  # by a job, as content
    for benchmark in benchmarks:
        now = benchmark_identity(benchmark, settings, None if brought else data_root)[:LENGTH]
        if now != ticket.made_from[f"benchmark {benchmark.name}"]:
            raise ChangedMeanwhile(
                f"benchmark {benchmark.name}: its row, task or rows changed after this workflow had started; start it again"
            )


class Known:
    """The benchmarks of a record that are of the ticket's identity, each for itself: another one's row may have changed.

    identities: of every benchmark asked for. scores, details: of those that are known, by benchmark.
    """

    def __init__(self, record: Path, benchmarks: list[Benchmark], ticket: Ticket):
        self.names = [benchmark.name for benchmark in benchmarks]
        self.identities = {name: _identity(name, ticket) for name in self.names}
        self.scores: dict[str, dict] = {}
        self.details: dict[str, dict] = {}
        self.samples = pd.DataFrame()
        if found := intact(record):
            current = {n for n, identity in self.identities.items() if found.get("parts", {}).get(n) == identity}
            self.scores = {row["benchmark"]: row for row in found["scores"] if row["benchmark"] in current}
            self.details = {n: d for n, d in found["evaluation"]["benchmarks"].items() if n in current}
            samples = pd.read_parquet(record.parent / "samples.parquet")
            self.samples = samples[samples["benchmark"].isin(current)]

    def with_new(self, scores: list[dict], samples: pd.DataFrame) -> tuple[list[dict], pd.DataFrame]:
        """(scores, samples) of all benchmarks, in their order."""
        rows = self.scores | {row["benchmark"]: row for row in scores}
        frame = pd.concat([part for part in (self.samples, samples) if len(part)])
        parts = [frame[frame["benchmark"] == name] for name in self.names]
        return [rows[name] for name in self.names], pd.concat(parts, ignore_index=True)


def _identity(benchmark: str, ticket: Ticket) -> str:
    """Of one benchmark's scores: other benchmarks' rows, tasks and files do not count."""

    def own(parts: dict) -> dict:
        kinds = ("benchmark ", "rows of ")
        return {k: v for k, v in parts.items() if not k.startswith(kinds) or k.endswith(f" {benchmark}")}

    return name_of([own(ticket.made_from), own(ticket.contents())])


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
