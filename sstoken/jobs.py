"""What every job of the workflow does first: send all that it says to its log file."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


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
            traceback.print_exc()
            sys.stderr.flush()
            os.write(terminal, f"{type(error).__name__}: {error}\n(see {path})\n".encode())
            raise SystemExit(1) from None
        finally:
            sys.stdout.flush()
