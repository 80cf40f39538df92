"""What a result is of: a name over all that its numbers depend on, and nothing else.

A result has two names.  Its *ticket* is known before anything runs: the stage's code, settings, seed, library versions, and
the tickets of what it is made from.  Its *identity* is known once those are there: the same, with their content instead of
their tickets.  A result with the right ticket is current; one with another ticket but the right identity is current too,
and gets the ticket.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sstoken.records.damage import Damaged, checked, fault, tell
from sstoken.records.files import sha256_file
from sstoken.records.provenance import Record, read_record

PACKAGE = Path(__file__).parents[1]
LENGTH = 16


@dataclass(frozen=True)
class Code:
    """Where a stage's numbers are made.

    entries: modules; whatever of this package they import is followed. leave_out: modules, or rooms (all modules of a
    name that begins so), whose code these numbers do not pass through. versions: libraries whose version moves them.
    """

    entries: tuple[str, ...]
    leave_out: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()


# What no number passes through: documents, records and logs; names of files; counting of costs; what only refuses.
SILENT = (
    "sstoken.records", "sstoken.experiment", "sstoken.models.table", "sstoken.models.flops", "sstoken.models.sizes",
    "sstoken.training.log", "sstoken.training.refusals", "sstoken.training.scorer_check", "sstoken.jobs",
)  # fmt: skip
# What reaches a stage as content, hashed as such: weights, tokens, the scorer (added by ``scorer_code``).
AS_CONTENT = (
    "sstoken.models.sources", "sstoken.models.hub", "sstoken.world", "sstoken.data.readers", "sstoken.data.forms",
    "sstoken.data.messages", "sstoken.data.planting", "sstoken.data.noise_kinds", "sstoken.data.arithmetic",
    "sstoken.data.chat", "sstoken.data.encode",
)  # fmt: skip
SCORERS = "sstoken.selection.methods."

STAGES = {
    "world": Code(("sstoken.world.generate",), SILENT),
    "pretrain": Code(("sstoken.world.pretrain",), SILENT, ("torch", "transformers", "tokenizers")),
    "model": Code(("sstoken.models.sources",), (*SILENT, "sstoken.world", "sstoken.data", "sstoken.models.hub")),
    "random model": Code(
        ("sstoken.models.sources", "sstoken.world.tokenizer"),
        (*SILENT, "sstoken.data", "sstoken.models.hub", "sstoken.world.generate"),
        ("torch", "transformers", "tokenizers"),
    ),
    "gguf model": Code(
        ("sstoken.models.sources",),
        (*SILENT, "sstoken.world", "sstoken.data", "sstoken.models.hub"),
        ("torch", "transformers", "tokenizers", "gguf"),
    ),
    "rows": Code(("sstoken.models.hub",), (*SILENT, "sstoken.data.chat", "sstoken.data.encode"), ("datasets",)),
    "benchmarks": Code(
        ("sstoken.models.hub", "sstoken.evaluation.subtasks"), (*SILENT, "sstoken.data"), ("datasets", "lm_eval")
    ),
    "tokens": Code(
        ("sstoken.data", "sstoken.data.readers", "sstoken.data.encode", "sstoken.models.load"),
        (*SILENT, "sstoken.models.sources", "sstoken.models.hub", "sstoken.selection", "sstoken.training"),
        ("transformers", "tokenizers"),
    ),
    "losses": Code(
        ("sstoken.training.reference_losses", "sstoken.models.load"),
        (*SILENT, *AS_CONTENT, SCORERS),
        ("torch", "transformers", "peft"),
    ),
    "train": Code(
        ("sstoken.training.setup", "sstoken.models.load"),
        (*SILENT, *AS_CONTENT, SCORERS),
        ("torch", "transformers", "peft", "accelerate"),
    ),
    "evaluate": Code(
        ("sstoken.evaluation", "sstoken.evaluation.harness", "sstoken.models.load"),
        (*SILENT, *AS_CONTENT, "sstoken.tasks"),  # a benchmark's own name covers its task
        ("torch", "transformers", "peft", "tokenizers", "lm_eval", "datasets"),
    ),
    # what is not training's
    "audit": Code(
        ("sstoken.jobs.audit",),
        (
            "sstoken.records",
            "sstoken.experiment",
            "sstoken.models",
            "sstoken.data",
            "sstoken.selection",
            "sstoken.training",
        ),
    ),
}
"""The one place that says whose code a stage's numbers pass through."""

REPORT = ("report", "experiment/reported.py")
"""What draws the report, below the package's folder: code, templates, published numbers."""


def name_of(parts) -> str:
    """Hexadecimal, the same for equal JSON values; the order of a mapping's keys does not count."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:LENGTH]


def code_sha256(source: str) -> str:
    """Of what Python source does: comments, docstrings, formatting and line numbers do not count."""
    return name_of(_shape(ast.parse(source)))


def _shape(node) -> object:
    """An AST as plain values, the same in every version of Python that knows its nodes: what is empty is left out."""
    if isinstance(node, ast.AST):
        fields = {name: _shape(value) for name, value in ast.iter_fields(node) if name not in ("kind", "type_comment")}
        return [type(node).__name__, {name: value for name, value in fields.items() if value not in (None, [])}]
    if isinstance(node, list):
        return [_shape(item) for item in node if not _is_text(item)]
    return None if node is None else f"{type(node).__name__} {node!r}"


def _is_text(node) -> bool:
    """A docstring, or text that stands by itself as one."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@cache  # a job's code is what it was when the job imported it
def file_code(path: Path) -> str:
    """Of a Python file what it does; of any other file its content."""
    return code_sha256(path.read_text()) if path.suffix == ".py" else sha256_file(path)[:LENGTH]


@cache
def code_of(stage: str) -> dict[str, str]:
    """``{code <file below the package's folder>: hash}`` of every module that a stage's numbers pass through."""
    code = STAGES[stage]
    return _coded(closure(code.entries, code.leave_out))


def report_code() -> dict[str, str]:
    """The same of everything that draws the report."""
    paths = [
        path
        for name in REPORT
        for path in ((PACKAGE / name).rglob("*") if (PACKAGE / name).is_dir() else [PACKAGE / name])
    ]
    files = [path for path in paths if path.is_file() and path.suffix != ".pyc"]
    return _coded({str(path): path for path in files})


@cache
def scorer_code(config: type) -> dict[str, str]:
    """The same of a scorer's own file and what it alone imports (``sstoken.selection`` is everyone's)."""
    path = _file_of(config.__module__) or Path(sys.modules[config.__module__].__file__ or "")
    own = closure(_imports(path), (*SILENT, "sstoken.selection.contract", SCORERS + "__init__"))
    everyone = closure(STAGES["train"].entries, STAGES["train"].leave_out)
    package = SCORERS.rstrip(".")
    return _coded({"": path} | {n: p for n, p in own.items() if n not in everyone and n != package})


def _coded(modules: dict[str, Path]) -> dict[str, str]:
    def shown(path: Path) -> str:
        for folder in (PACKAGE.parent, Path.cwd()):  # not a place of this machine: results move to others
            if path.is_relative_to(folder):
                return path.relative_to(folder).as_posix()
        return path.as_posix()

    return {f"code {shown(path)}": file_code(path) for path in sorted(modules.values())}


@cache
def versions_of(stage: str) -> dict[str, str]:
    """``{version <library>: version}``; builds of one version for other hardware (``2.13.0+cpu``) are the same."""
    found = {}
    for library in STAGES[stage].versions:
        try:
            found[f"version {library}"] = version(library).partition("+")[0]
        except PackageNotFoundError:
            found[f"version {library}"] = "none"
    return found


def closure(entries: Iterable[str], leave_out: Iterable[str] = ()) -> dict[str, Path]:
    """module -> file, of these modules of the package and of all that they import of it, those left out but for."""
    leave_out, found, new = tuple(leave_out), {}, list(entries)
    while new:
        module = new.pop()
        path = _file_of(module)
        if module in found or path is None or any(_within(module, room) for room in leave_out):
            continue
        if module == PACKAGE.name:  # the front door imports lazily, for others
            continue
        found[module] = path
        new += _imports(path)
    return found


def _within(module: str, room: str) -> bool:
    return module == room or module.startswith(room if room.endswith(".") else f"{room}.")


@cache
def _file_of(module: str) -> Path | None:
    if not _within(module, PACKAGE.name):
        return None
    path = PACKAGE.parent.joinpath(*module.split("."))
    for found in (path / "__init__.py", path.with_suffix(".py")):
        if found.exists():
            return found
    return None


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Modules of the package that a file imports, inside functions too."""
    found = []
    package = ".".join(path.relative_to(PACKAGE.parent).parts[:-1]) if path.is_relative_to(PACKAGE) else ""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, [above, node.module]))
            found += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(name for name in found if re.match(rf"{PACKAGE.name}\b", name)))


class ChangedMeanwhile(RuntimeError):
    """Code or a file is no longer what it was when the workflow started."""


@dataclass(frozen=True)
class Ticket:
    """What one result is to be made from, as known before anything runs.

    stage: its kind. made_from: settings, seed, code, versions, hashes of files that a person may edit: plain values by
    name. needs: what else it is made of -> (its ticket, its record, the key of that record that holds its content).
    """

    stage: str
    made_from: dict[str, object]
    needs: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return name_of([self.stage, self.made_from, {what: ticket for what, (ticket, *_) in self.needs.items()}])

    def records(self) -> list[str]:
        """Of everything that this is made of."""
        return list(dict.fromkeys(record for _, record, _ in self.needs.values()))

    def contents(self) -> dict[str, str]:
        """what -> hash of its content, from the records of what this is made of."""
        return {what: read_record(record)[key] for what, (_, record, key) in self.needs.items()}

    @property
    def identity(self) -> str:
        return name_of([self.stage, self.made_from, self.contents()])

    def check(self) -> None:
        """Refuse to make something else than was asked for.

        Raises:
            ChangedMeanwhile: names the file.
            Damaged: something that this is made of is not what was written.
        """
        for key, known in self.made_from.items():
            kind, _, path = key.partition(" ")
            if kind == "code":
                place = PACKAGE.parent / path
                now = file_code(place if place.exists() else Path(path).absolute())
            elif kind == "file":
                inside = PACKAGE.parent / path
                now = sha256_file(inside if path.startswith(f"{PACKAGE.name}/") else path)[:LENGTH]
            else:
                continue
            if now != known:
                raise ChangedMeanwhile(f"{path} was changed after this workflow had started; start it again")
        for record in self.records():
            if Path(record).exists():
                checked(Path(record))

    def details(self) -> dict:
        """What a record says of its ticket."""
        return {
            "identity": self.identity, "ticket": self.name, "made_from": self.made_from, "contents": self.contents(),
            "needs": {what: ticket for what, (ticket, *_) in self.needs.items()},
        }  # fmt: skip

    def finished(self, record: Path) -> bool:
        """Whether the record is of this identity, its files with it; if so it gets this ticket."""
        found = whole(record, large=True)
        if found is None or found.get("identity") != self.identity:
            return False
        details = self.details()
        if {key: found.get(key) for key in details} != json.loads(json.dumps(details)):
            Record.rewrite(record, found | details)
        return True


def whole(path: Path, *, large: bool = False) -> dict | None:
    """The record of a result that is there and is what was written; of one that is damaged, None and a line that says so.

    Args:
        large: read files too that are so large that only their reader looks at them.
    """
    if not path.exists():
        return None
    try:
        record = read_record(path)
        found = fault(path, record, large=large)
    except Damaged as error:
        found = str(error)
    if found:
        tell(f"{found}; made again")
        return None
    return record


def changes(record: dict, ticket: Ticket) -> list[str]:
    """What of a stored result is not what its ticket asks for; [] where it is current."""
    if "ticket" not in record:
        return ["made by an older version"]
    if record["ticket"] != ticket.name:
        wanted = json.loads(json.dumps(ticket.made_from))
        before = record.get("made_from", {})
        found = [_change(key, before.get(key), wanted.get(key)) for key in {**wanted, **before}
                 if before.get(key) != wanted.get(key)]  # fmt: skip
        needs = {what: name for what, (name, *_) in ticket.needs.items()}
        found += [what for what in {**needs, **record.get("needs", {})} if record["needs"].get(what) != needs.get(what)]
        return found or ["made in another way"]
    return []


def _change(key: str, before, now) -> str:
    if key.split(" ")[0] in ("code", "file"):
        return key
    return f"{key}: {json.dumps(before)} -> {json.dumps(now)}"
