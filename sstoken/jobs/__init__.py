"""One job of the grid each: prepare, losses, train, evaluate; here, what every job does first.

Every job takes the lock of its own output, so that a job orphaned by a killed workflow and its successor never write at
the same time; every record (JSON) is written last and in one piece, so that its existence means that the rest is whole.
A job whose result is there, by its identity, makes nothing.
"""

from __future__ import annotations

import errno
import gc
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sstoken.records.locks import locked
from sstoken.records.ticket import Ticket


@contextmanager
def imports() -> Iterator[None]:
    """Import without garbage collection, which would walk again and again over what is there to stay: a fifth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def logged(path: str) -> Iterator[None]:
    """Standard output and error go to ``path``, libraries' own included; an error's last line goes to the terminal too."""
    terminal = os.dup(2)
    with open(path, "a", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        except Exception as error:
            os.write(terminal, f"{type(error).__name__}: {error}{_full(error, path)}\n(see {path})\n".encode())
            with suppress(OSError):  # the log may be what there is no room for
                traceback.print_exc()
                sys.stderr.flush()
            raise SystemExit(1) from None
        finally:
            with suppress(OSError):
                sys.stdout.flush()


def _full(error: BaseException, path: str) -> str:
    """Of an error for want of room, which disk it is; libraries leave that out."""
    if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT) and "No space left" not in str(error):
        return ""
    folder = Path(path).absolute().parent
    left = shutil.disk_usage(folder).free / 2**20
    return f" (the disk of {folder} has {left:.1f} MiB left: make room and run the same command again)"


@contextmanager
def job(record: Path, threads: int, ticket: Ticket | None = None) -> Iterator[bool]:
    """The job's lock and thread count. A second job on the same output waits for the first.

    Yields whether the record is of the ticket's identity already: an orphan of a killed workflow may have finished it
    meanwhile, or what changed upstream came to the same content. Without a ticket (an audit, which is no part of the grid)
    it never is.

    Raises:
        ChangedMeanwhile: code or a file is no longer what the ticket says.
    """
    # before torch is imported, which reads these once
    os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    record.parent.mkdir(parents=True, exist_ok=True)
    with locked(record.parent / f".{record.stem}.lock"):
        if ticket is None:
            yield False
            return
        ticket.check()
        yield ticket.finished(record)


def each(named: Iterable[tuple[str, Callable[[], None]]]) -> None:
    """Do one thing after the other; one that fails does not stop the rest, and is told at the end.

    Raises:
        RuntimeError: names all that failed. Where there is but one thing to do, its own error.
    """
    named = list(named)
    failed = []
    for name, do in named:
        try:
            do()
        except Exception as error:
            if len(named) == 1:
                raise
            traceback.print_exc()
            failed.append(f"{name}: {type(error).__name__}: {error}")
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(named)} failed, the others are kept:\n" + "\n".join(failed))


def use_hub() -> None:
    """Put the hub back to what its user had set; the workflow switches it off for every job that does not call this.

    To be called before anything imports ``huggingface_hub``, which reads the variable once.
    """
    os.environ["HF_HUB_OFFLINE"] = os.environ.get("SSTOKEN_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))


def device_of(choice: str) -> str:
    """ "auto" is a GPU where there is one."""
    import torch

    if choice == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("device is cuda, but torch sees no GPU here; set device: auto or cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if choice == "auto" else choice


def run_folder(root: Path, model: str, label: str) -> Path | None:
    """The folder of the weights that a label names: "base" and "unconditional" (None), or "<method>.seed<seed>"."""
    if label in ("base", "unconditional"):
        return None
    method, _, seed = label.rpartition(".seed")
    return root / "runs" / model / method / f"seed{seed}"
