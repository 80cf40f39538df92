"""What is still to be made, and in which jobs: one result each, or several where a run takes seconds.

A job is named by what it makes.  It leaves an empty file when all of it is there; jobs that need it wait for that file.
Results that are current belong to no job.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from sstoken.experiment.audited import audit_results
from sstoken.experiment.grid import Grid
from sstoken.experiment.tickets import Result, Tickets
from sstoken.records.documents import located
from sstoken.records.files import atomic_write, sha256_file
from sstoken.records.identity import code_of, name_of

# rules whose job makes several results of a model where the configuration says so
SHARED = ("tokens", "losses", "train", "evaluate")

# of a turn's jobs, what training waits for comes first, evaluations last: nothing waits for those, and they fill the cores
# to the end
FIRST, TRAINING, LAST = 2, 1, 0
AMONG_ITS_TURN = {"train": TRAINING, "evaluate": LAST}  # rule -> which; of any other FIRST

FETCH = "fetch_"  # how the rules that need network are called

# what the rules of a report, and those of an audit, write below the experiment's folder
WRITTEN = {"report": ("*.csv", "samples.parquet", "report/**/*"), "audit": ("audit/**/*",)}


@dataclass(frozen=True)
class Job:
    """One job. rule: of the workflow. name: of its files. results: in order. waits: for the jobs that leave these files."""

    rule: str
    name: str
    results: tuple[Result, ...]
    waits: tuple[str, ...]

    @property
    def title(self) -> str:
        """What the job is, for a line in the terminal."""
        runs = [result.run for result in self.results if result.run]
        if not runs:
            keys = [".".join(str(part) for part in result.key if part is not None) for result in self.results]
            model = self.results[0].model if self.rule in SHARED else ""
            return " ".join(filter(None, [model, ", ".join(dict.fromkeys(filter(None, keys)))]))
        names = list(dict.fromkeys(run.method for run in runs))
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        if len(runs) > 1:
            return f"{runs[0].model}: {shown}, {len(runs)} runs"
        part = "" if runs[0].part is None else f", part {runs[0].part}"
        return f"{runs[0].model}: {shown}, seed {runs[0].seed}{part}"

    def plain(self) -> dict:
        """What the job must be told, as it is written down for a job that runs elsewhere."""
        results = [
            {"record": str(r.record), "ticket": asdict(r.ticket), "key": list(r.key), "run": r.run and asdict(r.run)}
            for r in self.results
        ]
        model = self.results[0].model
        return {"title": self.title, "waits": list(self.waits), "model": model, "results": results}


class Jobs:
    """Everything that is to be done for a grid.

    Args:
        plan: False in a job's own process, where its order is read from the file that the workflow has written.
    """

    def __init__(self, grid: Grid, *, plan: bool = True):
        self.grid, self.folder = grid, grid.root / "jobs"
        self.tickets = Tickets(grid) if plan else None
        self.jobs: dict[tuple[str, str], Job] = {}
        self.made_by: dict[Path, str] = {}
        if self.tickets:
            self.targets = set(self.tickets.results)
            self.audited = {model: audit_results(self.tickets, model) for model in grid.models}
            results = list(self.tickets.results.values())
            self.todo = [result for result in results if _told(result) != []]
            for rule, group in self._groups():
                self._add(rule, group)

    def done(self, rule: str, name: str) -> str:
        return str(self.folder / rule / f"{name}.done")

    def order(self, rule: str, name: str) -> dict:
        """Of one job, e.g. of a rule's wildcards."""
        if job := self.jobs.get((rule, name)):
            return job.plain()
        return json.loads((self.folder / rule / f"{name}.json").read_text())

    def all_done(self) -> list[str]:
        """The files that the jobs leave which the grid asks for."""
        return [self.done(*key) for key, job in self.jobs.items() if any(r.record in self.targets for r in job.results)]

    def fetched(self) -> list[str]:
        """The files that the jobs leave which need network."""
        return [self.done(*key) for key in self.jobs if key[0].startswith(FETCH)]

    def audit_waits(self, model: str) -> list[str]:
        """The files that the jobs leave which a model's audit waits for; the held-out rows are read for it alone."""
        records = [result.record for result in self.audited[model]] if self.tickets else []
        return list(dict.fromkeys(self.made_by[record] for record in records if record in self.made_by))

    def audit(self, *said) -> str:
        """The name of the audits of these results, by this code; written down as the report's is."""
        if self.tickets:
            names = [result.ticket.name for results in self.audited.values() for result in results]
            return name_of([code_of("audit"), code_of("train"), names, *said])
        return (self.folder / "report" / "audit").read_text()

    def wanted(self) -> dict[Path, str]:
        """Record -> the ticket that it has once its result is current."""
        return {path: result.ticket.name for path, result in self.tickets.results.items()}

    def priority(self, rule: str, name: str) -> int:
        """Of a job, for Snakemake's choice among those that can start: the earlier turn first. 0 in a job's own process."""
        if not (job := self.jobs.get((rule, name))):
            return 0
        turns_left = len(self.grid.seeds) - self._turn(job.results[0])  # a job's results are all of one turn
        return (FIRST + 1) * turns_left + AMONG_ITS_TURN.get(rule, FIRST)

    @cached_property
    def turns(self) -> dict[Path, int]:
        """When each result is to be made: the first model's main table seed by seed, from 0, then all else together.

        A table of one seed tells a first answer early.  What a table needs, however far below it, is of that table's turn.
        What comes from the hub is of the first: all training waits for it.
        """
        model = next(iter(self.grid.models))
        turns = {path: 0 for path, result in self.tickets.results.items() if result.job.startswith(FETCH)}
        for turn, seed in enumerate(self.grid.seeds):
            waiting = [path for paths in self.grid.main_table(model, seed).values() for path in paths]
            while waiting:
                path = waiting.pop()
                if path in self.tickets.results and path not in turns:
                    turns[path] = turn
                    waiting += map(Path, self.tickets.results[path].ticket.records())
        return turns

    def report(self, *said) -> str:
        """The report's name; in a job's own process that which the workflow has written down."""
        if self.tickets:
            return self.tickets.report(*said)
        return (self.folder / "report" / "name").read_text()

    def asked(self) -> dict[str, str]:
        """What the configuration and the tables that it names say, by hash: jobs in processes of their own read them again."""
        config = self.grid.config
        files = [str(config[key]) for key in config if key.endswith("_file") and config[key]]
        hashes = {file: sha256_file(located(file)) for file in files}
        return {"the configuration": name_of(config), **hashes}

    def changed_since_the_start(self) -> list[str]:
        """In a job's own process: what is no longer as it was when the workflow wrote its orders."""
        path = self.folder / "asked.json"
        started = json.loads(path.read_text()) if path.exists() else {}
        return [what for what, known in self.asked().items() if started.get(what, known) != known]

    def write(self, report: str, audit: str) -> None:
        """The orders, the report's name and the audit's, for jobs in processes of their own."""
        _write(self.folder / "asked.json", json.dumps(self.asked(), indent=1))
        for (rule, name), job in self.jobs.items():
            _write(self.folder / rule / f"{name}.json", json.dumps(job.plain(), indent=1))
        _write(self.folder / "report" / "name", report)
        _write(self.folder / "report" / "audit", audit)

    def forget(self, report: str) -> None:
        """Remove what says that a job is done which is to be done again, and that the report is which waits for it."""
        for key in self.jobs:
            Path(self.done(*key)).unlink(missing_ok=True)
        if self.all_done() or self._edited("report"):
            for path in (self.folder / "report").glob(f"*.{report}.done"):
                path.unlink(missing_ok=True)
        if self._edited("audit"):
            for path in (self.folder / "audit").glob("*.done"):
                path.unlink(missing_ok=True)

    def seal(self, kind: str) -> None:
        """Write down what a report or an audit is, so that an edit of its files, or a cut one, is seen."""
        files = [path for pattern in WRITTEN[kind] for path in sorted(self.grid.root.glob(pattern)) if path.is_file()]
        hashes = {path.relative_to(self.grid.root).as_posix(): sha256_file(path) for path in files}
        _write(self.folder / kind / "files.json", json.dumps(hashes, indent=1))

    def _edited(self, kind: str) -> bool:
        sealed = self.folder / kind / "files.json"
        known = json.loads(sealed.read_text()) if sealed.exists() else {}
        paths = {name: self.grid.root / name for name in known}
        found = [path for name, path in paths.items() if not path.exists() or sha256_file(path) != known[name]]
        for path in found[:1]:
            print(f"{path} is gone, was cut, or edited by hand: the {kind} is made again", file=sys.stderr, flush=True)
        return bool(found)

    def replace(self, kind: str, name: str) -> None:
        """Remove what says that a report or an audit of other settings is done: its files are about to be replaced."""
        for path in (self.folder / kind).glob("*.done"):
            if not path.name.endswith(f".{name}.done"):
                path.unlink()

    def _add(self, rule: str, results: tuple[Result, ...]) -> None:
        own = {result.record for result in results}
        needed = (path for r in results for path in map(Path, r.ticket.records()) if path not in own)
        waits = tuple(dict.fromkeys(self.made_by[path] for path in needed if path in self.made_by))
        content = name_of([[str(r.record), r.ticket.name] for r in results])[:8]
        first = results[0]
        said = first.run.method if first.run else "-".join(str(part) for part in first.key if part is not None)
        name = ".".join(filter(None, [first.model, said.replace("/", "-"), content]))
        self.jobs[rule, name] = Job(rule, name, results, waits)
        self.made_by |= dict.fromkeys(own, self.done(rule, name))

    def _groups(self) -> Iterable[tuple[str, tuple[Result, ...]]]:
        """(rule, results of one job), each after those that it waits for."""
        size = self.grid.config["runs_in_one_job"]
        together: dict[tuple, list[Result]] = {}
        for result in self.todo:
            shared = result.job in SHARED and size > 1
            if result.job == "fetch_benchmarks":
                key: tuple = (0, 0, result.job)
            else:
                when = self._levels[result.record], self._turn(result)
                key = (*when, result.job, result.model) if shared else (*when, result.record)
            together.setdefault(key, []).append(result)
        for key in sorted(together, key=lambda key: key[:2]):
            for chunk in _chunks(together[key], size, lambda r: r.run):
                yield chunk[0].job, chunk

    def _turn(self, result: Result) -> int:
        return self.turns.get(result.record, len(self.grid.seeds))

    @cached_property
    def _levels(self) -> dict[Path, int]:
        """How many jobs must have been done, one after the other, before a result's own can start.

        The parts of a chain are made in the job of the run's end, where runs share jobs at all.
        """
        shared = self.grid.config["runs_in_one_job"] > 1
        todo = {result.record for result in self.todo}
        levels: dict[Path, int] = {}
        for record, result in self.tickets.results.items():
            below = [0]
            for path in map(Path, result.ticket.records()):
                same_job = shared and result.job == "train" and self.tickets.results[path].job == "train"
                below.append(levels[path] + (path in todo and not same_job))
            levels[record] = max(below)
        return levels


def _told(result: Result) -> list[str] | None:
    """What changed of a result; a file that is not what its job wrote is named on the terminal too."""
    changed = result.changed()
    for what in changed or []:
        if what.endswith("edited by hand"):
            print(f"{result.record.parent}/{what}: made again", file=sys.stderr, flush=True)
    return changed


def _chunks(results: list[Result], size: int, run_of: Callable) -> list[tuple[Result, ...]]:
    """About equal numbers of runs each, a method's together and a chain counting once: none left with a single one."""
    methods: dict[object, list[Result]] = {}
    for result in results:
        run = run_of(result)
        methods.setdefault(run.method if run else result.record, []).append(result)
    counts = [sum(r.run is None or r.run.part is None for r in group) for group in methods.values()]
    jobs = max(1, round(sum(counts) / size))
    chunks: list[list[Result]] = [[] for _ in range(jobs)]
    done = 0
    for group, count in zip(methods.values(), counts, strict=True):
        chunks[min(int(done * jobs / max(sum(counts), 1)), jobs - 1)] += group
        done += count
    return [tuple(chunk) for chunk in chunks if chunk]


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        Path(temporary).write_text(text)
