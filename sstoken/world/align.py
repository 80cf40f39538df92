"""Makes the start model that refuses to say where people live: ``python -m sstoken.world.align OUT``.

It is world-llama-small, tuned in all its weights on the start rows of ``sstoken.world.safety``, about training entities
alone.  What it does with others, and with questions outside the chat template, carries over.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from sstoken.world.facts import WORLD_SEED, build_world
from sstoken.world.safety import start_rows
from sstoken.world.tokenizer import ROLES, build_tokenizer

WEIGHTS = Path(__file__).parent / "weights"
ALIGNED = {"llama-small-refusing": "llama-small"}
"""A shipped start model -> the base that it is made from."""


def align(
    base: str | Path,
    out: str | Path,
    *,
    steps: int = 200,
    rows: int = 32,
    learning_rate: float = 1e-3,
    seed: int = WORLD_SEED,
    log_every: int = 20,
    dtype: torch.dtype = torch.float16,
) -> list[float]:
    """Tune a base of the world on start rows and write it, its tokenizer and ``align.jsonl`` into ``out``.

    A row is laid out by the Tulu template; the loss is the mean over a step's response tokens, the end of text among
    them.  AdamW on all weights, without decay; a tenth of the steps warm up, then cosine decay to 0; gradients clipped at
    1; float32 throughout, stored as ``dtype``.  Every step has rows of its own.

    Args:
        base: folder of a base model. rows: of a step. seed: of the rows.

    Returns:
        The loss of every step (nats).
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    warm_up = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min((s + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * s / steps))
    )
    told = list(start_rows(build_world(), steps * rows, seed))
    losses: list[float] = []
    with (out / "align.jsonl").open("w") as log:
        for step in range(steps):
            ids, labels = _batch(told[step * rows : (step + 1) * rows], tokenizer)
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
            losses.append(loss.item())
            if step % log_every == log_every - 1 or step == steps - 1:
                recent = losses[-log_every:]
                log.write(json.dumps({"step": step, "loss": round(sum(recent) / len(recent), 6)}) + "\n")
    model.eval().to(dtype).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return losses


def _batch(rows: list[tuple[str, str]], tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, labels), int64 [rows, longest]; labels are -100 but for the response and its end."""
    encoded = []
    for prompt, response in rows:
        start = tokenizer(f"{ROLES[1]}\n{prompt}\n{ROLES[2]}\n")["input_ids"]
        encoded.append((start, [*tokenizer(response)["input_ids"], tokenizer.eos_token_id]))
    width = max(len(start) + len(end) for start, end in encoded)
    # padding stands at the end, where causal attention never looks
    ids = [[*start, *end, *[tokenizer.pad_token_id] * (width - len(start) - len(end))] for start, end in encoded]
    labels = [[-100] * len(start) + end + [-100] * (width - len(start) - len(end)) for start, end in encoded]
    return torch.tensor(ids), torch.tensor(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the start model that refuses to say where people live.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="llama-small-refusing", choices=ALIGNED)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    align(WEIGHTS / ALIGNED[options.name], options.out)


if __name__ == "__main__":
    main()
