"""A job that gets less memory than it needs: the system kills it, and the grid goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.campaign.kills import descendants
from tests.campaign.runs import Campaign, finish, launch

GROUPS = Path("/sys/fs/cgroup/memory")
ROOM = 8 << 20  # bytes beyond what the job has when it is found


def can_limit() -> bool:
    return os.access(GROUPS, os.W_OK) and (GROUPS / "memory.oom_control").exists()


def memory(campaign: Campaign, kinds: tuple[str, ...] = ("losses", "train", "evaluate")) -> None:
    """Put one job of each kind into a control group that is too small for it. Needs root and control groups of version 1."""
    for kind in kinds:
        if campaign.over():
            return
        flow = campaign.flow("memory")
        with small_group() as group:
            process, caught = launch(flow), None
            while process.poll() is None and caught is None:
                jobs = [pid for pid, line in descendants(process.pid) if line.startswith(f"sstoken {kind}"[:15])]
                caught = jobs[0] if jobs else None
                if caught:
                    group.joinpath("cgroup.procs").write_text(str(caught))
                time.sleep(0.02)
            code, text = finish(process)
            killed = "oom_kill 0" not in group.joinpath("memory.oom_control").read_text()
        fault = None
        if not killed:
            fault = f"no {kind} job was killed"
        elif code == 0 or f"- {kind} tiny-llama" not in text or "for want of memory" not in text:
            fault = f"exit status {code}, its end does not name the job and its memory: {text[-1500:]}"
        elif kind != "losses":  # which all trainings wait for: there is nothing yet to draw
            report = [sys.executable, "-m", "sstoken", "report", "kill.yaml"]
            subprocess.run(report, cwd=flow.folder, env=flow.environment(), capture_output=True)
            state = flow.results("kill") / "so-far" / "status.csv"
            fault = None if state.exists() and "missing" in state.read_text() else "the page does not name the hole"
        wrong, seconds, _ = campaign.judge(flow)
        campaign.count("a job in a control group without room for it").add(fault or wrong, seconds)


@contextmanager
def small_group() -> Iterator[Path]:
    group = GROUPS / f"sstoken-{time.monotonic_ns()}"
    group.mkdir()
    group.joinpath("memory.limit_in_bytes").write_text(str(ROOM))
    try:
        yield group
    finally:
        for pid in group.joinpath("cgroup.procs").read_text().split():
            GROUPS.joinpath("cgroup.procs").write_text(pid)
        group.rmdir()
