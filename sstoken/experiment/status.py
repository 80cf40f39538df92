"""What of a grid is current, stale or missing, and why: ``python -m sstoken.experiment.status CONFIG [key=value …]``."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sstoken.experiment.config import load_config, settings_of
from sstoken.experiment.grid import Grid
from sstoken.experiment.tickets import Result, Tickets
from sstoken.records.documents import ConfigError
from sstoken.records.files import atomic_write
from sstoken.records.ticket import ChangedMeanwhile
from sstoken.selection.methods import MethodError

SHOWN = 4  # reasons of one result; the rest is counted
STATES = ("current", "stale", "missing")


@dataclass(frozen=True)
class State:
    """Of one result. state: out of STATES. changed: since a stale one was made."""

    stage: str
    model: str
    method: str
    seed: int | str
    state: str
    changed: str
    record: Path

    @property
    def line(self) -> str:
        name = " ".join(filter(None, [self.model, self.method, f"seed {self.seed}" if self.seed != "" else ""]))
        return f"{self.state:8} {self.stage} {name}" + (f": {self.changed}" if self.changed else "")


COLUMNS = ["model", "method", "seed", "stage", "state", "changed", "record"]


def status(grid: Grid) -> list[State]:
    """Of everything that the grid makes, each after all that it is made from."""
    tickets = Tickets(grid)
    return [_state(result, tickets.results) for result in tickets.results.values()]


def status_lines(config: dict) -> list[str]:
    """For a person: how many results of each stage are current, then each that is not, with what changed.

    Args:
        config: a checked configuration.
    """
    states = status(Grid(config))
    counts = Counter((state.stage, state.state) for state in states)
    lines = []
    for stage in dict.fromkeys(state.stage for state in states):
        found = [f"{counts[stage, state]} {state}" for state in STATES if counts[stage, state]]
        lines.append(f"{stage}: {', '.join(found)}")
    return lines + [state.line for state in states if state.state != "current"]


def write_status(states: list[State], path: Path, root: Path) -> None:
    """``status.csv``: model, method, seed, stage, state, changed, and the record, below ``root``, the experiment's folder."""
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for state in states:
            record = state.record.relative_to(root).as_posix()
            writer.writerow([*(getattr(state, column) for column in COLUMNS[:-1]), record])


def refuse_stale(states: list[State]) -> None:
    """A stale result stands in no table beside a current one.

    Raises:
        ChangedMeanwhile: code, settings or files were changed while the results were made.
    """
    stale = [state for state in states if state.state == "stale"]
    if stale:
        more = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
        raise ChangedMeanwhile(f"{stale[0].line}{more}: changed while this workflow ran; start it again")


def _state(result: Result, results: dict[Path, Result]) -> State:
    changed = result.changed()
    state = "missing" if changed is None else "stale" if changed else "current"
    run = result.run
    method = run.method if run else result.key[-1] if result.job == "losses" else ""
    if result.job == "world" and len(result.key) > 1:
        method = result.key[1]  # the condition whose rows they are
    seed = run.seed if run else next((part for part in result.key if isinstance(part, int)), "")
    if run and run.part is not None:
        method = f"{method} part {run.part}"
    reason = "; ".join(_explained(result, changed or [], results))
    return State(result.stage, result.model, method, seed, state, reason, result.record)


def _explained(result: Result, changed: list[str], results: dict[Path, Result]) -> list[str]:
    """What changed, and of another result that this one is made from, what changed there."""
    found = []
    for what in changed:
        need = result.ticket.needs.get(what)
        above = results.get(Path(need[1])) if need else None
        reasons = _explained(above, above.changed() or [], results) if above else []
        found.append(f"{what} ({'; '.join(reasons)})" if reasons else what)
    shown = found[:SHOWN]
    return shown + ([f"{len(found) - len(shown)} more"] if len(found) > len(shown) else [])


def main(arguments: list[str]) -> None:
    path, *settings = arguments
    try:
        print("\n".join(status_lines(load_config(path, **settings_of(settings)))))
    except (ConfigError, MethodError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
