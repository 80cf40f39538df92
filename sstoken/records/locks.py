"""Locks that a killed process lets go of by its death; where a file system has none, work goes on without."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

# what the kernel answers where a file system cannot lock
CANNOT = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


class Held(RuntimeError):
    """Somebody else holds the lock."""


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock as long as the context lasts; yields False, and says so, where the file system cannot lock.

    Args:
        path: of the lock's file. wait: for whoever holds it.

    Raises:
        Held: it is held, and ``wait`` is off; says by whom.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(path, timeout=-1 if wait else 0), path.with_suffix(".owner")
    try:
        lock.acquire()
    except Timeout:
        who = owner.read_text() if owner.exists() else "another process"
        raise Held(f"{path.parent} is in use by {who}") from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in CANNOT:
            raise
        print(f"{path.parent}: this file system has no locks ({error}); going on without", file=sys.stderr)
        yield False
        return
    try:
        if not wait:
            owner.write_text(f"process {os.getpid()} of user {os.getuid()} on {socket.gethostname()}")
        yield True
    finally:
        if not wait:
            owner.unlink(missing_ok=True)
        lock.release()
