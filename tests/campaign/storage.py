"""Disks that are full, read-only or wrong."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.campaign.runs import Campaign, finish, finished, launch

FILES = {
    "weights": "models/*/model.safetensors",
    "world": "data/world/seed0/train.jsonl",
    "tokens": "tokens/*/train*.safetensors",
    "losses": "references/*/*/base.safetensors",
    "adapter": "runs/*/sstoken/seed0/adapter_model.safetensors",
    "part": "runs/*/*/seed0/part0/adapter_model.safetensors",
    "selection": "runs/*/full/seed0/selection.safetensors",
    "run record": "runs/*/full/seed0/run.json",
    "samples": "scores/*/base/seed0/samples.parquet",
    "scores record": "scores/*/sstoken/seed0/evaluation.json",
    "scores.csv": "scores.csv",
    "table": "report/tables/main.csv",
}


def flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


ACTS: dict[str, Callable[[Path, random.Random], object]] = {
    "one bit flipped": flip,
    "cut in half": lambda path, draw: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path, draw: os.truncate(path, 0),
    "deleted": lambda path, draw: path.unlink(),
}


def damage(campaign: Campaign, number: int) -> None:
    """Damage files of a finished run, a few kinds at a time; each must be named and made again as it was."""
    draw = random.Random(campaign.seed)
    cases = [(act, name) for act in ACTS for name in FILES]
    draw.shuffle(cases)
    cases = cases[:number]
    while cases and not campaign.over():
        chosen: dict[str, str] = {}
        for act, name in list(cases):
            # one of a folder: without its record nothing else of a run is looked at
            folders = {Path(FILES[other]).parent for other in chosen}
            if Path(FILES[name]).parent not in folders and len(chosen) < 4:
                chosen[name] = act
                cases.remove((act, name))
        flow = campaign.copy("damage")
        root, hit = flow.results("kill"), {}
        for name, act in chosen.items():
            path = sorted(root.glob(FILES[name]))[0]
            hit[name] = path, path.read_bytes()
            ACTS[act](path, draw)
        fault, seconds, text = campaign.judge(flow, remove=False)
        for name, act in chosen.items():
            path, content = hit[name]
            own = fault
            collected = name in ("scores.csv", "table")  # the first of them is named
            if not fault and act != "deleted" and not collected and str(path.relative_to(flow.folder)) not in text:
                own = f"{name}, {act}: not named"
            if not fault and path.suffix in (".jsonl", ".csv") and path.read_bytes() != content:
                own = f"{name}, {act}: not as it was"
            campaign.count(f"a file of finished results {act}").add(own, seconds)
        campaign.keep()


def full_disk(campaign: Campaign, number: int) -> None:
    """A disk of the run's own that is too small, then large enough; a disk that turns read-only. Needs root to mount."""
    draw = random.Random(campaign.seed)
    size = sum(path.stat().st_size for path in campaign.alone.folder.joinpath("results").rglob("*") if path.is_file())
    for turn in range(number):
        if campaign.over():
            return
        flow = campaign.flow("disk")
        with disk(flow.folder / "results", int(draw.uniform(0.1, 0.95) * size)) as again:
            code, text = finish(launch(flow))
            said = code != 0 and "No space left" in text
            before = finished(flow.results("kill"))
            if turn % 2 == 0:
                again("size=1g")
            else:  # then read-only, as a file system turns that has had a fault
                again("ro,size=1g")
                code, text = finish(launch(flow))
                told = code != 0 and ("Read-only file system" in text or "may not be written" in text)
                campaign.count("results turned read-only, then writable").add(None if told else text[-1500:])
                again("rw,size=1g")
            fault, seconds, _ = campaign.judge(flow, remove=False)
            after = finished(flow.results("kill"))
            lost = sum(after.get(path) != value for path, value in before.items())
            fault = fault or (None if said else f"the full disk is not named: {text[-800:]}")
            campaign.count("disk full at a size drawn, then room").add(fault, seconds, lost)


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Callable[[str], None]]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
