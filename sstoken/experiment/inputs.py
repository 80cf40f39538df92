"""Faults of the files that a grid is given, found before its first job: models' folders, instruction rows, benchmarks' rows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from sstoken.records.documents import ConfigError

SECONDS = 4.0  # for the rows of one source; what is larger is read on by its job
EMBEDDING = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight")


def model_fault(name: str, folder: Path) -> str | None:
    """Why the model in a local folder cannot be read, or None."""
    if not folder.is_dir():
        return f"no folder {folder}"
    if not (folder / "config.json").exists():
        return f"no config.json in {folder}"
    if link := _outside(folder):
        return f"{link} is a link that leads out of the folder; copy the file there"
    try:
        config = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        return f"{folder}/config.json is no JSON ({error}): download or copy the model again"
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        return f"{folder}/config.json names no model_type: it is not the config of a model"
    from sstoken.models.sources import check_weights

    try:
        check_weights(name, folder)
    except ConfigError as error:
        return str(error).removeprefix(f"models file: {name}: ")
    return _known_type(config) or _vocabulary(folder, config)


def _outside(folder: Path) -> Path | None:
    """A link below the folder to a file that is not there. Of the hub's cache, which is made of links, all is there."""
    home = folder.resolve()
    inside = home.parents[1] if home.parent.name == "snapshots" else home
    links = (path for path in sorted(folder.rglob("*")) if path.is_symlink())
    return next((path for path in links if not path.resolve().is_relative_to(inside)), None)


def _known_type(config: dict) -> str | None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if config["model_type"] not in CONFIG_MAPPING:
        return (
            f"its model_type {config['model_type']!r} is not known to the installed transformers; is there a newer one?"
        )
    return None


def _vocabulary(folder: Path, config: dict) -> str | None:
    """Of config, embedding and tokenizer, whose numbers of tokens must fit each other."""
    size = (config.get("text_config") or config).get("vocab_size")
    if not isinstance(size, int):
        return None
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as weights:
            for key in weights.keys():  # noqa: SIM118 (not a dict)
                if key.endswith(EMBEDDING) and (rows := weights.get_slice(key).get_shape()[0]) != size:
                    return f"config.json says vocab_size {size}, {key} in {file.name} has {rows} rows: two models"
    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):
        return f"no tokenizer in {folder}: copy tokenizer.json and tokenizer_config.json of the same model there"
    path = folder / "tokenizer.json"
    if not path.exists():
        return None
    try:
        tokenizer = json.loads(path.read_bytes())
        known = tokenizer["model"]["vocab"]
        numbers = [*(known.values() if isinstance(known, dict) else range(len(known)))]
        numbers += [token["id"] for token in tokenizer.get("added_tokens") or []]
        last = max(numbers, default=-1)
    except (ValueError, KeyError, TypeError) as error:
        return f"{path} is no whole tokenizer ({type(error).__name__}: {error}): download or copy it again"
    if last >= size:
        past = sum(number >= size for number in numbers)
        return (
            f"its tokenizer has {past} tokens past the {size} rows of the embedding: take the tokenizer that belongs to the "
            "weights, or resize the embedding and save both"
        )
    return None


def rows_fault(source: str, *, stop: bool) -> str | None:
    """The first row of a source that cannot be used, or None; of a large one as many rows as can be read in ``SECONDS``.

    Args:
        stop: bad rows stop the workflow; else one row that can be used is enough.
    """
    from sstoken.data.forms import read_form
    from sstoken.data.messages import BadForm
    from sstoken.data.readers import DataError, Unreadable, raw_rows

    end, good, bad, seen = time.monotonic() + SECONDS, 0, None, {}
    try:
        for place, raw in raw_rows(source):
            try:
                if isinstance(raw, Unreadable):
                    raise BadForm(str(raw))
                read_form(raw)
                if (name := raw.get("id")) is not None and seen.setdefault(str(name), place) != place:
                    raise BadForm(f"its id {name!r} stands at {seen[str(name)]} already")
                good += 1
            except BadForm as error:
                bad = bad or f"{place}: {error}"
                if stop:
                    return f"{bad} (text.on_bad_row: drop would leave bad rows out and count them)"
            if time.monotonic() > end:
                return None
    except DataError as error:
        return str(error)
    return None if good else f"{source}: no rows{f' that can be used; the first: {bad}' if bad else ''}"


def lines_fault(files: list[Path]) -> Iterator[str]:
    """Of a benchmark's JSON lines: a file without a row, and the first line of each that is no whole object."""
    end = time.monotonic() + SECONDS
    for path in files:
        empty = True
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if time.monotonic() > end:
                    return
                if not (text := line.removeprefix(b"\xef\xbb\xbf").strip()):
                    continue
                empty = False
                try:
                    row = json.loads(text)
                except (ValueError, RecursionError) as error:
                    yield f"{path}:{number}: not a whole row of JSON ({error}): is the file cut?"
                    break
                if not isinstance(row, dict):
                    yield f"{path}:{number}: not an object but {type(row).__name__}"
                    break
        if empty:
            yield f"{path}: no rows"
