"""How far a grid is: what is done, and about how long is left, from the records that jobs leave."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from sstoken.experiment.grid import Grid
from sstoken.experiment.layout import HELD_OUT
from sstoken.records.provenance import DamagedRecord, read_record


class Progress:
    """Reads records as they appear.

    The time left is (mean seconds of a finished record × records missing) / (seconds of work done per second so far).
    The mean is over records of the same stage and model, or of the same stage where that model has finished none yet.
    A stage without any finished record has no estimate: the line then says how long the other stages will take.

    records: path -> (stage, model), of everything that the grid asks for, in order. tickets: path -> that of a record
    which counts; one of another ticket is still to be made. tables: title -> method -> records of its scores.
    apart: benchmarks that stand in no average.
    """

    def __init__(
        self,
        records: dict[Path, tuple[str, str]],
        tickets: Mapping[Path, str] | None = None,
        tables: Mapping[str, Mapping[str, list[Path]]] | None = None,
        apart: Collection[str] = (),
        now: Callable[[], float] = time.monotonic,
    ):
        self.records, self.now, self.apart = records, now, {*apart, HELD_OUT}
        self.tickets, self.tables = tickets or {}, dict(tables or {})
        self.seconds: dict[Path, float] = {}
        self._read()
        self.before, self.start = set(self.seconds), now()
        while self.first_table():  # of what was there before, which is no news
            pass

    @classmethod
    def of(cls, grid: Grid, tickets: Mapping[Path, str]) -> Progress:
        """Of a grid: each model's main table, and before them that of the first model's first seed, which is made first."""
        first, seeds = next(iter(grid.models)), grid.seeds
        tables = {f"Seed {seeds[0]} of {first}": grid.main_table(first, seeds[0])} if len(seeds) > 1 else {}
        tables |= {model: grid.main_table(model) for model in grid.models}
        return cls(grid.progress(), tickets, tables, grid.refusal_benchmarks)

    def _read(self) -> None:
        for path in self.records:
            if path not in self.seconds and path.exists():
                try:
                    record = read_record(path)
                except DamagedRecord:  # it is made again
                    continue
                if self.tickets.get(path) in (None, record.get("ticket")):
                    self.seconds[path] = record["cost"]["seconds"]

    def line(self) -> str:
        """E.g. ``trained 57 of 190, evaluated 40 of 194; about 6 minutes left``."""
        self._read()
        counts = [
            f"{stage} {sum(path in self.seconds for path in paths)} of {len(paths)}"
            for stage, paths in self._by_stage().items()
        ]
        return ", ".join(counts) + f"; {self._left()}"

    def first_table(self) -> str:
        """The scores of a table whose runs are all there, once a table; "" while there is none.

        Means without their intervals: those come with the tables.
        """
        for title, methods in self.tables.items():
            if all(path in self.seconds for paths in methods.values() for path in paths):
                del self.tables[title]
                width = max(map(len, methods))
                lines = [
                    f"  {method:{width}} {100 * _mean(paths, self.apart):6.2f}" for method, paths in methods.items()
                ]
                return "\n".join([f"{title} is done; mean scores:", *lines])
        return ""

    def _by_stage(self) -> dict[str, list[Path]]:
        stages = defaultdict(list)
        for path, (stage, _) in self.records.items():
            stages[stage].append(path)
        return stages

    def _left(self) -> str:
        missing = [key for path, key in self.records.items() if path not in self.seconds]
        done = [path for path in self.seconds if path not in self.before]
        work = sum(self.seconds[path] for path in done)
        if not missing:
            return "all done"
        if not work:
            return "time left is not known yet"
        means = defaultdict(list)
        for path, seconds in self.seconds.items():
            stage, model = self.records[path]
            means[stage, model].append(seconds)
            means[stage, None].append(seconds)
        seconds, unknown = 0.0, False
        for stage, model in missing:
            known = means.get((stage, model)) or means.get((stage, None))
            unknown = unknown or known is None
            seconds += sum(known) / len(known) if known else 0.0
        if not seconds:
            return "time left is not known yet"
        left = seconds * (self.now() - self.start) / work
        text = f"about {left / 60:.0f} minutes" if left >= 90 else f"about {left:.0f} seconds"
        stages = dict.fromkeys(stage for stage, _ in missing if (stage, None) in means)
        return f"{text} until all are {' and '.join(stages)}" if unknown else f"{text} left"

    def watch(
        self, say: Callable[[str], None], every: float = 30.0, then: Callable[[], None] | None = None
    ) -> threading.Event:
        """Say the line every so many seconds where something has changed; set the returned event to stop.

        then: called at each of these moments, once a table's scores are all there.
        """
        stop = threading.Event()

        def run() -> None:
            known, told = len(self.seconds), False
            while not stop.wait(every):
                line = self.line()
                if len(self.seconds) != known:
                    known = len(self.seconds)
                    say(line)
                    while table := self.first_table():
                        told = True
                        say(table)
                if told and then:
                    then()

        threading.Thread(target=run, daemon=True).start()
        return stop


def _mean(records: list[Path], apart: Collection[str]) -> float:
    """Over benchmarks, then over seeds; those apart count where there is nothing else."""
    read = [read_record(path)["scores"] for path in records]
    graded = [[row["score"] for row in rows if row["benchmark"] not in apart] for rows in read]
    runs = graded if all(graded) else [[row["score"] for row in rows] for rows in read]
    return sum(sum(scores) / len(scores) for scores in runs) / len(runs)
