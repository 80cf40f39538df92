"""From ragged samples to one packed row, with everything that a step needs to know about shapes counted on the host.

Shapes: N tokens of all samples end to end, R response tokens of all samples, B samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sstoken.selection import Signals, kept_count
from sstoken.selection.contract import kind_of
from sstoken.selection.methods import Method
from sstoken.training.segments import Segments

TOKEN_SIGNALS = (
    "base_loss", "base_rank", "unconditional_loss", "reference_loss", "history_loss", "uniform", "truth",
)  # fmt: skip
"""Signals stored with the data, one value a response token; ``reference_loss:x`` is stored as ``reference_loss`` is."""


def is_stored(name: str) -> bool:
    return name == "keep" or kind_of(name) in TOKEN_SIGNALS


@dataclass(frozen=True)
class PackedCollator:
    """Collate samples into the mapping that ``SelectionTrainer`` and the reference pass run on.

    A sample is a mapping with ``input_ids`` [T] and ``response_mask`` [T], and per response token any of
    TOKEN_SIGNALS and ``keep`` (a mask known beforehand); ``position`` is its index in the data set, -1 for what only
    evens out the ranks.

    keep_ratio, scope, rounding: how many tokens are kept depends on response lengths alone, so it is counted here.
    counted: False where it does not: ``kept_counts`` is then None.
    leading_prompt: ssToken's release.  The number of all positions of a sample that are not response is taken for the
        prompt's length, so that just as many positions are ranked as there are response tokens: those behind that
        length, the later prompts among them.  A response token before it is always kept.
    """

    keep_ratio: float = 1.0
    scope: str = "sample"
    rounding: str = "ceil"
    counted: bool = True
    leading_prompt: bool = False

    @classmethod
    def of(cls, method: Method) -> PackedCollator:
        return cls(method.keep_ratio, method.scope, method.rounding, method.counted, method.prompt == "leading")

    def __call__(self, samples: Sequence[dict]) -> dict:
        ids_N = torch.cat([torch.as_tensor(s["input_ids"]) for s in samples]).long()
        masks = [torch.as_tensor(s["response_mask"], dtype=torch.bool) for s in samples]
        response_N = torch.cat(masks)
        lengths = tuple(len(m) for m in masks)
        counts = tuple(int(m.sum()) for m in masks)
        if any(bool(m[:1].any()) for m in masks):
            raise ValueError("the first token of a sample has no state before it and cannot be a response token")
        batch = {
            "input_ids": ids_N,
            "position_ids": torch.cat([torch.arange(n) for n in lengths]),
            "lengths": lengths,
            "response_counts": counts,
            "response_R": response_N.nonzero()[:, 0],
            "row_R": torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(counts)),
            "column_R": torch.cat([torch.arange(n) for n in counts]),
            "prompt_N": ~response_N,
            "position_B": torch.tensor([int(s.get("position", 0)) for s in samples]),
            "sample_count": sum(int(s.get("position", 0)) >= 0 for s in samples),  # without what evens out the ranks
        }
        if self.leading_prompt:
            batch |= _leading(lengths, counts, response_N)
        for name in samples[0]:
            if is_stored(name):
                batch[name] = torch.cat([torch.as_tensor(s[name]) for s in samples])
                if len(batch[name]) != sum(counts):
                    raise ValueError(f"{name} has {len(batch[name])} values for {sum(counts)} response tokens")
        if not self.counted:
            kept = None
        elif "keep" in batch:
            kept = tuple(int(torch.as_tensor(s["keep"]).sum()) for s in samples)
        elif self.scope == "sample":
            kept = tuple(int(kept_count(n, self.keep_ratio, self.rounding)) for n in counts)
        else:
            kept = (int(kept_count(sum(counts), self.keep_ratio, self.rounding)),)
        batch["kept_counts"] = kept
        return batch


def _leading(lengths: tuple[int, ...], counts: tuple[int, ...], response_N: torch.Tensor) -> dict:
    """The prompt by count, and what is ranked instead of response tokens: as many positions a sample.

    ranked_R: positions in the row.  ranked_as_R: the response token that lies there, R where none does.
    always_R: response tokens that are not ranked.
    """
    place_N = torch.cat([torch.arange(n) for n in lengths])
    prompt_N = place_N < torch.repeat_interleave(torch.tensor(lengths) - torch.tensor(counts), torch.tensor(lengths))
    index_N = torch.where(response_N, response_N.cumsum(0) - 1, sum(counts))
    ranked_R = (~prompt_N).nonzero()[:, 0]
    return {
        "prompt_N": prompt_N,
        "ranked_R": ranked_R,
        "ranked_as_R": index_N[ranked_R],
        "always_R": prompt_N[response_N],
    }


def segments_of(batch: dict, mass_layer: int | None = None, index_K: torch.Tensor | None = None) -> Segments:
    """Of the states before response tokens, or before those of ``index_K`` among them."""
    state_R = batch["response_R"] - 1
    prompt_N = batch["prompt_N"] if mass_layer is not None else None
    return Segments(batch["lengths"], state_R if index_K is None else state_R[index_K], mass_layer, prompt_N)


def to_grid(value_R: torch.Tensor, batch: dict) -> torch.Tensor:
    """[R] -> [B, longest response]: a row a sample, a column a response token; the rest is 0 (or False)."""
    grid_BR = value_R.new_zeros(len(batch["lengths"]), max(batch["response_counts"], default=0))
    return grid_BR.index_put((batch["row_R"], batch["column_R"]), value_R)


def from_grid(grid_BR: torch.Tensor, batch: dict) -> torch.Tensor:
    """[B, longest response] -> [R]."""
    return grid_BR[batch["row_R"], batch["column_R"]]


def at_ranked(value_R: torch.Tensor, batch: dict) -> torch.Tensor:
    """Of response tokens -> of what is ranked, with 0 where no response token lies (``prompt: leading``)."""
    return torch.cat([value_R, value_R.new_zeros(1)])[batch["ranked_as_R"]]


def from_ranked(value_R: torch.Tensor, batch: dict, always) -> torch.Tensor:
    """Of what is ranked -> of response tokens, with ``always`` for those that are not ranked (``prompt: leading``)."""
    found_R = value_R.new_full((len(value_R) + 1,), always).index_put((batch["ranked_as_R"],), value_R)[:-1]
    return found_R.masked_fill(batch["always_R"], always)


def signals_of(
    batch: dict,
    needs: frozenset[str],
    progress: float | None = None,
    mass_N: torch.Tensor | None = None,
    **measured_R: torch.Tensor,
) -> Signals:
    """The signals that a method asks for, as grids: those stored with the data, and those just measured."""
    leading = "ranked_R" in batch
    mask_BR = to_grid(torch.ones_like(batch["response_R"], dtype=torch.bool), batch)
    values = {name: value_R for name, value_R in batch.items() if name != "keep" and is_stored(name)} | measured_R
    if "probability" in needs and "loss" in measured_R:
        values["probability"] = measured_R["loss"].neg().exp()
    values = {name: at_ranked(v, batch) if leading else v for name, v in values.items() if name in needs}
    if mass_N is not None:
        values["attention_mass"] = mass_N[batch["ranked_R" if leading else "response_R"]]
    grids = {name: to_grid(value_R, batch) for name, value_R in values.items()}
    references = {name.split(":", 1)[1]: grids.pop(name) for name in list(grids) if ":" in name}
    return Signals(
        mask_BR=mask_BR,
        position_B=batch.get("seen_B", batch["position_B"]),
        index_B=batch["position_B"],
        references=references,
        progress=progress if "progress" in needs else None,
        **grids,
    )
