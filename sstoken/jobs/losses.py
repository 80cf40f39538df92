"""Reference passes: per-token losses of frozen weights."""

from __future__ import annotations

from pathlib import Path

from sstoken.data import TokenData
from sstoken.jobs import device_of, job
from sstoken.models.flops import Shape
from sstoken.models.load import Weights
from sstoken.records.files import sha256_file
from sstoken.records.provenance import Cost, Record, measured
from sstoken.records.ticket import Ticket
from sstoken.training.reference_losses import ReferenceLosses, ReferenceMismatch, compute_losses, without_prompts


def store_losses(
    *, weights: Weights, tokens: Path, settings: dict, out: Path, device: str, name: str, label: str, ticket: Ticket,
    threads: int = 1,
) -> None:  # fmt: skip
    """Per-token losses of frozen weights on one data set; those of these weights, tokens and settings are kept."""
    record = out.with_suffix(".json")
    with job(record, threads, ticket) as finished:
        data = TokenData.load(tokens)
        if finished and _belong(out, data, weights):
            return
        cost = Cost("references", model=name, method=label.rpartition(".seed")[0] or label)
        cost.seed = label.rpartition(".seed")[2] if ".seed" in label else ""
        with measured(cost, device := device_of(device)):
            model = weights.load(dtype=settings["dtype"], device=device)
            shape = Shape.of(model)
            read = without_prompts(data) if label == "unconditional" else data
            loss_R = compute_losses(model, read, batch_tokens=settings["batch_tokens"])
            losses = ReferenceLosses(loss_R, data.response_offset, data.sha256, weights.sha256)
            losses.save(out)
        cost.tokens = cost.forward_tokens = len(read.input_ids)
        cost.flops = shape.forward(cost.tokens, int((read.lengths.double() ** 2).sum()), len(loss_R))
        details = {
            "weights_sha256": losses.weights_sha256, "tokens_sha256": data.sha256, "settings": settings,
            "mean_loss": float(loss_R.double().mean()), "content": (content := sha256_file(out)), "files": {out.name: content},
        }  # fmt: skip
        Record(cost, details | ticket.details()).write(record)


def _belong(out: Path, data: TokenData, weights: Weights) -> bool:
    try:
        ReferenceLosses.load(out, data=data, weights_sha256=weights.sha256)
    except ReferenceMismatch:
        return False
    return True
