"""What a run chose: each response token's score and fate, each sample's step, and totals; and its part of a checkpoint.

Shapes: S samples, R response tokens of the data set (of a micro-batch where a batch is given), W ranks.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sstoken.data import TokenData
from sstoken.records.files import atomic_write
from sstoken.selection.methods import Method
from sstoken.training.history import History
from sstoken.training.objective import Choice
from sstoken.training.rows import RowChoice

STATE_FILE = "selection_state.safetensors"
COUNTED = (
    "tokens",
    "response_tokens",
    "kept_tokens",
    "projected_tokens",
    "history_tokens",
    "attention_pairs",
    "candidate_tokens",
)


class CheckpointError(ValueError):
    """A checkpoint that this run cannot go on from."""


class SelectionRecord:
    """Filled micro-batch by micro-batch; what is on the device stays there until ``flush``.

    data: the S samples of the run.

    Attributes:
        values: ``score`` float32 [R], ``keep`` bool [R], ``step`` int32 [S]; NaN, False and -1 where not trained yet.
        counted: totals over the run, of this process until ``of_all_ranks`` has summed them.
    """

    def __init__(self, data: TokenData):
        self.data, self.offset = data, data.response_offset
        total = int(self.offset[-1])
        self.values = {
            "score": torch.full((total,), float("nan")),
            "keep": torch.zeros(total, dtype=torch.bool),
            "step": torch.full((len(data),), -1, dtype=torch.int32),
        }
        self.counted = dict.fromkeys(COUNTED, 0)
        self._pending: list[tuple] = []

    def add(self, batch: dict, choice: Choice, loss_R: torch.Tensor, step: int, *, projected: int) -> None:
        """Take in a micro-batch without asking the device for anything. projected: tokens whose logits were computed."""
        columns = (choice.score_R, choice.keep_R, loss_R)
        self._pending.append((batch["position_B"], batch["response_counts"], *columns, step))
        lengths = [n for n, responses in zip(batch["lengths"], batch["response_counts"], strict=True) if responses]
        added = (sum(lengths), sum(batch["response_counts"]), 0, projected, 0, sum(n * n for n in lengths), 0)
        for name, value in zip(COUNTED, added, strict=True):
            self.counted[name] += value

    def flush(self) -> list[tuple[int, str]]:
        """Move the masks of the last steps to the host: once a log line, not once a step.

        Returns:
            (step, counted from 1, and id) of every sample whose loss is not finite.
        """
        diverged = []
        for position_B, counts, score_R, keep_R, loss_R, step in self._pending:
            keep_R = keep_R.cpu()
            self.counted["kept_tokens"] += int(keep_R.sum())
            columns = (value_R.cpu().split(counts) for value_R in (score_R, keep_R, loss_R))
            for position, score, keep, loss in zip(position_B.tolist(), *columns, strict=True):
                if position < 0:  # evens out the ranks
                    continue
                if not loss.isfinite().all():
                    diverged.append((step + 1, self.data.ids[position]))
                place = slice(int(self.offset[position]), int(self.offset[position + 1]))
                self.values["score"][place], self.values["keep"][place] = score, keep
                self.values["step"][position] = step
        self._pending = []
        return diverged

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
    folder: Path,
    record: SelectionRecord,
    history: History,
    rows: RowChoice | None,
    seconds: float,
    accelerator: Accelerator,
) -> None:
    """Write the selection's part of a checkpoint; every rank calls this, the first one writes."""
    values, counted = record.of_all_ranks(accelerator)
    if not accelerator.is_main_process:
        return
    state = {f"record.{name}": value for name, value in values.items()}
    state |= {f"history.{name}": value.contiguous() for name, value in history.weights.items()}
    if rows:
        state |= {f"rows.{name}": value.contiguous() for name, value in rows.memory.items()}
    state["counted"] = torch.tensor(list(counted.values()), dtype=torch.int64)
    state["seconds"] = torch.tensor(seconds, dtype=torch.float64)
    metadata = {"tokens_sha256": record.data.sha256, "method": _name_of(history.method)}
    with atomic_write(folder / STATE_FILE) as temporary:
        save_file(state, temporary, metadata=metadata)


def load_state(
    folder: Path, record: SelectionRecord, history: History, rows: RowChoice | None, *, first: bool
) -> float:
    """Go on from a checkpoint. ``first`` is for one rank, which carries on the totals of all; returns the seconds spent.

    Raises:
        CheckpointError: a checkpoint without the selection's state, or of other data or another method.
    """
    path = folder / STATE_FILE
    if not path.exists():
        raise CheckpointError(
            f"{folder} has no {STATE_FILE}: it was cut short or is not SelectionTrainer's; use another"
        )
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("tokens_sha256") != record.data.sha256:
        raise CheckpointError(f"{folder} was made on other rows; start anew, or resume on the rows that it was made on")
    if metadata.get("method") != _name_of(history.method):
        raise CheckpointError(f"{folder} was made by {metadata.get('method')}, not by {_name_of(history.method)}")
    state = load_file(path)
    record.values = {name: state[f"record.{name}"] for name in record.values}
    if first:
        record.counted = dict(zip(COUNTED, state["counted"].tolist(), strict=True))
    history.load({n.removeprefix("history."): v for n, v in state.items() if n.startswith("history.")})
    if rows:
        rows.memory = {name: state[f"rows.{name}"] for name in rows.memory}
    return float(state["seconds"])


def _name_of(method: Method) -> str:
    """The method with all that its masks and loss depend on."""
    settings = {f.name: getattr(method, f.name) for f in fields(method) if f.compare}
    return f"{type(method.scorer).__module__} {settings}"
