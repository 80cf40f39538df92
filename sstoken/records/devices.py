"""What jobs ask a machine for: memory by a model's size, and GPUs of their own where no scheduler hands them out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path

from filelock import FileLock, Timeout


def host_memory(size: str, processes: int = 1) -> int:
    """MB of main memory that processes need which each load a model's weights; ``size`` as in the models' table, e.g. 3B."""
    found = re.fullmatch(r"([0-9.]+)([MB])", size)
    parameters = float(found[1]) * {"M": 1e6, "B": 1e9}[found[2]] if found else 0
    # two bytes a parameter, and half as much again while files are read
    return max(16000, 8000 + round(3 * parameters / 1e6) * processes)


def visible_gpus() -> list[str]:
    """Names by which CUDA_VISIBLE_DEVICES knows the GPUs that this process may use; [] where there is none.

    No CUDA library is loaded for it: whoever only plans must not pay for that.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        # as CUDA does: an index that does not exist, such as -1, hides itself and all that come after
        return list(takewhile(lambda name: name and not name.startswith("-"), names))
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else []


def is_gpu(device: str) -> bool:
    """Of a device's name, as a record holds it."""
    return any(maker in device for maker in ("NVIDIA", "AMD Instinct"))


@contextmanager
def own_gpus(count: int, *, folder: Path | None = None, poll: float = 1.0) -> Iterator[list[str]]:
    """Show this process ``count`` GPUs that no other job of this machine uses, as long as the context lasts.

    Where there are no more GPUs than asked for, it is all of them at once: the scheduler, or the machine, has decided.

    Args:
        folder: of the locks, one a GPU, shared by all jobs of the user. poll: seconds between looks for a free one.
    """
    known = visible_gpus()
    if count == 0 or len(known) <= count:
        yield known
        return
    folder = folder or Path(tempfile.gettempdir()) / f"sstoken-gpus-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    with ExitStack() as held:
        taken = _take(count, known, folder, held)
        while not taken:
            time.sleep(poll)
            taken = _take(count, known, folder, held)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
        try:
            yield taken
        finally:
            if before is None:
                del os.environ["CUDA_VISIBLE_DEVICES"]
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = before


def _take(count: int, known: list[str], folder: Path, held: ExitStack) -> list[str]:
    """``count`` free GPUs, locked until ``held`` closes; [] and no lock where there are fewer."""
    with ExitStack() as attempt:
        taken = []
        for name in known:
            try:
                attempt.enter_context(FileLock(folder / f"{name.replace('/', '-')}.lock", timeout=0))
            except Timeout:
                continue
            taken.append(name)
            if len(taken) == count:
                held.enter_context(attempt.pop_all())
                return taken
    return []
