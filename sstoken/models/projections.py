"""The linear projections of a model's text layers, by the names that its family gives them."""

from __future__ import annotations

import re

import torch
from transformers.pytorch_utils import Conv1D

from sstoken.models.anatomy import causal_lm, text_part

ALL_LINEAR = "all-linear"
LINEAR = (torch.nn.Linear, Conv1D)


def projections(model: torch.nn.Module) -> tuple[list[str], list[str]]:
    """Names of the text layers' linear projections, and of the arrays that hold the weights of all experts of a layer.

    Left out: routers, and what a state-space mixer's fused kernels read past any adapter.
    """
    lm = causal_lm(model)
    head, decoder = lm.get_output_embeddings(), text_part(lm)
    part = next(name for name, module in lm.named_modules() if module is decoder)
    modules, arrays, hidden = [], [], set()
    for name, module in lm.named_modules():
        if hasattr(module, "A_log") and hasattr(module, "D"):
            hidden |= {f"{name}.{child}" for child in ("x_proj", "dt_proj", "out_proj")}
        if module is head or name in hidden or not f"{name}.".startswith(f"{part}." if part else ""):
            continue
        kind = f"{name} {type(module).__name__}".lower()
        if isinstance(module, LINEAR) and "router" not in kind:  # some of which compute more
            modules.append(name)
        elif "expert" in kind:
            arrays += [f"{name}.{n}" for n, p in module.named_parameters(recurse=False) if p.dim() == 3]
    return modules, arrays


def targets_of(model: torch.nn.Module, targets: tuple[str, ...] | str) -> tuple[list[str], list[str]]:
    """Full names of the linear projections, and of the arrays of experts' weights, that get an adapter.

    Args:
        targets: ``all-linear``, or last parts of names as PEFT takes them.

    Raises:
        ValueError: names the targets that the model does not have, and what it has; or an array of experts' weights that
            holds what a target names (``gate_up_proj`` of experts beside a shared expert's ``gate_proj``) and is not named.
    """
    modules, arrays = projections(model)
    if targets == ALL_LINEAR:
        return modules, arrays
    lm = causal_lm(model)
    head = [name for name, module in lm.named_modules() if module is lm.get_output_embeddings()]
    unmatched = [t for t in targets if not any(_matches(name, t) for name in [*modules, *arrays, *head])]
    if unmatched:
        has = sorted({name.rsplit(".", 1)[-1] for name in modules} | {short(name) for name in arrays})
        raise ValueError(
            f"training.adapter.targets: {type(lm).__name__} has no {', '.join(unmatched)}; it has {', '.join(has)} "
            f"(`targets: {ALL_LINEAR}` takes them all)"
        )
    chosen, fused = (
        [name for name in names if any(_matches(name, t) for t in targets)] for names in ([*modules, *head], arrays)
    )
    left_out = {short(a) for a in arrays if a not in fused and any(_holds(a, t) for t in targets)}
    if left_out:
        raise ValueError(
            f"training.adapter.targets: {', '.join(targets)} reach the shared experts of {type(lm).__name__} alone: the other "
            f"experts' weights lie in {', '.join(sorted(left_out))}; name that too, or take `targets: {ALL_LINEAR}`"
        )
    return chosen, fused


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _holds(array: str, target: str) -> bool:
    """Whether an array called gate_up_proj holds the projections called gate_proj or up_proj."""
    last, part = array.rsplit(".", 1)[-1], target.rsplit(".", 1)[-1].removesuffix("_proj")
    return "_" in last.removesuffix("_proj") and part in last.removesuffix("_proj").split("_")


def short(name: str) -> str:
    """What stands behind the layer's number."""
    return re.split(r"\.\d+\.", name)[-1]
