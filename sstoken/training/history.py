"""A run's own earlier weights: an EMA of them, those of its last checkpoint, or those before its first step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sstoken.selection.methods import Method
from sstoken.training.collate import segments_of
from sstoken.training.packing import forward


class History:
    """Weights that follow the trained ones: ``his_t = α·his_(t-1) + (1-α)·θ_t``, or those of each k-th step.

    It is empty, and false, for a method whose history is not the run's own.

    Attributes:
        weights: name -> value of every trained parameter; starts as the model is.
    """

    def __init__(self, method: Method, model: torch.nn.Module):
        self.method = method
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad} if method.own_history else {}
        self.weights = {name: parameter.detach().clone() for name, parameter in trained.items()}

    def __bool__(self) -> bool:
        return bool(self.weights)

    @torch.no_grad()
    def follow(self, model: torch.nn.Module, step: int) -> None:
        """Take in the weights as they are after ``step`` steps."""
        share = 1 - self.method.history_decay
        if self.method.history == "checkpoint":
            share = float(step % self.method.history_steps == 0)
        if share == 0:
            return
        for name, parameter in model.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(parameter.detach().to(self.weights[name].dtype), share)

    @contextmanager
    def in_place_of(self, model: torch.nn.Module) -> Iterator[None]:
        """While the context lasts the model has these weights, and is in evaluation mode."""
        parameters = {name: p for name, p in model.named_parameters() if name in self.weights}
        own = {name: p.data for name, p in parameters.items()}
        for name, parameter in parameters.items():
            parameter.data = self.weights[name]
        model.eval()
        try:
            yield
        finally:
            model.train()
            for name, parameter in parameters.items():
                parameter.data = own[name]

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        """Go on from the weights of a checkpoint."""
        for name, value in self.weights.items():
            self.weights[name] = weights[name].to(value.device)


@torch.no_grad()
def base_states(model: torch.nn.Module, batch: dict) -> torch.Tensor:
    """The base's states before every response token, [R, D]: one more pass, the adapter off, in evaluation mode."""
    model.eval()
    with model.disable_adapter():
        found_RD = forward(
            model, batch["input_ids"], batch["position_ids"], segments_of(batch), lambda hidden_RD, *_: hidden_RD
        )
    model.train()
    return found_RD
