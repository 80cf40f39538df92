"""Moved results, moved clocks, and several at once."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tests.campaign.runs import Campaign, different, finish, finished, launch
from tests.flow import Workflow


def ages(folder: Path, time_of: Callable[[float], float]) -> None:
    for path in sorted(folder.rglob("*")):
        if not path.is_symlink():
            os.utime(path, (time_of(path.stat().st_mtime),) * 2)


def moves(campaign: Campaign) -> None:
    """Copies, moves and clocks of finished results: nothing may run again, and nothing may change."""
    draw = random.Random(campaign.seed)

    def linked(flow: Workflow) -> Workflow:
        elsewhere = flow.folder / "large disk"
        flow.folder.joinpath("results").rename(elsewhere)
        flow.folder.joinpath("results").symlink_to(elsewhere)
        return flow

    def aged(time_of: Callable[[float], float]) -> Callable[[Workflow], Workflow]:
        def change(flow: Workflow) -> Workflow:
            ages(flow.folder / "results", time_of)
            return flow

        return change

    cases = {
        "results copied without their times": ("copied", lambda flow: flow),
        "times of one second": ("seconds", aged(float.__floor__)),
        "times all the same": ("same", aged(lambda _: 1e9)),
        "times shuffled": ("shuffled", aged(lambda _: draw.uniform(1e9, 1.6e9))),
        "results in a path with blanks and other letters": ("mein Ordner – übrige $HOME", lambda flow: flow),
        "results behind a symbolic link": ("linked", linked),
    }
    for what, (name, change) in cases.items():
        if campaign.over():
            return
        flow = change(campaign.copy(name))
        before = finished(flow.results("kill"))
        fault, seconds, text = campaign.judge(flow, remove=False)
        lost = sum(finished(flow.results("kill")).get(path) != value for path, value in before.items())
        if not fault and "Nothing to be done" not in text:
            fault = f"jobs ran: {text[-800:]}"
        campaign.count(what).add(fault, seconds, lost)
        shutil.rmtree(flow.folder, ignore_errors=True)
    if not campaign.over():
        fault, seconds, _ = campaign.judge(campaign.flow("von Anfang – à zéro"))
        campaign.count("a whole run in a path with blanks and other letters").add(fault, seconds)


def crowd(campaign: Campaign) -> None:
    """Two starts of one experiment in one folder, and two experiments in one checkout at once."""
    flow = campaign.flow("crowd")
    first = launch(flow)
    while not (flow.results("kill") / ".lock.owner").exists() and first.poll() is None:
        time.sleep(0.1)
    code, text = finish(launch(flow))
    told = code != 0 and "is in use by process" in text
    first.wait(1800)
    fault, seconds, _ = campaign.judge(flow)
    campaign.count("two starts in one folder: the second is told who holds it").add(
        fault or (None if told else text[-800:]), seconds
    )
    if campaign.over():
        return
    flow, start = campaign.flow("two"), time.monotonic()
    document = (flow.folder / "kill.yaml").read_text()
    (flow.folder / "other.yaml").write_text(document.replace("experiment: kill", "experiment: other"))
    running = [launch(flow), launch(flow, config="other.yaml")]
    codes = [process.wait(1800) for process in running]
    found = [different(campaign.alone.results("kill"), flow.results(name)) for name in ("kill", "other")]
    fault = next(filter(None, found), None) if codes == [0, 0] else f"exit statuses {codes}"
    campaign.count("two experiments in one checkout at once").add(fault, time.monotonic() - start, tried=2)
