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

    root: of the results, whose ``config.json`` says what is drawn. say: told once where the page lies.
    """

    def __init__(self, root: Path, say: Callable[[str], None], now: Callable[[], float] = time.monotonic):
        self.root, self.say, self.now = root, say, now
        self.process: subprocess.Popen | None = None
        self.began, self.next = 0.0, now() + AT_LEAST
        self.told = False

    def __call__(self) -> None:
        if self.process and self.process.poll() is None:
            return
        if self.process:
            self._ended()
        if self.now() < self.next:
            return
        log = self.root / "logs" / "so-far.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "sstoken.report.partial", str(self.root / "config.json"), f"--refresh={REFRESH}"]
        with open(log, "w") as file:
            self.process = subprocess.Popen(words, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
        os.setpriority(os.PRIO_PROCESS, self.process.pid, 10)
        self.began = self.now()

    def _ended(self) -> None:
        """Its end is seen at the next moment, so that the time between is counted as drawing."""
        took = self.now() - self.began
        self.next = self.now() + max(AT_LEAST, took / SHARE)
        if self.process and self.process.returncode == 0 and not self.told:
            self.told = True
            self.say(f"The page so far, drawn again as results come: {self.root / SO_FAR / 'report' / 'index.html'}")
        self.process = None

    @staticmethod
    def finished(root: Path) -> None:
        """Whoever follows the page so far is led to the finished one."""
        page = root / SO_FAR / "report" / "index.html"
        if page.exists():
            with atomic_write(page) as temporary:
                Path(temporary).write_text(LEADS_ON)
