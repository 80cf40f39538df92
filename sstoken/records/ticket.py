"""What one result is to be made from, and whether what is there is that: see ``sstoken.records.identity`` for the names."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sstoken.records.files import sha256_file
from sstoken.records.identity import LENGTH, PACKAGE, file_code, name_of
from sstoken.records.provenance import DamagedRecord, Record, read_record


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

    def details(self) -> dict:
        """What a record says of its ticket."""
        return {
            "identity": self.identity, "ticket": self.name, "made_from": self.made_from, "contents": self.contents(),
            "needs": {what: ticket for what, (ticket, *_) in self.needs.items()},
        }  # fmt: skip

    def finished(self, record: Path) -> bool:
        """Whether the record is of this identity, its files with it; if so it gets this ticket."""
        found = intact(record)
        if found is None or found.get("identity") != self.identity:
            return False
        details = self.details()
        if {key: found.get(key) for key in details} != json.loads(json.dumps(details)):
            Record.rewrite(record, found | details)
        return True


def whole(path: Path, record: dict) -> bool:
    """Whether every file that a record speaks of is there, by its name below the record's folder."""
    return all((path.parent / name).exists() for name in record.get("files", ()))


def edited(path: Path, record: dict) -> list[str]:
    """Names of files that are no longer what their record says: cut, edited, or others in their place.

    A file is read again where it changed after the record was written, or was copied; if all are as they should be, the
    record's time says so, and they are not read again.
    """
    files = record.get("files", {})
    if not isinstance(files, dict):  # names alone, as an older version wrote them
        return []
    written = path.stat().st_mtime_ns
    # when a file came to stand there: no tool sets this time, as they do the time of its last edit
    later = [name for name in files if (path.parent / name).stat().st_ctime_ns >= written]
    known = {name: files[name]["sha256"] if isinstance(files[name], dict) else files[name] for name in later}
    found = [name for name in later if sha256_file(path.parent / name) != known[name]]
    if later and not found:
        with suppress(OSError):  # of somebody else
            os.utime(path)
    return found


def intact(path: Path) -> dict | None:
    """A record whose files are all there as it says; None where there is none, or it or one of them is not whole."""
    with suppress(FileNotFoundError, DamagedRecord):
        record = read_record(path)
        if whole(path, record) and not edited(path, record):
            return record
    return None


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
