"""Rows of instruction data from JSON lines, JSON, Parquet, folders of them, or the hub; every bad row has its place."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

ROLES = ("system", "user", "assistant")
SUFFIXES = (".jsonl", ".json", ".parquet")
SHOWN = 10  # bad rows spelled out in an error; the rest is counted


class DataError(ValueError):
    """Instruction data that cannot be used as it is; the message names file, line and reason."""


@dataclass(frozen=True)
class Row:
    """One sample. messages: ``{"role", "content"}``, an assistant's optionally with ``"noise": [[start, end, kind], …]``
    (characters of its content). place: where it was read, ``file:line``."""

    id: str
    messages: tuple[dict, ...]
    source: str
    place: str


@dataclass(frozen=True)
class BadRow:
    place: str
    reason: str


def read_rows(
    sources: list[str],
    *,
    on_bad_row: str,
    skip: int = 0,
    limit: int | None = None,
    shuffle_seed: int | None = None,
) -> tuple[list[Row], list[BadRow]]:
    """Read and check all rows, then choose: order by ``shuffle_seed`` (None: as read), leave out ``skip``, take ``limit``.

    Args:
        sources: files, folders (their files in sorted order), or ``hub:owner/name[@revision][:split]``.
        on_bad_row: "stop" raises at bad rows anywhere in the sources; "drop" leaves them out and returns them.

    Returns:
        The chosen rows and every bad row.

    Raises:
        DataError: a source that is not there, bad rows under "stop", or no row left.
    """
    rows, bad, seen, stems = [], [], {}, Counter()
    for source in sources:
        for place, raw in _raw_rows(source):
            reason = raw if isinstance(raw, str) else _fault(raw)
            if reason is None and (name := raw.get("id")) is not None and str(name) in seen:
                reason = f"its id {name!r} stands at {seen[str(name)]} already"
            if reason is not None:
                bad.append(BadRow(place, reason))
                continue
            rows.append(_row(raw, place, seen, stems))
    stop_at(bad, on_bad_row, len(rows) + len(bad))
    if shuffle_seed is not None:
        rows = [rows[i] for i in np.random.default_rng(shuffle_seed).permutation(len(rows))]
    rows = rows[skip : None if limit is None else skip + limit]
    if not rows:
        raise DataError(f"{', '.join(sources)}: no rows (skip {skip}, limit {limit}, {len(bad)} bad)")
    return rows, bad


def stop_at(bad: list[BadRow], policy: str, total: int) -> None:
    """Raise for bad rows under the policy "stop"."""
    if policy not in ("stop", "drop"):
        raise DataError(f"on_bad_row must be 'stop' or 'drop', not {policy!r}")
    if bad and policy == "stop":
        lines = [f"  {row.place}: {row.reason}" for row in bad[:SHOWN]]
        more = [f"  and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
        head = f"{len(bad)} of {total} rows cannot be used (text.on_bad_row: drop would leave them out and count them):"
        raise DataError("\n".join([head, *lines, *more]))


def _raw_rows(source: str) -> Iterator[tuple[str, object]]:
    """(place, row), or (place, reason) for what cannot be read as a row."""
    if source.startswith("hub:"):
        yield from _hub_rows(source)
        return
    path = Path(source)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
        if not files:
            raise DataError(f"{source}: no {', '.join(SUFFIXES)} file in this folder")
    elif path.exists():
        files = [path]
    else:
        raise DataError(f"{source}: no such file or folder")
    for file in files:
        yield from file_rows(file)


def json_lines(file: Path) -> Iterator[tuple[str, object]]:
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield f"{file}:{number}", json.loads(line)
                except (ValueError, RecursionError) as error:  # invalid JSON or UTF-8, or nested without end
                    yield f"{file}:{number}", f"invalid JSON: {error}"


def file_rows(file: Path) -> Iterator[tuple[str, object]]:
    if file.suffix == ".jsonl":
        yield from json_lines(file)
    elif file.suffix == ".json":
        try:
            rows = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}: invalid JSON: {error}") from error
        if not isinstance(rows, list):
            raise DataError(f"{file}: a .json file must hold a list of rows; use .jsonl for a row a line")
        yield from ((f"{file}:row {number}", row) for number, row in enumerate(rows, 1))
    elif file.suffix == ".parquet":
        try:
            batches = pyarrow.parquet.ParquetFile(file).iter_batches()
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from ((f"{file}:row {number}", row) for number, row in enumerate(rows, 1))
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{file}: not a readable Parquet file: {error}") from error
    else:
        raise DataError(f"{file}: expected one of {', '.join(SUFFIXES)}")


def _hub_rows(source: str) -> Iterator[tuple[str, object]]:
    import datasets

    name, _, split = source.removeprefix("hub:").partition(":")
    name, _, revision = name.partition("@")
    rows = datasets.load_dataset(name, revision=revision or None, split=split or "train")
    yield from ((f"{source}:row {number}", row) for number, row in enumerate(rows, 1))


def _messages(raw: dict) -> object:
    if raw.get("messages") is not None:  # a column that other rows of the file fill is null here
        return raw["messages"]
    if "prompt" in raw and "completion" in raw:
        return [{"role": "user", "content": raw["prompt"]}, {"role": "assistant", "content": raw["completion"]}]
    return None


def _fault(raw: object) -> str | None:
    """Why a row cannot be used, or None."""
    if not isinstance(raw, dict):
        return f"not an object but {type(raw).__name__}"
    messages = _messages(raw)
    if messages is None:
        return f"neither messages nor prompt and completion; its keys: {', '.join(map(str, raw)) or 'none'}"
    if not isinstance(messages, list):
        return f"messages is not a list but {type(messages).__name__}"
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or "role" not in message or "content" not in message:
            return f"message {number} has no role and content"
        if message["role"] not in ROLES:
            return f"message {number} has the unknown role {message['role']!r}; known: {', '.join(ROLES)}"
        content = message["content"]
        if not isinstance(content, str):
            return f"message {number}'s content is not text but {type(content).__name__}"
        try:
            content.encode()
        except UnicodeEncodeError as error:
            return f"message {number}'s content is not Unicode text: half a surrogate pair at character {error.start}"
        if message["role"] == "assistant" and not content.strip():
            return f"message {number}: the assistant's response is empty"
        if fault := _noise_fault(message.get("noise"), content):
            return f"message {number}: {fault}"
    if not any(message["role"] == "assistant" for message in messages):
        return "no assistant turn"
    return None


def _noise_fault(noise: object, content: str) -> str | None:
    if noise is None:
        return None
    if not isinstance(noise, list):
        return f"noise is not a list of [start, end, kind] but {type(noise).__name__}"
    for span in noise:
        # by exact type: true and false are ints to isinstance
        if not (isinstance(span, list) and [type(part) for part in span] == [int, int, str]):
            return f"noise span {span!r} is not [start, end, kind]"
        if not 0 <= span[0] < span[1] <= len(content):
            return f"noise span {span!r} lies outside the content of {len(content)} characters"
    return None


def _row(raw: dict, place: str, seen: dict[str, str], stems: Counter) -> Row:
    messages = tuple(_messages(raw))
    if raw.get("id") is not None:
        name = str(raw["id"])
    else:
        canonical = json.dumps([[m["role"], m["content"]] for m in messages], ensure_ascii=False)
        stem = hashlib.sha256(canonical.encode()).hexdigest()[:16]
        while True:  # counts on from the last repeat: a file of equal rows stays linear
            stems[stem] += 1
            name = stem if stems[stem] == 1 else f"{stem}-{stems[stem]}"
            if name not in seen:  # a row's own id may have taken this one
                break
    seen[name] = place
    return Row(name, messages, str(raw.get("source") or ""), place)
