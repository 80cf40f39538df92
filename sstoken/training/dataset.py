"""Samples with their stored signals, and the masks of methods that need no others.

Shapes: S samples, R response tokens of the data set.
"""

from __future__ import annotations

import torch

from sstoken.data import TokenData
from sstoken.selection import keep_top, rank_share
from sstoken.selection.contract import FROM_LOGITS
from sstoken.selection.methods import Method
from sstoken.training.collate import TOKEN_SIGNALS, PackedCollator, from_grid, is_stored, signals_of
from sstoken.training.scorer_check import check_scorer

MADE = FROM_LOGITS | {"attention_mass", "progress", "base_rank"}
"""Signals that are never stored: a step measures them, or they follow from one that is."""

CHECKED = 4  # samples that a scorer of stored signals is tried on
STATIC_CHUNK = 1024  # samples scored at a time when a mask is made beforehand: bounds the padded grid


class SelectionDataset(torch.utils.data.Dataset):
    """Samples with their stored signals, in the order of training.

    data: S samples with R response tokens.
    signals: name (one of TOKEN_SIGNALS) -> values [R] in data order. ``base_rank`` follows from ``base_loss``.
    keep_R: bool [R], for a method whose mask is known before the first step.
    """

    def __init__(
        self, data: TokenData, signals: dict[str, torch.Tensor] | None = None, keep_R: torch.Tensor | None = None
    ):
        self.data, self.signals, self.keep_R = data, dict(signals or {}), keep_R
        total = int(data.response_offset[-1])
        for name, value_R in self._columns():
            if not is_stored(name):
                raise ValueError(f"unknown signal {name!r}; known: {', '.join(TOKEN_SIGNALS)}")
            if len(value_R) != total:
                raise ValueError(f"{name} has {len(value_R)} values, the data {total} response tokens")
        if "base_loss" in self.signals:
            self.signals.setdefault("base_rank", rank_share(self.signals["base_loss"]))

    def _columns(self):
        return [*self.signals.items(), *([("keep", self.keep_R)] if self.keep_R is not None else [])]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict:
        index = range(len(self))[index]  # IndexError past the end, which ends an iteration
        start, stop = self.data.response_offset[index : index + 2].tolist()
        sample = self.data.sample(index)
        row = {"input_ids": sample["input_ids"], "response_mask": sample["response_mask"], "position": index}
        return row | {name: value_R[start:stop] for name, value_R in self._columns()}


class EvenDataset(torch.utils.data.Dataset):
    """A data set made to divide evenly among ranks by samples without a response, which train nothing.

    transformers would repeat samples from the start instead: they would be trained on twice, on several ranks only.

    multiple: its length is the next multiple of this (micro-batch size times ranks).
    """

    def __init__(self, dataset: SelectionDataset, multiple: int):
        self.dataset, self.data = dataset, dataset.data
        self.length = -(-len(dataset) // multiple) * multiple

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        index = range(self.length)[index]
        if index < len(self.dataset):
            return self.dataset[index]
        row = self.dataset[0]
        token = {"input_ids": row["input_ids"][:1], "response_mask": row["response_mask"][:1], "position": -1}
        return {name: value[:0] for name, value in row.items() if name not in token} | token


def uniform_signal(count: int, seed: int) -> torch.Tensor:
    """[count] draws in [0, 1) of the generator named by ``seed``; the same for every model and machine."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def lacking(method: Method, dataset: SelectionDataset) -> set[str]:
    """Stored signals that the method needs and the data set has not; none where the mask is given."""
    if dataset.keep_R is not None:
        return set()
    needs = method.needs | ({"base_loss"} if "base_rank" in method.needs else set())
    return needs - set(dataset.signals) - MADE - ({"history_loss"} if method.own_history else set())


def prepared(method: Method, dataset: SelectionDataset) -> SelectionDataset:
    """The data set with the mask of a method whose mask is known before the first step.

    Raises:
        ValueError: a stored signal that the method needs is not there.
    """
    if missing := lacking(method, dataset):
        raise ValueError(f"method {method.name} needs {', '.join(sorted(missing))} in its dataset's signals")
    if not method.static or dataset.keep_R is not None:
        return dataset
    few = signals_of(PackedCollator()([dataset[index] for index in range(min(CHECKED, len(dataset)))]), method.needs)
    check_scorer(method.scorer, few, method.scorer.score(few))
    return SelectionDataset(dataset.data, dataset.signals, fixed_mask(method, dataset))


def fixed_mask(method: Method, dataset: SelectionDataset) -> torch.Tensor:
    """keep_R, bool [R]: the mask of a method that asks for static signals alone, over the whole data set at once.

    Raises:
        ValueError: the method needs a signal that is known only during training.
    """
    if not method.static:
        raise ValueError(
            f"method {method.name} needs {', '.join(sorted(method.needs))}: its mask is known only at each step"
        )
    collate = PackedCollator()
    scores, keeps = [], []
    for start in range(0, len(dataset), STATIC_CHUNK):
        batch = collate([dataset[i] for i in range(start, min(start + STATIC_CHUNK, len(dataset)))])
        signals = signals_of(batch, method.needs)
        score_BR = method.scorer.score(signals)
        scores.append(from_grid(score_BR, batch))
        if method.scorer.keep_above is None and method.scope != "dataset":
            keep_BR = keep_top(score_BR, signals.mask_BR, method.keep_ratio, scope="sample", rounding=method.rounding)
            keeps.append(from_grid(keep_BR, batch))
    score_R = torch.cat(scores)
    if method.scorer.keep_above is not None:
        return score_R >= method.scorer.keep_above
    if keeps:
        return torch.cat(keeps)
    everything = torch.ones_like(score_R, dtype=torch.bool)[None]
    return keep_top(score_R[None], everything, method.keep_ratio, scope="dataset", rounding=method.rounding)[0]
