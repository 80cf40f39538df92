"""A scorer of one's own, tried on made-up signals before anything is trained with it."""

from __future__ import annotations

import dataclasses
import inspect
import traceback
from collections.abc import Iterable

import torch

from sstoken.selection import Chooser, Scorer, Signals
from sstoken.selection.contract import SIGNALS, kind_of
from sstoken.selection.methods import Method
from sstoken.training.scorer_check import ContractError, check_scorer, check_weights

RESPONSES = (7, 5, 2)  # tokens of the samples that it is tried on


class _Unasked(Exception):
    """A signal that the scorer's ``needs`` do not name."""


class _Asked(Signals):
    """Signals that say so when one is read that was not asked for."""

    def __getattribute__(self, name: str):
        value = object.__getattribute__(self, name)
        if value is None and name in SIGNALS:
            raise _Unasked(f"{name} is read but was not asked for: add {name!r} to needs")
        return value


def faults_of(methods: Iterable[Method]) -> list[str]:
    """What is wrong with the scorers of these, a line each."""
    faults = []
    for method in methods:
        try:
            try_scorer(method.scorer)
        except ContractError as error:
            faults.append(f"method {method.name}: {error}")
    return faults


def try_scorer(scorer: Scorer) -> None:
    """Score and weigh three made-up samples, and hold the result against the contract (``check_scorer``).

    Raises:
        ContractError: names the file, and for an error of the scorer's own its line.
    """
    if isinstance(scorer, Chooser):
        return
    file = inspect.getfile(type(scorer))
    signals = made_up(scorer.needs)
    try:
        score_BR = scorer.score(signals)
        check_scorer(scorer, signals, score_BR)
        if scorer.weighs:
            check_weights(scorer, signals, scorer.weigh(signals, signals.mask_BR))
    except Exception as error:
        raise ContractError(_explained(scorer, signals, error, file)) from error


def _explained(scorer: Scorer, signals: Signals, error: Exception, file: str) -> str:
    """The error with its place; or which signal was not asked for, since reading that gives None and fails later."""
    fields = {field.name: getattr(signals, field.name) for field in dataclasses.fields(signals)}
    try:
        scorer.score(_Asked(**fields))
        scorer.weigh(_Asked(**fields), signals.mask_BR)
    except _Unasked as unasked:
        return f"{file}: {unasked}"
    except Exception:  # the one that is told
        pass
    if isinstance(error, ContractError):
        return str(error)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{file}{f':{lines[-1]}' if lines else ''}: {type(error).__name__}: {error}"


def made_up(needs: Iterable[str]) -> Signals:
    """Signals of three samples as a first step might have them: losses, probabilities and shares; the rest is None."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(RESPONSES), max(RESPONSES))
    mask_BR = torch.arange(shape[1]) < torch.tensor(RESPONSES)[:, None]

    def draw() -> torch.Tensor:
        return torch.rand(shape, generator=generator).clamp(0.01, 0.99).masked_fill(~mask_BR, 0)

    loss_BR = -draw().clamp_min(0.01).log().masked_fill(~mask_BR, 0)
    values: dict = {"references": {}}
    for signal in sorted(needs):
        kind, _, name = signal.partition(":")
        if name:
            values["references"][name] = loss_BR * (0.5 + draw())
        elif kind == "loss":
            values[kind] = loss_BR
        elif kind == "probability":
            values[kind] = (-loss_BR).exp()
        elif kind == "truth":
            values[kind] = (draw() > 0.7).to(torch.uint8)
        elif kind == "progress":
            values[kind] = 0.5
        elif kind_of(signal).endswith("_loss"):
            values[kind] = loss_BR * (0.5 + draw())
        else:  # shares and ranks in [0, 1), and what is of that size
            values[kind] = draw()
    places_B = torch.arange(len(RESPONSES))
    return Signals(mask_BR=mask_BR, position_B=places_B, index_B=places_B, **values)
