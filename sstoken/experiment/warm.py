"""The workflow's side of `sstoken.jobs.warm`: a script runs in a process forked from one that has loaded its libraries.

Used where a job's imports weigh: on one machine, without a GPU, which a forked process could not use.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

OFF = "SSTOKEN_COLD_JOBS"
"""Environment variable: where it is set, each job starts in a Python of its own."""

HEAP = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296", "MALLOC_TOP_PAD_": "67108864"}
"""What glibc's allocator reads once: a job keeps the buffers that it frees until it ends, for the next of that size.

Handed back and asked for again they cost a small evaluation a tenth of its time, in the kernel.
"""


def use_warm_jobs(libraries: dict[str, tuple[str, ...]]) -> None:
    """Let Snakemake run the scripts that are named there so, in this process's workflow."""
    from snakemake.script import PythonScript

    if os.environ.get(OFF) or not can_watch() or not hasattr(PythonScript, "execute_script"):
        return
    if getattr(PythonScript.execute_script, "warm", False):
        return  # this process has had a workflow before
    cold, parents = PythonScript.execute_script, {hub: WarmParent(hub) for hub in (False, True)}

    def execute_script(self: PythonScript, fname: str, edit: bool = False) -> None:
        elsewhere = edit or self.container_img or self.conda_env or self.env_modules
        if elsewhere or kind_of(fname) not in libraries:
            return cold(self, fname, edit)
        parent = parents[fetches(self.rulename)]
        code = parent.run(fname, environment(self.threads, self.resources.get("tmpdir")), self.bench_record)
        if code is None:
            return cold(self, fname, edit)
        if code:
            raise subprocess.CalledProcessError(code, [sys.executable, fname])
        return None

    execute_script.warm = True
    PythonScript.execute_script = execute_script


def can_watch() -> bool:
    """Whether the system tells a process that another has ended: Linux since 5.3, where nothing forbids it."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def kind_of(script: str) -> str:
    """ "train" of ``tmpab12.train.py``, as which Snakemake writes ``train.py`` before it runs it."""
    return Path(script).suffixes[-2][1:]


def fetches(rule: str) -> bool:
    """Whether a rule's jobs use the hub, which its library takes for switched on or off when it is loaded."""
    return rule.startswith("fetch_")


def environment(threads: int, folder: str | None) -> dict[str, str]:
    """Of a job, as Snakemake's shell gives it."""
    kinds = ("OMP", "GOTO", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR")
    names = {f"{kind}{'' if kind.endswith('MAXIMUM') else '_NUM'}_THREADS": str(threads) for kind in kinds}
    return {**os.environ, **names, **(dict.fromkeys(("TMPDIR", "TMP", "TEMPDIR", "TEMP"), folder) if folder else {})}


class WarmParent:
    """One process, started with the first job, that forks all; threads may call it at the same time.

    hub: with the hub as the user has set it; else switched off.
    """

    def __init__(self, hub: bool = False) -> None:
        self.own = {"HF_HUB_OFFLINE": os.environ.get("SSTOKEN_HUB_OFFLINE", "0")} if hub else {}
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None
        self.numbers = itertools.count()
        self.waiting: dict[int, _Job] = {}

    def run(self, script: str, environment: dict[str, str], record: object = None) -> int | None:
        """The script's exit status, or None where the parent has died: then the job is no more either.

        Args:
            record: Snakemake's, of what the job's process uses.
        """
        job = self._ask(script, environment)
        job.changed.wait()
        if job.pid is not None and record is not None:
            from snakemake.benchmark import benchmarked

            with benchmarked(job.pid, record):
                job.ended.wait()
        job.ended.wait()
        return job.code

    def _ask(self, script: str, environment: dict[str, str]) -> _Job:
        with self.lock:
            if self.process is None:
                self._start()
            job = _Job()
            number = next(self.numbers)
            self.waiting[number] = job
            request = {
                "number": number,
                "script": script,
                "kind": kind_of(script),
                "environment": environment | self.own,
            }
            with suppress(BrokenPipeError):  # the listener sees the end too, and tells the job
                self.requests.write(json.dumps(request).encode() + b"\n")
                self.requests.flush()
        return job

    def _start(self) -> None:
        theirs, ours = os.pipe()
        answers, said = os.pipe()
        # a fork keeps no threads
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        own = {**HEAP, **os.environ, **single, **self.own}
        # -P: a file in the working folder does not stand before a library of its name, as it does not in a script
        command = [sys.executable, "-P", "-m", "sstoken.jobs.warm", str(theirs), str(said)]
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # it is born with it
        try:
            self.process = subprocess.Popen(command, pass_fds=(theirs, said), env=own)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(theirs)
        os.close(said)
        self.requests = os.fdopen(ours, "wb")
        atexit.register(self._stop, self.process, self.requests)
        self.waiting = {}
        threading.Thread(target=self._listen, args=(os.fdopen(answers, "rb"), self.waiting), daemon=True).start()

    @staticmethod
    def _stop(process: subprocess.Popen, requests: BinaryIO) -> None:
        """At the end of the workflow: what the jobs used is then counted as its own."""
        with suppress(BrokenPipeError):
            requests.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)

    def _listen(self, answers: BinaryIO, waiting: dict[int, _Job]) -> None:
        for line in answers:
            answer = json.loads(line)
            job = waiting[answer["number"]]
            job.pid = answer.get("pid", job.pid)
            if "code" in answer:
                job.code = answer["code"]
                with self.lock:
                    del waiting[answer["number"]]
                job.ended.set()
            job.changed.set()
        with self.lock:
            left = list(waiting.values())
            self.process = None  # the next job starts another
        for job in left:  # its successor must not wait for its lock
            if job.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(job.pid, signal.SIGKILL)
            job.ended.set()
            job.changed.set()


class _Job:
    def __init__(self) -> None:
        self.pid: int | None = None
        self.code: int | None = None
        self.changed, self.ended = threading.Event(), threading.Event()
