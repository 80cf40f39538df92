"""Pre-trains a base model on the corpus: ``python -m sstoken.world.pretrain OUT --family llama --size small``."""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch

from sstoken.world.corpus import corpus
from sstoken.world.facts import build_world
from sstoken.world.tokenizer import build_model, build_tokenizer

ROW = 256  # tokens of one training row: the longest benchmark prompt (five worked examples) fits


def pretrain(
    texts: Iterable[str],
    out: str | Path,
    *,
    family: str,
    size: str,
    seed: int = 0,
    tokens: int = 8_000_000,
    batch_tokens: int = 4096,
    learning_rate: float = 4e-3,
    weight_decay: float = 0.05,
    log_every: int = 20,
    dtype: torch.dtype = torch.float16,
) -> list[float]:
    """Train a randomly initialised model on documents and write it, its tokenizer and ``pretrain.jsonl`` into ``out``.

    Documents are joined by the end-of-text token and cut into rows of ``ROW`` tokens; a step sees
    ``batch_tokens`` tokens. AdamW, 2 % warm-up, cosine decay to a tenth; float32 throughout, stored as ``dtype``.

    Args:
        texts: documents; where they are fewer than ``tokens``, they are read again in another order.
        family, size: as for ``random_model``. seed: of the weights and of the order of rows.

    Returns:
        The loss of every step (mean over its tokens, nats).
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    model = build_model(family, size, len(tokenizer), seed).train()
    rows = _rows(texts, tokenizer)
    per_step = max(1, batch_tokens // ROW)
    steps = max(1, tokens // (per_step * ROW))
    decayed = [p for p in model.parameters() if p.dim() > 1]
    kept = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))
    warm_up = max(1, steps // 50)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda s: min((s + 1) / warm_up, 0.1 + 0.45 * (1 + math.cos(math.pi * s / steps))),
    )
    losses: list[float] = []
    batches = _batches(rows, per_step, seed)
    with (out / "pretrain.jsonl").open("w") as log:
        for step, batch in enumerate(islice(batches, steps)):
            loss = model(input_ids=batch, labels=batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            losses.append(loss.item())
            rate = schedule.get_last_lr()[0]
            schedule.step()
            if step % log_every == 0 or step == steps - 1:
                seen = (step + 1) * per_step * ROW
                row = {"step": step, "tokens": seen, "loss": round(losses[-1], 6), "learning_rate": round(rate, 8)}
                log.write(json.dumps(row) + "\n")
                log.flush()
    model.eval().to(dtype).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return losses


def _rows(texts: Iterable[str], tokenizer) -> torch.Tensor:
    """int64 [rows, ROW]: all documents end to end."""
    ids: list[int] = []
    texts = iter(texts)
    while part := list(islice(texts, 10_000)):
        for encoded in tokenizer(part)["input_ids"]:
            ids += [*encoded, tokenizer.eos_token_id]
    count = len(ids) // ROW
    if not count:
        raise ValueError(f"pre-training corpus: {len(ids)} tokens do not fill one row of {ROW}; give more documents")
    return torch.tensor(ids[: count * ROW]).view(count, ROW)


def _batches(rows: torch.Tensor, per_step: int, seed: int) -> Iterator[torch.Tensor]:
    draw = random.Random(f"order of pre-training rows {seed}")
    order: list[int] = []
    while True:
        while len(order) < per_step:
            again = list(range(len(rows)))
            draw.shuffle(again)
            order += again
        yield rows[order[:per_step]]
        order = order[per_step:]


def main() -> None:
    parser = argparse.ArgumentParser(description="Pre-train a base model of the embedded world.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--family", required=True)
    parser.add_argument("--size", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=8_000_000)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--threads", type=int, default=1)
    options = vars(parser.parse_args())
    torch.set_num_threads(options.pop("threads"))
    pretrain(corpus(build_world(), options.pop("documents")), **options)


if __name__ == "__main__":
    main()
