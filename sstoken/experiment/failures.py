"""What failed, said once more where a run ends: a grid's terminal is long, and the first error stands far up."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LINES = 4  # of an error's message
LIMITS = [Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory/memory.limit_in_bytes")]
"""Of this process's control group, of both versions, as a container sees it."""


class Failures:
    """Which jobs wrote to their log and did not end.

    logs: (title, log, the file that the job leaves when it is done, MB of memory that it asks for) of everything that is to
        run. here: whether the jobs run on this machine.
    """

    def __init__(self, logs: Iterable[tuple[str, Path, Path, int]] = (), here: bool = True):
        self.here = here
        self.watch(logs)

    def watch(self, logs: Iterable[tuple[str, Path, Path, int]]) -> None:
        self.logs = list(logs)
        self.before = {log: _state(log) for _, log, _, _ in self.logs}

    def lines(self) -> list[str]:
        """One entry a failed job: its title, its log, and the last error in that. Empty where no job has failed."""
        begun = [entry for entry in self.logs if _state(entry[1]) != self.before[entry[1]]]
        failed = [(title, log, memory) for title, log, done, memory in begun if not done.exists()]
        if not failed:
            return []
        head = (
            f"{len(failed)} job{'s' if len(failed) > 1 else ''} failed; all else is kept, and the same command goes on:"
        )
        return [head, *(f"- {title} ({log}){_said(log, memory, self.here)}" for title, log, memory in failed)]


def _said(log: Path, memory: int, here: bool) -> str:
    message = last_error(log.read_text(errors="replace"))
    if message:
        return ":\n" + "\n".join(f"    {line}" for line in message)
    known = [f"{memory:,} MB asked for"] if memory else []
    known += [f"{memory_here() >> 20:,} MB there"] if here else []
    return "; its log names no error: it was killed, by hand, by a scheduler, or for want of memory" + (
        f" ({', '.join(known)})" if known else ""
    )


def memory_here() -> int:
    """Bytes that processes of this machine may use: of its memory, or of a control group that allows less."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in LIMITS:
        with suppress(OSError, ValueError):  # no such file; "max"
            most = min(most, int(limit.read_text()))
    return most


def last_error(text: str) -> list[str]:
    """The message of the last traceback, at most ``LINES`` lines; [] where there is none."""
    _, found, tail = text.rpartition("Traceback (most recent call last):")
    lines = tail.splitlines() if found else []
    start = next((n for n, line in enumerate(lines) if re.match(r"[\w.]+(:|$)", line)), None)
    return [line.rstrip() for line in lines[start : start + LINES]] if start is not None else []


def _state(path: Path) -> tuple[int, int] | None:
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else None
