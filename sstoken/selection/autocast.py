"""Where dtypes are chosen by hand, autocast has to stay out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def no_autocast(tensor: torch.Tensor) -> AbstractContextManager:
    """A context in which autocast is off for the tensor's kind of device.

    None is entered where it is off already: a small model's step would spend 2 % on entering and leaving them.
    """
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
