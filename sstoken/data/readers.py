"""Rows of instruction data from JSON lines, JSON, Parquet, Arrow, folders, the hub or memory; every bad row has its place."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from sstoken.data.forms import Content, read_form
from sstoken.data.messages import SPANS, BadForm

LOG = logging.getLogger(__name__)
SUFFIXES = (".jsonl", ".json", ".parquet")
DROP = " (text.on_bad_row: drop would leave them out and count them)"
SHOWN = 10  # bad rows spelled out in an error; the rest is counted


class DataError(ValueError):
    """Instruction data that cannot be used as it is; the message names file, line and reason."""


class Unreadable(str):
    """In a row's place: why it could not be read."""


@dataclass(frozen=True)
class Row:
    """One sample. messages, tools, tokens, form, unread: as ``sstoken.data.forms.Content`` has them; an assistant's
    message optionally with ``"noise": [[start, end, kind], …]``, ``"teaches"`` and ``"always_clean": [[start, end], …]``
    (characters of its content), and ``"end_noise": kind`` where its end of turn is noise. place: where it was read,
    ``file:line``."""

    id: str
    messages: tuple[dict, ...]
    source: str
    place: str
    tools: tuple[dict, ...] = ()
    tokens: tuple[tuple[int, ...], tuple[bool, ...]] | None = None
    form: str = "messages"
    unread: tuple[str, ...] = ()


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
    rows, bad = _checked(pair for source in sources for pair in raw_rows(source))
    stop_at(bad, on_bad_row, len(rows) + len(bad))
    _tell(rows)
    if shuffle_seed is not None:
        rows = [rows[i] for i in np.random.default_rng(shuffle_seed).permutation(len(rows))]
    rows = rows[skip : None if limit is None else skip + limit]
    if not rows:
        raise DataError(f"{', '.join(sources)}: no rows (skip {skip}, limit {limit}, {len(bad)} bad)")
    return rows, bad


def rows_of(dataset: Iterable[dict]) -> list[Row]:
    """The rows of a ``datasets.Dataset`` (or any rows in memory), in every form of ``sstoken.data.forms.FORMS``.

    Raises:
        DataError: names each bad row by its number, from 0 as the data set counts.
    """
    if hasattr(dataset, "with_format"):  # plain Python values, whatever the user's own loop gets
        dataset = dataset.with_format(None)
    rows, bad = _checked((f"row {number}", raw) for number, raw in enumerate(dataset))
    stop_at(bad, "stop", len(rows) + len(bad), hint="")
    if not rows:
        raise DataError("the data set has no rows")
    _tell(rows)
    return rows


def _checked(pairs: Iterable[tuple[str, object]]) -> tuple[list[Row], list[BadRow]]:
    rows, bad, seen, stems = [], [], {}, Counter()
    for place, raw in pairs:
        if isinstance(raw, Unreadable):
            bad.append(BadRow(place, raw))
            continue
        try:
            content = read_form(raw)
            if (name := raw.get("id")) is not None and str(name) in seen:
                raise BadForm(f"its id {name!r} stands at {seen[str(name)]} already")
        except BadForm as error:
            bad.append(BadRow(place, str(error)))
            continue
        rows.append(_row(raw, content, place, seen, stems))
    return rows, bad


def _tell(rows: list[Row]) -> None:
    """One line for each key that carries text and is not read, and one where the rows are in several forms."""
    unread = Counter(key for row in rows for key in row.unread)
    for key, count in unread.items():
        LOG.warning("%d of %d rows have the key %r, which carries text and is not read", count, len(rows), key)
    places = defaultdict(list)
    for row in rows:
        places[row.form].append(row.place)
    if len(places) > 1:
        found = "; ".join(f"{len(where)} {form} (first: {', '.join(where[:3])})" for form, where in places.items())
        LOG.warning("rows in %d forms: %s", len(places), found)


def stop_at(bad: list[BadRow], policy: str, total: int, hint: str = DROP) -> None:
    """Raise for bad rows under the policy "stop"."""
    if policy not in ("stop", "drop"):
        raise DataError(f"on_bad_row must be 'stop' or 'drop', not {policy!r}")
    if bad and policy == "stop":
        lines = [f"  {row.place}: {row.reason}" for row in bad[:SHOWN]]
        more = [f"  and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
        head = f"{len(bad)} of {total} rows cannot be used{hint}:"
        raise DataError("\n".join([head, *lines, *more]))


def raw_rows(source: str) -> Iterator[tuple[str, object]]:
    """(place, row), or (place, Unreadable) for what cannot be read as a row."""
    if source.startswith("hub:"):
        yield from _hub_rows(source)
        return
    path = Path(source)
    if (path / "dataset_dict.json").exists():
        splits = ", ".join(json.loads((path / "dataset_dict.json").read_text())["splits"])
        raise DataError(f"{source}: a saved DatasetDict; name the folder of one split: {source}/… ({splits})")
    if (path / "state.json").exists():
        yield from _saved_rows(path)
        return
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
                    yield f"{file}:{number}", Unreadable(f"invalid JSON: {error}")


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


def _saved_rows(folder: Path) -> Iterator[tuple[str, object]]:
    """Rows that ``datasets.Dataset.save_to_disk`` has written."""
    import datasets

    try:
        rows = datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever datasets and Arrow raise on a folder that is not whole
        raise DataError(f"{folder}: not a readable folder of datasets' save_to_disk: {error}") from error
    yield from ((f"{folder}:row {number}", row) for number, row in enumerate(rows.with_format(None), 1))


def _hub_rows(source: str) -> Iterator[tuple[str, object]]:
    import datasets

    name, _, split = source.removeprefix("hub:").partition(":")
    name, _, revision = name.partition("@")
    rows = datasets.load_dataset(name, revision=revision or None, split=split or "train")
    yield from ((f"{source}:row {number}", row) for number, row in enumerate(rows, 1))


def _row(raw: dict, content: Content, place: str, seen: dict[str, str], stems: Counter) -> Row:
    if raw.get("id") is not None:
        name = str(raw["id"])
    else:
        stem = hashlib.sha256(_canonical(content).encode()).hexdigest()[:16]
        while True:  # counts on from the last repeat: a file of equal rows stays linear
            stems[stem] += 1
            name = stem if stems[stem] == 1 else f"{stem}-{stems[stem]}"
            if name not in seen:  # a row's own id may have taken this one
                break
    seen[name] = place
    parts = {key: getattr(content, key) for key in ("tools", "tokens", "form", "unread")}
    return Row(name, content.messages, str(raw.get("source") or ""), place, **parts)


def _canonical(content: Content) -> str:
    """What makes the row's tokens and mask, as text; labels of noise are no part of it."""
    if content.tokens is not None:
        return json.dumps(content.tokens)
    turns = []
    for message in content.messages:
        more = {k: v for k, v in message.items() if k not in ("role", "content", "end_noise", *SPANS)}
        turns.append([message["role"], message["content"], *([more] if more else [])])
    return json.dumps([*turns, *content.tools], ensure_ascii=False)
