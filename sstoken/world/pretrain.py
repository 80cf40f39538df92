"""Pre-trains the world's base models on its corpus: ``python -m sstoken.world.pretrain OUT --base llama-small``."""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from sstoken.world.corpus import corpus
from sstoken.world.facts import WORLD_SEED, build_world
from sstoken.world.tokenizer import build_model, build_tokenizer


@dataclass(frozen=True)
class Base:
    """How a shipped base model was made. tokens: seen in pre-training. documents: of the corpus, read again in another
    order where they are fewer."""

    family: str
    size: str
    tokens: int
    learning_rate: float
    documents: int


BASES = {
    "llama-small": Base("llama", "small", 8_000_000, 4e-3, 300_000),
    "llama-large": Base("llama", "large", 5_000_000, 3e-3, 200_000),
    "qwen2-small": Base("qwen2", "small", 5_000_000, 4e-3, 200_000),
    "qwen2-large": Base("qwen2", "large", 5_000_000, 3e-3, 200_000),
}
POOL = 2048  # documents that are sorted by length together, so that a batch's documents are about equally long


def pretrain(
    texts: Iterable[str],
    out: str | Path,
    *,
    family: str,
    size: str,
    seed: int = 0,
    facts: int = WORLD_SEED,
    tokens: int = 8_000_000,
    batch_tokens: int = 2048,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.05,
    log_every: int = 50,
    dtype: torch.dtype = torch.float16,
    compiled: bool = False,
) -> list[float]:
    """Train a randomly initialised model on documents and write it, its tokenizer and ``pretrain.jsonl`` into ``out``.

    A row is one document and its end-of-text token: neighbours in a packed row would hide from so small a model that
    what stands in its own document is worth looking back at. A step sees about ``batch_tokens`` tokens, padding
    included. Muon on the layers' matrices, which needs about half of AdamW's tokens here, AdamW on the embeddings and all
    vectors; 2 % warm-up, cosine decay to a twentieth; float32 throughout, stored as ``dtype``.

    Args:
        texts: documents; where they are fewer than ``tokens``, they are read again in another order.
        family, size: as for ``random_model``. seed: of the weights and of the order of rows. facts: whose words the tokenizer
            knows.
        compiled: torch.compile, which needs a C++ compiler; 1.3 to 1.6 times as fast, and rounds in other places.

    Returns:
        The loss of every step (mean over its tokens, nats).
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(facts)
    model = build_model(family, size, len(tokenizer), seed).train()
    documents = _encode(texts, tokenizer)
    steps = max(1, tokens // batch_tokens)
    optimisers = _optimisers(model, learning_rate, weight_decay)
    warm_up = max(1, steps // 50)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimiser,
            lambda s: min((s + 1) / warm_up, 0.05 + 0.475 * (1 + math.cos(math.pi * s / steps))),
        )
        for optimiser in optimisers
    ]

    def loss_of(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return model(input_ids=ids, labels=labels, use_cache=False).loss

    if compiled:
        loss_of = torch.compile(loss_of, dynamic=True)
    losses: list[float] = []
    batches = _batches(documents, batch_tokens, tokenizer.pad_token_id, seed)
    with (out / "pretrain.jsonl").open("w") as log:
        for step, batch in enumerate(islice(batches, steps)):
            # padding stands at the end, where causal attention never looks; it only must not count
            loss = loss_of(batch, batch.masked_fill(batch == tokenizer.pad_token_id, -100))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            rate = schedules[0].get_last_lr()[0]
            for optimiser, schedule in zip(optimisers, schedules, strict=True):
                optimiser.step()
                optimiser.zero_grad()
                schedule.step()
            losses.append(loss.item())
            if step % log_every == log_every - 1 or step == steps - 1:
                # batches hold documents of one length, and kinds differ in length: only a mean over several says much
                loss = sum(losses[-log_every:]) / len(losses[-log_every:])
                row = {"step": step, "tokens": (step + 1) * batch_tokens, "loss": round(loss, 6)}
                row["learning_rate"] = round(rate, 8)
                log.write(json.dumps(row) + "\n")
                log.flush()
    model.eval().to(dtype).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return losses


def _optimisers(model: torch.nn.Module, learning_rate: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.dim() == 2 and "embed" not in name]
    embeddings = [p for name, p in named if p.dim() == 2 and "embed" in name]
    vectors = [p for _, p in named if p.dim() < 2]
    groups = [{"params": embeddings, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [
        torch.optim.Muon(matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98)),
    ]


def _encode(texts: Iterable[str], tokenizer) -> list[list[int]]:
    documents: list[list[int]] = []
    texts = iter(texts)
    while part := list(islice(texts, 10_000)):
        documents += [[*ids, tokenizer.eos_token_id] for ids in tokenizer(part)["input_ids"]]
    if not documents:
        raise ValueError("pre-training corpus: it holds no document")
    return documents


def _batches(documents: list[list[int]], batch_tokens: int, pad: int, seed: int) -> Iterator[torch.Tensor]:
    """int64 [rows, longest of them], padded; every document once, then again in another order."""
    draw = random.Random(f"order of pre-training documents {seed}")
    while True:
        order = list(range(len(documents)))
        draw.shuffle(order)
        for start in range(0, len(order), POOL):
            pool = sorted(order[start : start + POOL], key=lambda i: len(documents[i]))
            batches: list[list[int]] = [[]]
            for index in pool:
                if batches[-1] and (len(batches[-1]) + 1) * len(documents[index]) > batch_tokens:
                    batches.append([])
                batches[-1].append(index)
            draw.shuffle(batches)
            for batch in batches:
                length = max(len(documents[i]) for i in batch)
                yield torch.tensor([documents[i] + [pad] * (length - len(documents[i])) for i in batch])


def pretrain_base(
    name: str, out: str | Path, *, share: float = 1.0, facts: int = WORLD_SEED, compiled: bool = False
) -> list[float]:
    """Make a base model as the shipped one was made, or one of another world.

    Args:
        name: a key of ``BASES``. share: of its tokens and documents, for a shorter pre-training. facts: of the world that
            it is to know, and the seed of its weights. compiled: see ``pretrain``.

    Raises:
        ValueError: an unknown name.
    """
    if name not in BASES:
        raise ValueError(f"the embedded world has no base named {name}; it has {', '.join(BASES)}")
    base = BASES[name]
    options = {"family": base.family, "size": base.size, "learning_rate": base.learning_rate}
    texts = corpus(build_world(facts), max(1, round(base.documents * share)))
    return pretrain(
        texts, out, tokens=round(base.tokens * share), seed=facts, facts=facts, compiled=compiled, **options
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Pre-train a base model of the embedded world.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", required=True, choices=BASES)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--facts", type=int, default=WORLD_SEED, help="of another world")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="faster; needs a C++ compiler")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pretrain_base(options.base, options.out, share=options.share, facts=options.facts, compiled=options.compile)


if __name__ == "__main__":
    main()
