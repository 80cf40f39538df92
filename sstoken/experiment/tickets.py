"""The ticket of everything that a grid makes: what each result is to be made from (``sstoken.records.identity``)."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from sstoken.evaluation import EvaluationSettings, benchmark_identity, load_benchmarks
from sstoken.experiment.conditions import OPTIONS
from sstoken.experiment.grid import Grid
from sstoken.experiment.layout import HELD_OUT, Run
from sstoken.records.documents import PACKAGE, read_table
from sstoken.records.files import sha256_file
from sstoken.records.identity import (
    LENGTH,
    code_of,
    name_of,
    report_code,
    scorer_code,
    versions_of,
)
from sstoken.records.provenance import DamagedRecord, read_record
from sstoken.records.ticket import Ticket, changes, edited, whole
from sstoken.selection.methods import Method, full

# keys of ``training`` that say how a run is carried out, not what comes out
CARRIED_OUT = ("checkpoint_every",)


@dataclass(frozen=True)
class Result:
    """Something that one job makes. record: written last, as the sign that it is whole.

    stage: as costs.csv has it. job: the workflow's rule. key: its arguments, for the rule. run: of training and scores.
    """

    stage: str
    job: str
    record: Path
    ticket: Ticket
    model: str = ""
    key: tuple = ()
    run: Run | None = None

    def changed(self) -> list[str] | None:
        """What is not as the ticket asks for; [] where the result is current, None where there is none."""
        if not self.record.exists():
            return None
        try:
            record = read_record(self.record)
        except DamagedRecord:
            return [f"{self.record.name} was cut, or edited by hand"]
        if not whole(self.record, record):
            return None
        return (
            [f"{name} was cut, or edited by hand" for name in edited(self.record, record)]
            or changes(record, self.ticket)
            or [
                f"{what} (made again, with another content)"
                for what, (_, path, key) in self.ticket.needs.items()
                if _content(path, key) not in (None, record["contents"].get(what))
            ]
        )


class Tickets:
    """Of one grid. results: record -> result, each after all that it is made from."""

    def __init__(self, grid: Grid):
        self.grid, self.config = grid, grid.config
        self.results: dict[Path, Result] = {}
        for name, source in grid.hub.rows.items():
            self._rows(name, source)
        for path in grid.hub.benchmarks:
            self._benchmark(path)
        for model in grid.models:
            self.model(model)
        for run in grid.runs():
            self.run(run)
        for path, run in grid.evaluated().items():
            self._evaluation(path, run)

    def _add(self, record: Path, stage: str, job: str, ticket: Ticket, **options) -> Result:
        result = Result(stage, job, record, ticket, **options)
        return self.results.setdefault(record, result)

    def _need(self, result: Result, key: str = "content") -> tuple[str, str, str]:
        return result.ticket.name, str(result.record), key

    # what comes from elsewhere

    def _rows(self, name: str, source: str) -> Result:
        record = self.grid.hub.folder / f"{name}.json"
        if record in self.results:
            return self.results[record]
        ticket = Ticket("rows", {"source": source, **code_of("rows"), **versions_of("rows")})
        return self._add(record, "fetch", "fetch_rows", ticket, key=(name,))

    def _benchmark(self, record: Path) -> Result:
        if record in self.results:
            return self.results[record]
        (benchmark,) = load_benchmarks(self.config["benchmarks_file"], [record.stem])
        pins = {row["name"]: row["revision"] for row in read_table(self.config["datasets_file"], "datasets")}
        made_from = {"task": benchmark.task, "data": benchmark.data, "shots": benchmark.shots > 0, "commits": pins}
        ticket = Ticket("benchmarks", {**made_from, **code_of("benchmarks"), **versions_of("benchmarks")})
        return self._add(record, "fetch", "fetch_benchmarks", ticket, key=(record.stem,))

    def world(self, draw: int | None, condition: str = "") -> Result:
        record = self.grid.world_folder(draw, condition) / "world.json"
        rows_only = draw is not None or bool(condition)
        made_from = {"seed": self.grid.world_seed(draw), "rows_only": rows_only}
        options = self.grid.world_options(condition)
        # an option written out as it is anyhow makes no other world
        made_from |= {f"world.options.{k}": v for k, v in options.items() if k not in OPTIONS or v != OPTIONS[k]}
        ticket = Ticket("world", made_from | code_of("world"))
        return self._add(record, "world", "world", ticket, key=(draw, condition) if condition else (draw,))

    @cache  # noqa: B019 one object a process
    def model(self, name: str) -> Result:
        entry = self.grid.models[name]
        kind, _, where = entry.source.partition(":")
        made_from = {"source": entry.source, "revision": entry.revision}
        made_from |= {"size": entry.size} if kind == "random" else {}
        stage, needs = f"{kind} model" if kind in ("random", "gguf") else "model", {}
        if base := self.grid.base_record(name):
            share = {"base": where, "world.pretrain_share": self.config["world"]["pretrain_share"]}
            share |= {"world.options.facts": self.grid.facts} if self.grid.facts else {}
            ticket = Ticket("pretrain", {**share, **code_of("pretrain"), **versions_of("pretrain")})
            pretrained = self._add(base, "pretrain", "pretrain", ticket, key=(where,))
            needs["base"] = self._need(pretrained)
        else:
            made_from |= _hashes(_model_files(kind, where))
        record = self.grid.model_record(name)
        ticket = Ticket(stage, {**made_from, **code_of(stage), **versions_of(stage)}, needs)
        job = "fetch_model" if kind == "hub" else "model"
        return self._add(record, "model", job, ticket, model=name, key=(name,))

    # what it is made into

    @cache  # noqa: B019
    def tokens(self, model: str, dataset: str, draw: int | None) -> Result:
        made_from: dict = {f"text.{key}": value for key, value in self.config["text"].items()}
        needs = {"tokenizer": self._need(self.model(model), "tokenizer")}
        parts = dataset.split("+")
        for number, section in enumerate(self.grid.sections(dataset, draw)):
            world = self.grid.worlds.get(parts[number], "")
            made_from |= {f"data.{number}.{key}": value for key, value in section.items() if key != "sources"}
            made_from[f"data.{number}.sources"] = [Path(source).name for source in section["sources"]]
            hashes, more = self._sources(section, draw, world)
            made_from |= hashes
            needs |= more
        file = self.grid.tokens(model, dataset, draw)
        ticket = Ticket("tokens", {**made_from, **code_of("tokens"), **versions_of("tokens")}, needs)
        return self._add(file.with_suffix(".json"), "tokens", "tokens", ticket, model=model, key=(dataset, draw))

    @cache  # noqa: B019
    def heldout(self) -> Result:
        """Rows of the benchmark of held-out loss: the data set's own, but for what any other data set holds."""
        made_from, needs = {}, {}
        for name in sorted(self.config["data"]):
            for section in self.grid.sections(name):
                made_from |= {f"data.{name}.{k}": section[k] for k in ("skip", "limit", "shuffle_seed")}
                hashes, more = self._sources(section, None)
                made_from |= hashes
                needs |= more
        made_from["text.on_bad_row"] = self.config["text"]["on_bad_row"]
        ticket = Ticket("heldout", {**made_from, **code_of("heldout"), **versions_of("heldout")}, needs)
        return self._add(self.grid.heldout_record, "heldout", "heldout", ticket, key=(HELD_OUT,))

    def _sources(self, section: dict, draw: int | None, world: str = "") -> tuple[dict, dict]:
        """What a data set's rows are read from: hashes of files, and what jobs of this workflow make."""
        made_from, needs = {}, {}
        for source in section["sources"]:
            if self.grid.is_generated(source):
                needs[f"world {world}".strip()] = self._need(self.world(draw, world))
            elif (name := Path(source).stem) in self.grid.hub.rows and Path(source).parent == self.grid.hub.folder:
                needs[f"rows {name}"] = self._need(self._rows(name, self.grid.hub.rows[name]))
            else:
                made_from |= _hashes(_files_of(Path(source)))
        return made_from, needs

    @cache  # noqa: B019
    def losses(self, model: str, dataset: str, draw: int | None, label: str) -> Result:
        made_from = {f"references.{key}": value for key, value in self.config["references"].items()}
        needs = {
            "model": self._need(self.model(model)),
            f"tokens of {dataset}": self._need(self.tokens(model, dataset, draw)),
        }
        if label == "unconditional":
            made_from["read"] = "responses without their prompts"
        if run := self.grid.run_of(model, label):
            needs[f"run {label}"] = self._need(self.run(run))
        ticket = Ticket("losses", {**made_from, **code_of("losses"), **versions_of("losses")}, needs)
        file = self.grid.losses(model, dataset, label, draw)
        return self._add(
            file.with_suffix(".json"), "references", "losses", ticket, model=model,
            key=(dataset, draw, label),
        )  # fmt: skip

    @cache  # noqa: B019
    def run(self, run: Run) -> Result:
        """Of a run, and of every part of a chain before it."""
        grid = self.grid
        order = grid.order(run)
        method = grid.method_of(run)
        draw = grid.draw(method.data, run.seed)
        tokens = self.tokens(run.model, method.data, draw)
        needs = {"model": self._need(self.model(run.model)), f"tokens of {method.data}": self._need(tokens)}
        if "truth" in method.needs:
            needs["truth"] = self._need(tokens, "truth")
        for signal, label in order["labels"].items():
            needs[f"{signal} of {label}"] = self._need(self.losses(run.model, method.data, draw, label))
        if before := grid.previous(run):
            needs["part before"] = self._need(self.run(before))
        made_from = {f"method.{key}": value for key, value in settings_of_method(method).items()}
        made_from |= _flat("training", {k: v for k, v in order["training"].items() if k not in CARRIED_OUT})
        made_from |= {f"parallel.{key}": value for key, value in order["parallel"].items()}
        made_from |= {"seed": run.seed, "part": grid.part(run), **code_of("train"), **versions_of("train")}
        made_from |= scorer_code(type(method.scorer))
        if other := getattr(method.scorer, "other", None):  # whose weights a control averages
            made_from |= scorer_code(type(other))
        if method.reference == "previous":
            made_from |= scorer_code(full.Config) | code_of("losses")
            made_from["references.batch_tokens"] = self.config["references"]["batch_tokens"]
        record = grid.run_record(run)
        return self._add(
            record, "train", "train", Ticket("train", made_from, needs), model=run.model, run=run,
        )  # fmt: skip

    def _evaluation(self, record: Path, run: Run) -> Result:
        grid = self.grid
        needs = {
            "model": self._need(self.model(run.model)),
            "tokenizer": self._need(self.model(run.model), "tokenizer"),
        }
        if grid.all_methods[run.method].trains:
            needs["run"] = self._need(self.run(run))
        made_from = {f"evaluation.{key}": value for key, value in grid.evaluation.items()}
        made_from |= self._benchmarks() | code_of("evaluate") | versions_of("evaluate")
        if grid.is_generated(grid.benchmarks_data):
            needs["world"] = self._need(self.world(None), "benchmarks")
        else:
            for path in grid.hub.benchmarks:
                needs[f"rows of {path.stem}"] = self._need(self._benchmark(path))
        if grid.heldout_rows:
            needs[f"rows of {HELD_OUT}"] = self._need(self.heldout())
        return self._add(
            record, "evaluate", "evaluate", Ticket("evaluate", made_from, needs), model=run.model, run=run,
        )  # fmt: skip

    @cache  # noqa: B019
    def _benchmarks(self) -> dict[str, str]:
        """Of every benchmark all that its scores depend on, rows that a job of this workflow brings apart."""
        grid = self.grid
        own = not (grid.is_generated(grid.benchmarks_data) or grid.hub.benchmarks)
        root, settings = grid.benchmarks_data if own else None, EvaluationSettings(**grid.evaluation)
        found = load_benchmarks(self.config["benchmarks_file"], self.config["benchmarks"])
        made = [HELD_OUT] if grid.heldout_rows else []  # by a job, whose content counts
        roots = {b.name: None if b.name in made else root for b in found}
        return {f"benchmark {b.name}": benchmark_identity(b, settings, roots[b.name])[:LENGTH] for b in found}

    def report(self, *said) -> str:
        """The name of a report: of its code, of every result that it is drawn from, and of what it is told."""
        return name_of([report_code(), [result.ticket.name for result in self.results.values()], *said])


def _content(record: str, key: str) -> str | None:
    """What a record says of its result's content; None where it says nothing, or is none."""
    try:
        return read_record(record).get(key)
    except (FileNotFoundError, DamagedRecord):
        return None


def settings_of_method(method: Method) -> dict:
    """An entry complete with its defaults: two ways of writing one method are one; names and sources do not count."""
    plain = asdict(replace(method, name="", source=""))
    scorer = plain.pop("scorer")
    for key in ("name", "source", "claim", "kind", "learning_rate_factor", "steps_factor"):
        plain.pop(key, None)
    return plain | {f"parameters.{key}": value for key, value in (scorer or {}).items()}


def _flat(name: str, settings: dict) -> dict:
    found: dict = {}
    for key, value in settings.items():
        found |= _flat(f"{name}.{key}", value) if isinstance(value, dict) else {f"{name}.{key}": value}
    return found


def _model_files(kind: str, where: str) -> list[Path]:
    if kind == "local":
        return [file for file in _files_of(Path(where)) if not _hidden(file, Path(where))]
    if kind == "world":
        return _files_of(PACKAGE / "world" / "weights" / where)
    if kind == "gguf":
        package, _, name = where.partition("/")
        spec = importlib.util.find_spec(package)
        return sorted(Path(spec.origin).parent.rglob(name))[:1] if spec and spec.origin else []
    return []


def _files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _hidden(file: Path, below: Path) -> bool:
    """As a ``.git`` is, which is no part of a model and is not copied with it."""
    return any(part.startswith(".") for part in file.relative_to(below).parts)


def _hashes(files: list[Path]) -> dict[str, str]:
    """A file that is not there has no hash yet; the job that reads it says so."""
    return {_shown(file): sha256_file(file)[:LENGTH] for file in files if file.exists()}


def _shown(file: Path) -> str:
    """Not by a place of this machine, where it is the package's own file or another package's: results move to others."""
    if file.is_relative_to(PACKAGE):
        return f"file {file.relative_to(PACKAGE.parent).as_posix()}"
    if "site-packages" in file.parts:
        return f"packaged {file.name}"
    return f"file {file}"
