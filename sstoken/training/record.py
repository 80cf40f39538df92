"""What a run chose: each response token's score and fate, each sample's step, and totals; and its part of a checkpoint.

Shapes: S samples, R response tokens of the data set (of a micro-batch where a batch is given), W ranks.
"""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from sstoken.records.files import atomic_write
from sstoken.training.history import History

STATE_FILE = "selection_state.safetensors"
COUNTED = ("tokens", "response_tokens", "kept_tokens", "projected_tokens", "history_tokens", "attention_pairs")


class SelectionRecord:
    """Filled micro-batch by micro-batch; what is on the device stays there until ``flush``.

    response_offset: int64 [S+1] of the data.

    Attributes:
        values: ``score`` float32 [R], ``keep`` bool [R], ``step`` int32 [S]; NaN, False and -1 where not trained yet.
        counted: totals over the run, of this process until ``of_all_ranks`` has summed them.
    """

    def __init__(self, response_offset: torch.Tensor):
        self.offset = response_offset
        total = int(response_offset[-1])
        self.values = {
            "score": torch.full((total,), float("nan")),
            "keep": torch.zeros(total, dtype=torch.bool),
            "step": torch.full((len(response_offset) - 1,), -1, dtype=torch.int32),
        }
        self.counted = dict.fromkeys(COUNTED, 0)
        self._pending: list[tuple] = []

    def add(self, batch: dict, score_R: torch.Tensor, keep_R: torch.Tensor, step: int, *, all_losses: bool) -> None:
        """Take in a micro-batch without asking the device for anything."""
        self._pending.append((batch["position_B"], batch["response_counts"], score_R, keep_R, step))
        response, kept = sum(batch["response_counts"]), sum(batch["kept_counts"])
        lengths = [n for n, responses in zip(batch["lengths"], batch["response_counts"], strict=True) if responses]
        added = (sum(lengths), response, kept, response if all_losses else kept, 0, sum(n * n for n in lengths))
        for name, value in zip(COUNTED, added, strict=True):
            self.counted[name] += value

    def flush(self) -> None:
        """Move the masks of the last steps to the host: once a log line, not once a step."""
        for position_B, counts, score_R, keep_R, step in self._pending:
            parts = zip(position_B.tolist(), score_R.cpu().split(counts), keep_R.cpu().split(counts), strict=True)
            for position, score, keep in parts:
                if position < 0:  # evens out the ranks
                    continue
                place = slice(int(self.offset[position]), int(self.offset[position + 1]))
                self.values["score"][place], self.values["keep"][place] = score, keep
                self.values["step"][position] = step
        self._pending = []

    def of_all_ranks(self, accelerator: Accelerator) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
        """values and counted over every rank: of each sample what the rank says that trained on it last."""
        if accelerator.num_processes == 1:
            return self.values, self.counted
        device = accelerator.device
        counted = accelerator.reduce(torch.tensor(list(self.counted.values()), device=device), "sum").tolist()
        gathered = {n: accelerator.gather(v[None].to(device)).cpu() for n, v in self.values.items()}  # [W, ...]
        last_S = gathered["step"].argmax(0)
        last_R = torch.repeat_interleave(last_S, self.offset.diff())
        owner = {"score": last_R, "keep": last_R, "step": last_S}
        values = {n: v.gather(0, owner[n][None])[0] for n, v in gathered.items()}
        return values, dict(zip(COUNTED, counted, strict=True))


def save_state(
    folder: Path, record: SelectionRecord, history: History, seconds: float, accelerator: Accelerator
) -> None:
    """Write the selection's part of a checkpoint; every rank calls this, the first one writes."""
    record.flush()
    values, counted = record.of_all_ranks(accelerator)
    if not accelerator.is_main_process:
        return
    state = {f"record.{name}": value for name, value in values.items()}
    state |= {f"history.{name}": value.contiguous() for name, value in history.weights.items()}
    state["counted"] = torch.tensor(list(counted.values()), dtype=torch.int64)
    state["seconds"] = torch.tensor(seconds, dtype=torch.float64)
    with atomic_write(folder / STATE_FILE) as temporary:
        save_file(state, temporary)


def load_state(folder: Path, record: SelectionRecord, history: History, *, first: bool) -> float:
    """Go on from a checkpoint. ``first`` is for one rank, which carries on the totals of all; returns the seconds spent."""
    state = load_file(folder / STATE_FILE)
    record.values = {name: state[f"record.{name}"] for name in record.values}
    if first:
        record.counted = dict(zip(COUNTED, state["counted"].tolist(), strict=True))
    history.load({n.removeprefix("history."): v for n, v in state.items() if n.startswith("history.")})
    return float(state["seconds"])
