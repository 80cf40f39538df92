"""SIGTERM to a running workflow: it finishes the jobs that run, and ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress


def end_when_asked(say: Callable[[str], None] = print) -> None:
    """Let Snakemake's own handler run in a thread, and say what it does.

    It waits for a lock that the main thread, in which Python calls it, holds while a job is finished: then it waits for ever.
    """
    known = signal.getsignal(signal.SIGTERM)
    if not callable(known) or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe()
    told = False

    def listen() -> None:
        nonlocal told
        while os.read(reader, 1):
            if not told:
                say(
                    "asked to end (SIGTERM): no more jobs are started, those that run are finished; the same command goes on"
                )
            told = True
            with suppress(Exception):  # the next one must still be heard
                known(signal.SIGTERM, None)

    threading.Thread(target=listen, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: os.write(writer, b"."))  # the only thing that is safe at any moment
