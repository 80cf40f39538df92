"""What a result is of: a name over all that its numbers depend on, and nothing else.

A result has two names.  Its *ticket* is known before anything runs: the stage's code, settings, seed, library versions, and
the tickets of what it is made from.  Its *identity* is known once those are there: the same, with their content instead of
their tickets.  A result with the right ticket is current; one with another ticket but the right identity is current too,
and gets the ticket.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import re
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sstoken.records.files import sha256_file

PACKAGE = Path(__file__).parents[1]
LENGTH = 16


@dataclass(frozen=True)
class Code:
    """Where a stage's numbers are made.

    entries: modules; whatever of this package they import is followed. leave_out: modules, or rooms (all modules of a
    name that begins so), whose code these numbers do not pass through. versions: libraries whose version moves them.
    job: the module that puts the stage together; what it imports is not followed.
    """

    entries: tuple[str, ...]
    leave_out: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    job: str = ""


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
PREPARE, FETCH = "sstoken.jobs.prepare", "sstoken.jobs.fetch"

SINCE: dict[str, str] = {
    "sstoken.jobs.evaluate": "1f3782c0e0cbec81",
    "sstoken.jobs.fetch": "4db5f16b6ea4e141",
    "sstoken.jobs.losses": "3d54246290718ce1",
    "sstoken.jobs.prepare": "8ad4d018d398cceb",
    "sstoken.jobs.train": "d7796794bf52d353",
}
"""Jobs' modules -> their code as it was when they began to count: results that do not name them were made by that.

Where an edit of a job moves no number (what its record says besides), the new hash goes here in the same commit.
"""

STAGES = {
    "world": Code(("sstoken.world.generate",), SILENT, job=PREPARE),
    "pretrain": Code(("sstoken.world.pretrain",), SILENT, ("torch", "transformers", "tokenizers"), PREPARE),
    "model": Code(
        ("sstoken.models.sources",), (*SILENT, "sstoken.world", "sstoken.data", "sstoken.models.hub"), job=PREPARE
    ),
    "random model": Code(
        ("sstoken.models.sources", "sstoken.world.tokenizer"),
        (*SILENT, "sstoken.data", "sstoken.models.hub", "sstoken.world.generate"),
        ("torch", "transformers", "tokenizers"),
        PREPARE,
    ),
    "gguf model": Code(
        ("sstoken.models.sources",),
        (*SILENT, "sstoken.world", "sstoken.data", "sstoken.models.hub"),
        ("torch", "transformers", "tokenizers", "gguf"),
        PREPARE,
    ),
    "rows": Code(("sstoken.models.hub",), (*SILENT, "sstoken.data.chat", "sstoken.data.encode"), ("datasets",), FETCH),
    "benchmarks": Code(
        ("sstoken.models.hub", "sstoken.evaluation.subtasks"), (*SILENT, "sstoken.data"), ("datasets", "lm_eval"), FETCH
    ),
    "tokens": Code(
        ("sstoken.data", "sstoken.data.readers", "sstoken.data.encode", "sstoken.models.load"),
        (*SILENT, "sstoken.models.sources", "sstoken.models.hub", "sstoken.selection", "sstoken.training"),
        ("transformers", "tokenizers"),
        PREPARE,
    ),
    "heldout": Code(
        ("sstoken.data.disjoint", "sstoken.data.heldout"),
        (*SILENT, "sstoken.models", "sstoken.selection", "sstoken.training"),
        job=PREPARE,
    ),
    "losses": Code(
        ("sstoken.training.reference_losses", "sstoken.models.load"),
        (*SILENT, *AS_CONTENT, SCORERS),
        ("torch", "transformers", "peft"),
        "sstoken.jobs.losses",
    ),
    "train": Code(
        ("sstoken.training.setup", "sstoken.models.load"),
        (*SILENT, *AS_CONTENT, SCORERS),
        ("torch", "transformers", "peft", "accelerate"),
        "sstoken.jobs.train",
    ),
    "evaluate": Code(
        ("sstoken.evaluation", "sstoken.evaluation.harness", "sstoken.models.load"),
        (*SILENT, *AS_CONTENT, "sstoken.tasks"),  # a benchmark's own name covers its task
        ("torch", "transformers", "peft", "tokenizers", "lm_eval", "datasets"),
        "sstoken.jobs.evaluate",
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
"""What draws the report, below the package's folder: code, templates, published numbers. What they import counts too."""

REPORT_LIBRARIES = ("numpy", "pandas", "scipy", "statsmodels", "matplotlib", "jinja2")


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
    job = {code.job: _file_of(code.job)} if code.job else {}
    edited = {module: path for module, path in job.items() if path and file_code(path) != SINCE.get(module)}
    return _coded(closure(code.entries, code.leave_out) | edited)


def report_code() -> dict[str, str]:
    """The same of everything that draws the report."""
    paths = [
        path
        for name in REPORT
        for path in ((PACKAGE / name).rglob("*") if (PACKAGE / name).is_dir() else [PACKAGE / name])
    ]
    files = [path for path in paths if path.is_file() and path.suffix != ".pyc"]
    imported = {name for path in files if path.suffix == ".py" for name in _imports(path)}
    read = closure(imported, ("sstoken.records", "sstoken.experiment"))  # what those say, a report is told
    return _coded({str(path): path for path in [*files, *read.values()]}) | _versions(REPORT_LIBRARIES)


@cache
def scorer_code(config: type) -> dict[str, str]:
    """The same of a scorer's own file and what it alone imports (``sstoken.selection`` is everyone's)."""
    path = _file_of(config.__module__) or Path(sys.modules[config.__module__].__file__ or "")
    own = closure(_imports(path), (*SILENT, "sstoken.selection.contract", SCORERS + "__init__"))
    everyone = closure(STAGES["train"].entries, STAGES["train"].leave_out)
    package = SCORERS.rstrip(".")
    helpers, versions = ({}, {}) if path.is_relative_to(PACKAGE) else _of_ones_own(path)
    theirs = {n: p for n, p in own.items() if n not in everyone and n != package}
    return _coded({"": path} | helpers | theirs) | versions


def _of_ones_own(path: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """What a file outside this package imports from elsewhere: (files of one's own, versions of packages installed)."""
    installed = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    files: dict[str, Path] = {}
    versions: dict[str, str] = {}
    new = list(_imported(path))
    while new:
        name = new.pop()
        if name in files or _within(name, PACKAGE.name):
            continue
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):  # a class or function, not a module
            continue
        if spec is None or not spec.has_location or spec.origin is None:
            continue
        origin = Path(spec.origin).resolve()
        if any(origin.is_relative_to(folder) for folder in installed):
            with suppress(PackageNotFoundError):
                versions[f"version {name}"] = version(name).partition("+")[0]
        elif origin.suffix == ".py":
            files[name] = origin
            new += _imported(origin)
    return files, versions


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
    return _versions(STAGES[stage].versions)


def _versions(libraries: Iterable[str]) -> dict[str, str]:
    found = {}
    for library in libraries:
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
    return tuple(name for name in _imported(path) if re.match(rf"{PACKAGE.name}\b", name))


@cache
def _imported(path: Path) -> tuple[str, ...]:
    found = []
    package = ".".join(path.relative_to(PACKAGE.parent).parts[:-1]) if path.is_relative_to(PACKAGE) else ""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, [above, node.module]))
            found += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(filter(None, found)))
