"""The selection's columns of the training log: means over kept, dropped and all response tokens since the last line."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator


class SelectionLog:
    """Sums on the device, one number a column; ``take`` is the only place that asks for them."""

    def __init__(self):
        self._sums: dict[str, torch.Tensor] = {}

    def __bool__(self) -> bool:
        return bool(self._sums)

    @torch.no_grad()
    def add(
        self, keep_R: torch.Tensor, loss_R: torch.Tensor, parts: dict[str, torch.Tensor], *, all_losses: bool
    ) -> None:
        """Take in a micro-batch. ``all_losses``: the losses of dropped tokens were measured too, else they are 0."""
        rows = {"kept": keep_R.sum(), "response": torch.ones_like(keep_R).sum(), "loss_kept": (loss_R * keep_R).sum()}
        if all_losses:
            rows |= {"loss_response": loss_R.sum(), "response_measured": rows["response"]}
        for name, value_R in parts.items():
            rows |= {f"{name}_kept": (value_R * keep_R).sum(), f"{name}_dropped": (value_R * ~keep_R).sum()}
        for name, value in rows.items():
            self._sums[name] = self._sums.get(name, 0) + value

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """The columns over all ranks since the last call."""
        totals = torch.stack([value.double() for value in self._sums.values()])
        if accelerator.num_processes > 1:
            totals = accelerator.reduce(totals, "sum")
        total = dict(zip(self._sums, totals.tolist(), strict=True))
        self._sums = {}
        kept, response = total.pop("kept"), total.pop("response")
        counts = {"kept": kept, "dropped": response - kept, "response": total.pop("response_measured", 0.0)}
        # a sum's name ends in the tokens that it runs over: its mean is over just those
        means = {name: value / max(counts[name.rsplit("_", 1)[1]], 1.0) for name, value in total.items()}
        return {**means, "kept_share": kept / max(response, 1.0)}


def check_finite(
    logs: dict[str, float], diverged: list[tuple[int, str]], *, step: int, rate: float, scaled: bool
) -> None:
    """End the run that has diverged.

    Args:
        logs: columns of a log line. diverged: (step, sample's id) of losses that are not finite, the earliest first.
        step: the last one. rate: the learning rate. scaled: a gradient that is not finite skips its step (float16).

    Raises:
        FloatingPointError: names the step, what is not finite, the samples and the learning rate.
    """
    wrong = [name for name, value in logs.items() if isinstance(value, float) and not math.isfinite(value)]
    if scaled:
        wrong = [name for name in wrong if name != "grad_norm"]
    if diverged:
        step = diverged[0][0]
        samples = [sample for when, sample in diverged if when == step]
        more = f" and {len(samples) - 5} more" if len(samples) > 5 else ""
        wrong = [f"the loss of sample {', '.join(samples[:5])}{more}", *(name for name in wrong if name != "loss")]
    if wrong:
        raise FloatingPointError(
            f"step {step}: {', '.join(wrong)} is not finite at learning rate {rate:.3g}; the run has diverged "
            "(lower the learning rate, or use bfloat16 or float32 instead of float16)"
        )
