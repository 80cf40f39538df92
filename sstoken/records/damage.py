"""Finished files that are no longer what was written: found before a number is read from them."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from sstoken.records.files import sha256_file

# bytes; larger files are looked at by the job that reads them, else every start would read all weights
LARGE = 64 * 2**20
MARK = '{\n "checksum": "'


class Damaged(RuntimeError):
    """A file that is cut, empty, or otherwise not what was written; names it."""


def sealed(document: dict) -> str:
    """A record as text, its first key the sha256 of the rest."""
    body = json.dumps(document, indent=1, sort_keys=True, default=str) + "\n"
    return f'{MARK}{hashlib.sha256(body.encode()).hexdigest()}",{body[1:]}'


def unsealed(path: str | Path) -> dict:
    """The record in a file; one that carries no checksum is taken as it is.

    Raises:
        Damaged: it is not whole, or not what its checksum says.
    """
    try:
        text = Path(path).read_text()
        if text.startswith(MARK):
            given, _, rest = text.removeprefix(MARK).partition('",')
            text = "{" + rest
            if hashlib.sha256(text.encode()).hexdigest() != given:
                raise Damaged(f"{path} is not what was written")
        document = json.loads(text)
    except ValueError as error:  # of JSON or UTF-8
        raise Damaged(f"{path} is not a whole record ({error})") from error
    if not isinstance(document, dict):
        raise Damaged(f"{path} is not a whole record")
    return document


def fault(path: Path, record: dict, *, large: bool) -> str | None:
    """What of a record's files, by their names below its folder, is gone or not what was written; None where nothing is.

    Args:
        large: read files above ``LARGE`` too.
    """
    files = record.get("files", ())
    for name in files:
        file = path.parent / name
        if not file.exists():
            return f"{file} is gone"
        wanted = files[name] if isinstance(files, dict) else None  # older records list names alone
        wanted = wanted.get("sha256") if isinstance(wanted, dict) else wanted
        if wanted and (large or file.stat().st_size <= LARGE) and sha256_file(file) != wanted:
            return f"{file} is not what was written"
    return None


def checked(path: Path) -> dict:
    """A record that a job is about to use, with files that are what was written.

    Raises:
        Damaged: says what to do.
    """
    record = unsealed(path)
    if found := fault(path, record, large=True):
        raise Damaged(f"{found}: delete {path} and run the same command again, which makes it again")
    return record


def hold(stamp: str | Path, files: Iterable[str | Path]) -> None:
    """Write into the file that says that a rule is done what it has made: name below the stamp's folder -> sha256."""
    stamp = Path(stamp)
    found = {os.path.relpath(file, stamp.parent): sha256_file(file) for file in files if Path(file) != stamp}
    stamp.write_text(json.dumps({"files": found}, indent=1))


def held(stamp: Path) -> str | None:
    """What of a rule's files is no longer what ``hold`` saw; None where nothing is, or nothing was held."""
    try:
        return fault(stamp, json.loads(stamp.read_text() or "{}"), large=True)
    except ValueError:
        return f"{stamp} is not what was written"


@cache
def tell(line: str) -> None:
    """Once a process."""
    print(line, file=sys.stderr, flush=True)
