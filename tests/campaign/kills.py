"""Kills at moments drawn by a seed over the whole of a run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.campaign.runs import Campaign, finish, finished, launch

WRITES = Path(__file__).parent / "at_write"


def descendants(pid: int) -> list[tuple[int, str]]:
    """(pid, name and command line) of all processes below one; a forked job has its name alone."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(stat.parent.name))
    found, new = [], [pid]
    while new:
        new = [child for one in new for child in parents.get(one, [])]
        for child in new:
            with suppress(OSError):
                own = [Path(f"/proc/{child}/{file}").read_bytes().replace(b"\0", b" ") for file in ("comm", "cmdline")]
                found.append((child, b"".join(own).decode()))
    return found


def processes(process: subprocess.Popen, target: str) -> list[int]:
    """The jobs of a workflow, or the process that they are forked from."""
    below = descendants(process.pid)
    if target == "parent":
        return [pid for pid, line in below if "sstoken.jobs.warm" in line and not line.startswith("sstoken ")]
    return [pid for pid, line in below if line.startswith("sstoken ") or ".snakemake/scripts/" in line]


def strike(process: subprocess.Popen, target: str, draw: random.Random) -> bool:
    """Kill what the draw names; False where it is not there."""
    if process.poll() is not None:
        return False
    if target in ("job", "parent"):
        while not (found := processes(process, target)):
            if process.poll() is not None:
                return False
            time.sleep(0.02)
        os.kill(draw.choice(found), signal.SIGKILL)
        return process.wait(1800) != 0 or target == "parent"  # without which its jobs start by themselves
    if target == "term":
        os.killpg(process.pid, signal.SIGTERM)
    elif target == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait(1800)
    return True


TARGETS = {
    "group": "SIGKILL of the workflow and all its jobs",
    "snakemake": "SIGKILL of Snakemake alone, its jobs orphaned",
    "job": "SIGKILL of one job",
    "parent": "SIGKILL of the process that the jobs are forked from",
    "write": "SIGKILL of a job beside the write of a record, table, checkpoint or array",
    "term": "SIGTERM of the workflow and all its jobs",
}


def kills(campaign: Campaign, number: int, targets: tuple[str, ...] = tuple(TARGETS), most: int = 6) -> None:
    """Kill a run up to ``most`` times at moments drawn over its length, then let it end; again, until all are drawn."""
    draw = random.Random(campaign.seed)
    made, turn = 0, 0
    while made < number and not campaign.over():
        flow, struck, before = campaign.flow(f"kills-{turn}"), [], {}
        turn += 1
        while len(struck) < min(most, number - made) and not campaign.over():
            target = targets[(made + len(struck)) % len(targets)]
            moment = draw.uniform(0.02, 0.7) * campaign.seconds
            if target == "write":
                where = {
                    "PYTHONPATH": str(WRITES),
                    "STRIKE": str(draw.randrange(2**31)),
                    "STRUCK": str(flow.folder / "s.count"),
                }
                for path in flow.folder.glob("s.count*"):
                    path.unlink()
                hit = finish(launch(flow, **where))[0] != 0 and (flow.folder / "s.count.hit").exists()
            else:
                process = launch(flow)
                deadline = time.monotonic() + moment
                while time.monotonic() < deadline and process.poll() is None:
                    time.sleep(0.05)
                hit = strike(process, target, draw)
            if hit:
                struck.append(target)
                before |= finished(flow.results("kill"))
            elif (flow.results("kill") / "report" / "index.html").exists():
                break  # the run was over before the kill
        fault, seconds, _ = campaign.judge(flow, remove=False)
        after = finished(flow.results("kill"))
        lost = sum(after.get(path) != said for path, said in before.items())
        for target in struck:
            campaign.count(TARGETS[target]).add(fault)
        if struck:
            row = campaign.count(TARGETS[struck[-1]])
            row.lost, row.seconds = row.lost + lost, [*row.seconds, round(seconds, 1)]
        made += len(struck)
        if not fault:
            shutil.rmtree(flow.folder, ignore_errors=True)
        campaign.keep()
        print(f"{made} of {number} kills", file=sys.stderr, flush=True)
