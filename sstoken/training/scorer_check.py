"""Whether a scorer keeps its contract, tried on the first signals that it sees.

Shapes: B samples, R response tokens of the longest response.
"""

from __future__ import annotations

import dataclasses
import inspect

import torch

from sstoken.selection import Scorer, Signals

WIDER = 3  # columns of padding added
GARBAGE = 1e4  # what stands in padding


class ContractError(ValueError):
    """A scorer whose scores are not what ``sstoken.selection.contract`` says; names the method's file."""


def check_scorer(scorer: Scorer, signals: Signals, score_BR: torch.Tensor) -> None:
    """Check the score of these signals, and that of others made from them, against the contract.

    Shape [B, R], floating, on the signals' device, finite on response tokens, no gradient; the same whatever stands in
    the padding and however wide it is; the same whatever else is in the batch.  Costs B + 3 calls of ``score``.

    Raises:
        ContractError: names the file of the method and what differs.
    """
    mask_BR, file = signals.mask_BR, inspect.getfile(type(scorer))
    if not isinstance(score_BR, torch.Tensor) or score_BR.shape != mask_BR.shape:
        found = tuple(score_BR.shape) if isinstance(score_BR, torch.Tensor) else type(score_BR).__name__
        raise ContractError(f"{file}: score must have the shape of mask_BR, {tuple(mask_BR.shape)}, not {found}")
    if not score_BR.dtype.is_floating_point:
        raise ContractError(
            f"{file}: score must be floating-point numbers, not {score_BR.dtype}; the mask is made of them"
        )
    if score_BR.device != mask_BR.device:
        raise ContractError(f"{file}: score is on {score_BR.device}, the signals on {mask_BR.device}")
    if score_BR.requires_grad:
        raise ContractError(f"{file}: score carries a gradient; a score decides what is kept, nothing flows through it")
    if not all((value.isfinite().reshape(*mask_BR.shape, -1).all(-1) | ~mask_BR).all() for value in _values(signals)):
        return  # a run that has diverged is told so at its log line
    # as they come, signals may tie (REL is 0 at the first step), and ties may be ranked in any order
    trial = _shaken(signals)
    for given, scores in ((signals, score_BR), (trial, scorer.score(trial))):
        wrong = ~scores.isfinite() & given.mask_BR
        if wrong.any():
            raise ContractError(
                f"{file}: score is not finite for {int(wrong.sum())} of {int(mask_BR.sum())} response tokens"
            )
    expected_BR = scorer.score(trial)
    _compare(file, scorer, _padded(trial), expected_BR, "what stands in the padding (use mask_BR)")
    for row in mask_BR.any(-1).nonzero()[:, 0].tolist():
        alone = _rows(trial, slice(row, row + 1))
        _compare(file, scorer, alone, expected_BR[row : row + 1], "what else is in the batch")


def check_weights(scorer: Scorer, signals: Signals, weight_BR: torch.Tensor) -> None:
    """Check that ``weigh`` gives a finite number a response token.

    Raises:
        ContractError: names the file of the method and what differs.
    """
    mask_BR, file = signals.mask_BR, inspect.getfile(type(scorer))
    if weight_BR.shape != mask_BR.shape:
        raise ContractError(
            f"{file}: weigh must give the shape of mask_BR, {tuple(mask_BR.shape)}, not {tuple(weight_BR.shape)}"
        )
    if all(value.isfinite()[mask_BR].all() for value in _values(signals)):
        wrong = ~weight_BR.isfinite() & mask_BR
        if wrong.any():
            raise ContractError(f"{file}: weigh is not finite for {int(wrong.sum())} of {int(mask_BR.sum())} tokens")


def _compare(file: str, scorer: Scorer, signals: Signals, expected_BR: torch.Tensor, cause: str) -> None:
    rows, columns = expected_BR.shape
    mask_BR = signals.mask_BR[:, :columns]
    found_BR = scorer.score(signals)[:rows, : mask_BR.shape[1]]
    expected_BR = expected_BR[:, : mask_BR.shape[1]]
    largest = expected_BR.masked_fill(~mask_BR, 0).abs().amax() if mask_BR.any() else 0
    difference = (found_BR - expected_BR).masked_fill(~mask_BR, 0).abs().amax() if mask_BR.any() else 0
    if not difference <= 1e-3 * largest + 1e-6:
        raise ContractError(f"{file}: a token's score depends on {cause}: it differs by {float(difference):.3g}")


def _grids(signals: Signals) -> dict[str, torch.Tensor]:
    """Fields that hold a value a response token, but for the mask."""
    shape = signals.mask_BR.shape
    values = {f.name: getattr(signals, f.name) for f in dataclasses.fields(signals) if f.name != "mask_BR"}
    return {n: v for n, v in values.items() if isinstance(v, torch.Tensor) and v.shape[:2] == shape and v.dim() >= 2}


def _values(signals: Signals) -> list[torch.Tensor]:
    return [*_grids(signals).values(), *signals.references.values()]


def _with_grids(signals: Signals, change, **others) -> Signals:
    """The signals with every grid changed, those of named references too."""
    grids = {name: change(value) for name, value in _grids(signals).items()}
    if signals.references:
        grids["references"] = {name: change(value) for name, value in signals.references.items()}
    return dataclasses.replace(signals, **grids, **others)


def _shaken(signals: Signals) -> Signals:
    """Floating-point signals times one draw in (1/2, 1) each, which leaves every sign, share and probability one."""
    generator = torch.Generator().manual_seed(0)  # not the default one: training must not depend on this

    def shaken(value_BR: torch.Tensor) -> torch.Tensor:
        if not value_BR.dtype.is_floating_point:
            return value_BR
        factor_BR = 0.5 + 0.5 * torch.rand(value_BR.shape, generator=generator)
        return value_BR * factor_BR.to(value_BR.device, value_BR.dtype)

    return _with_grids(signals, shaken)


def _padded(signals: Signals) -> Signals:
    """The signals with more padding, and garbage in all of it."""
    wide_BR = torch.nn.functional.pad(signals.mask_BR, (0, WIDER))

    def padded(value_BR: torch.Tensor) -> torch.Tensor:
        grown = value_BR.new_zeros(*wide_BR.shape, *value_BR.shape[2:])
        grown[:, : value_BR.shape[1]] = value_BR
        garbage = GARBAGE if grown.dtype.is_floating_point else 1
        return torch.where(wide_BR.reshape(*wide_BR.shape, *[1] * (grown.dim() - 2)), grown, garbage)

    return _with_grids(signals, padded, mask_BR=wide_BR)


def _rows(signals: Signals, rows: slice) -> Signals:
    """Some of the samples, without the padding of the others."""
    width = int(signals.mask_BR[rows].sum(-1).amax())
    position_B = None if signals.position_B is None else signals.position_B[rows]
    index_B = None if signals.index_B is None else signals.index_B[rows]
    own = {"mask_BR": signals.mask_BR[rows, :width], "position_B": position_B, "index_B": index_B}
    return _with_grids(signals, lambda value_BR: value_BR[rows, :width], **own)
