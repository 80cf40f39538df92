"""SIGTERM to a running workflow: it finishes the jobs that run, and ends."""

from __future__ import annotations

import os
import signal
import threading


def end_when_asked() -> None:
    """Let Snakemake's own handler run in a thread.

    It waits for a lock that the main thread, in which Python calls it, holds while a job is finished: then it waits for ever.
    """
    known = signal.getsignal(signal.SIGTERM)
    if not callable(known) or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe()

    def listen() -> None:
        while os.read(reader, 1):
            known(signal.SIGTERM, None)

    threading.Thread(target=listen, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: os.write(writer, b"."))  # the only thing that is safe at any moment
