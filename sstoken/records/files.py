"""Files that are either whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Hand out a temporary path beside ``path``; on success it takes ``path``'s place in one step, else it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        _settle(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path, record: str) -> Iterator[Path]:
    """Hand out an empty folder; on success its files take the place of those in ``path``, else it is removed.

    Nothing in ``path`` changes before all files are on the disk.  Its record then goes first, so that it never speaks of
    other files; the caller writes the new one.  Folders in ``path`` are left alone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.part"):  # by a killed job
        shutil.rmtree(left, ignore_errors=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.mkdir()
    try:
        yield temporary
        new = sorted(file for file in temporary.iterdir())
        for file in new:
            _settle(file)
        path.mkdir(exist_ok=True)
        (path / record).unlink(missing_ok=True)
        for old in path.iterdir():
            if old.is_file() and not old.name.startswith(".") and not (temporary / old.name).exists():
                old.unlink()
        for file in new:
            os.replace(file, path / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def order_metadata(path: str | Path) -> None:
    """Put a safetensors file's metadata in order, so that the same content has the same bytes each time.

    The library writes them in the order of a hash table, which changes from one process to the next.
    """
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, f"{path}: its header grew"
        file.seek(8)
        file.write(text.ljust(length))


def _settle(file: Path) -> None:
    """On the disk, and readable for whom the umask lets: safetensors are written for their owner alone."""
    os.chmod(file, 0o666 & ~_umask())
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())


def _umask() -> int:
    """Of this process. Linux tells it without its being set for a moment, under other threads' feet."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sha256_file(path: str | Path) -> str:
    """Hexadecimal; a process reads a file once, unless it changes (a model's weights are asked for several times)."""
    stat = os.stat(path)
    return _sha256(os.path.realpath(path), stat.st_size, stat.st_mtime_ns)


def hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Name -> sha256, of files of a folder."""
    return {name: sha256_file(folder / name) for name in names}


@cache
def _sha256(path: str, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
