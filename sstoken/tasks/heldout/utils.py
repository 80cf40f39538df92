"""Held-out loss: bits per byte of a row's response given its prompt."""

from __future__ import annotations

import math


def continuations(doc: dict) -> list[str]:
    """The response, and the white space before it alone.

    lm-eval counts white space at the end of a prompt as the start of its continuation, so the template's last new line is
    part of every response. Asked for by itself, it can be taken off.

    Raises:
        ValueError: a response without text.
    """
    if not doc["response"].strip():
        raise ValueError("'response' is blank")
    prompt = doc["prompt"]
    space = prompt[len(prompt.rstrip()) :]
    return [space + doc["response"], space] if space else [doc["response"]]


def process_results(doc: dict, results: list[tuple[float, bool]]) -> dict[str, float]:
    """bits_per_byte = -log2 p(response | prompt) / bytes of the response; likelihood_per_byte = 2^-bits_per_byte, in [0, 1]."""
    whole, *space = (loglikelihood for loglikelihood, _ in results)
    bits = max(sum(space) - whole, 0.0) / math.log(2) / len(doc["response"].encode())
    return {"likelihood_per_byte": 2.0**-bits, "bits_per_byte": bits}
