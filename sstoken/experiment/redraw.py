"""The page of a grid that runs, drawn again as results come, so that a browser can follow it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sstoken.records.files import atomic_write

SO_FAR = "so-far"  # the folder of a running experiment's page, in that of its results
AT_LEAST = 300.0  # seconds to the first page, and between two
SHARE = 0.05  # of the time may go into drawing
REFRESH = 60  # seconds after which a browser reads the page again
LEADS_ON = """<!doctype html>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url=../../report/index.html">
<p>The experiment is finished: <a href="../../report/index.html">its page</a>.</p>
"""


class Redraw:
    """Start ``sstoken.report.partial`` in a process of its own, of low priority, where the last one is long enough ago.

    root: of the results, whose ``config.json`` says what is drawn. say: told once where the page lies. The experiment's end
    ends it too: no page says afterwards that something is running.
    """

    def __init__(self, root: Path, say: Callable[[str], None], now: Callable[[], float] = time.monotonic):
        self.root, self.say, self.now = root, say, now
        self.page = root / SO_FAR / "report" / "index.html"
        self.process: subprocess.Popen | None = None
        self.began, self.next = 0.0, now() + AT_LEAST
        self.told = self.over = False

    def __call__(self) -> None:
        if self.over:
            return
        if self.process and self.process.poll() is None:
            return
        if self.process:
            self._ended()
        if self.now() < self.next:
            return
        log = self.root / "logs" / "so-far.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w") as file:
            words = [*self._words(), f"--refresh={REFRESH}"]
            self.process = subprocess.Popen(words, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
        os.setpriority(os.PRIO_PROCESS, self.process.pid, 10)
        self.began = self.now()

    def _ended(self) -> None:
        """Its end is seen at the next moment, so that the time between is counted as drawing."""
        took = self.now() - self.began
        self.next = self.now() + max(AT_LEAST, took / SHARE)
        if self.process and self.process.returncode == 0 and not self.told:
            self.told = True
            self.say(f"The page so far, drawn again as results come: {self.page}")
        self.process = None

    def _words(self) -> list[str]:
        return [sys.executable, "-m", "sstoken.report.partial", str(self.root / "config.json")]

    def _stop(self) -> None:
        self.over = True
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def finished(self) -> None:
        """Whoever follows the page so far is led to the finished one."""
        self._stop()
        if self.page.exists():
            with atomic_write(self.page) as temporary:
                Path(temporary).write_text(LEADS_ON)

    def failed(self) -> None:
        """The page so far shows what there is, and no longer says that the experiment is running."""
        self._stop()
        if self.page.exists():
            subprocess.run(self._words(), stdin=subprocess.DEVNULL, capture_output=True)
