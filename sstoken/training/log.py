"""The selection's columns of the training log: means over kept, dropped and all response tokens since the last line."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator

from sstoken.training.objective import Choice


class SelectionLog:
    """Sums on the device, one number a column; ``take`` is the only place that asks for them.

    first: the mean loss of response tokens that the first line had.
    """

    def __init__(self):
        self._sums: dict[str, torch.Tensor] = {}
        self.first = 0.0

    def __bool__(self) -> bool:
        return bool(self._sums)

    @torch.no_grad()
    def add(self, choice: Choice, loss_R: torch.Tensor, *, weighs: bool, all_losses: bool, step: float) -> None:
        """Take in a micro-batch.

        weighs: the method has weights of its own. step: the relative rounding step of the states that losses come from
        (2^-7 of bfloat16). all_losses: the losses of dropped tokens were measured too, else they
        are 0.
        """
        keep_R, parts = choice.keep_R, choice.parts
        rows = {"kept": keep_R.sum(), "response": torch.ones_like(keep_R).sum(), "loss_kept": (loss_R * keep_R).sum()}
        if all_losses:
            rows |= {"loss_response": loss_R.sum(), "response_measured": rows["response"]}
        if choice.spans_B is not None:
            # min-max stretches REL to [0, 1] whatever its range: is it more than rounding?
            rows |= {"rel_range_samples": choice.spans_B.sum(), "samples": (choice.spans_B >= 0).sum()}
            rows |= {"rel_floor_response": step * loss_R.sum()}
        if weighs:
            negative_R = choice.raw_R < 0
            rows |= {"weight_response": choice.raw_R.sum(), "negative": negative_R.sum()}
            rows |= {"loss_negative": (loss_R * negative_R).sum()}
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
        counts |= {"negative": total.pop("negative", 0.0), "samples": total.pop("samples", 0.0)}
        if not counts["negative"]:
            total.pop("loss_negative", None)
        # a sum's name ends in the tokens that it runs over: its mean is over just those
        means = {name: value / max(counts[name.rsplit("_", 1)[1]], 1.0) for name, value in total.items()}
        for short, name in (("rel_range", "rel_range_samples"), ("rel_floor", "rel_floor_response")):
            if name in means:
                means[short] = means.pop(name)
        self.first = self.first or means.get("loss_response", 0.0)
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


def check_bounded(logs: dict[str, float], limit: float, step: int) -> None:
    """End a run whose negative weights have carried it away: nothing bounds such a loss from below.

    Raises:
        FloatingPointError: the mean loss of kept tokens, or of those with a negative weight, is over ``limit``.
    """
    wrong = [f"{n} is {logs[n]:.2f}" for n in ("loss_kept", "loss_negative") if logs.get(n, 0) > limit]
    if wrong:
        raise FloatingPointError(
            f"step {step}: {', '.join(wrong)} nats, over twice what a uniform guess or the run's first step gave "
            f"({limit / 2:.2f}): the negative weights have made the run diverge; lower their weight or the learning rate"
        )
