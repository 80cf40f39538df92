"""A small grid, run as a user runs it, and held against one that nothing happened to."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file

from tests.flow import Workflow

SMALL = {
    "models": ["tiny-llama"],
    "methods": ["base", "full", "tokencleaning-self-evolving", "sstoken"],
    "benchmarks": ["arc_easy", "tydiqa"],
    "seeds": [0],
}


@dataclass
class Count:
    """One row of the table. survived: ended with the same bytes. lost: finished results that were made again unasked."""

    what: str
    tried: int = 0
    survived: int = 0
    lost: int = 0
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, fault: str | None, seconds: float | None = None, lost: int = 0, tried: int = 1) -> None:
        self.tried += tried
        self.survived += 0 if fault else tried
        self.lost += lost
        if seconds is not None:
            self.seconds.append(round(seconds, 1))
        if fault:
            self.failures.append(fault)
            print(f"FAILED {self.what}: {fault}", file=sys.stderr, flush=True)


class Campaign:
    """folder: of all runs. minutes: after which no new fault is drawn."""

    def __init__(self, folder: Path, seed: int, minutes: float):
        self.folder, self.seed = folder.absolute(), seed
        self.end = time.monotonic() + 60 * minutes
        self.counts: dict[str, Count] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.alone, self.seconds = self._alone()

    def _alone(self) -> tuple[Workflow, float]:
        """The unbroken run that all others are held against; one that is there is brought up to date."""
        known = self.folder / "alone" / "seconds"
        flow = Workflow(self.folder / "alone") if known.exists() else self.flow("alone")
        start = time.monotonic()
        code, text = finish(launch(flow))
        assert code == 0, text[-3000:]
        if not known.exists():
            known.write_text(f"{time.monotonic() - start:.1f}")
        return flow, float(known.read_text())

    def flow(self, name: str) -> Workflow:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / name).mkdir(parents=True)
        flow = Workflow(self.folder / name)
        flow.configuration("kill", **SMALL)
        return flow

    def copy(self, name: str) -> Workflow:
        """A finished run, as a copy."""
        flow = self.flow(name)
        shutil.copytree(self.alone.folder / "results", flow.folder / "results", symlinks=True)
        return flow

    def count(self, what: str) -> Count:
        return self.counts.setdefault(what, Count(what))

    def over(self) -> bool:
        return time.monotonic() > self.end

    def keep(self) -> None:
        """Called after each draw: whoever counts may write the counts down."""

    def judge(self, flow: Workflow, *, remove: bool = True) -> tuple[str | None, float, str]:
        """(what is wrong or None, seconds, output) of the same command, given until it ends."""
        start = time.monotonic()
        code, text = finish(launch(flow))
        fault = different(self.alone.results("kill"), flow.results("kill")) if code == 0 else text[-1500:]
        if remove and not fault:
            shutil.rmtree(flow.folder, ignore_errors=True)
        return fault, time.monotonic() - start, text


def launch(
    flow: Workflow, *, config: str = "kill.yaml", options: tuple[str, ...] = (), **environment: str
) -> subprocess.Popen:
    """What ``make reproduce`` runs, in a session of its own, as gently as this process."""
    words = ["--cores", "2", "--quiet", "host", "reason", *options]
    words += ["--workflow-profile", "workflow/profiles/default"]
    log = open(flow.folder / f"out-{time.monotonic_ns()}.txt", "w+")  # noqa: SIM115 (read when the process has ended)
    process = subprocess.Popen(
        [sys.executable, "-m", "sstoken.experiment.start", config, "--", *words], cwd=flow.folder,
        env=flow.environment() | environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    with suppress(OSError, IndexError):
        own = Path("/proc/self/autogroup").read_text().split()[-1]
        Path(f"/proc/{process.pid}/autogroup").write_text(own)
    process.log = log
    return process


def finish(process: subprocess.Popen, timeout: float = 1800) -> tuple[int, str]:
    code = process.wait(timeout)
    process.log.seek(0)
    return code, process.log.read()


def different(one: Path, other: Path) -> str | None:
    """The first of the tables, samples and adapters that is not the same, byte for byte."""
    tables = [path for path in sorted(one.glob("report/tables/*")) if not path.name.startswith("costs.")]
    for path in [one / "scores.csv", one / "selection.csv", *tables]:
        name = path.relative_to(one)
        if not (other / name).exists() or path.read_bytes() != (other / name).read_bytes():
            return f"{name} is not the same"
    frames = [pd.read_parquet(root / "samples.parquet") for root in (one, other)]
    if not frames[0].equals(frames[1]):
        return "samples.parquet is not the same"
    for path in sorted(one.glob("runs/**/*.safetensors")):
        mine, theirs = load_file(path), load_file(other / path.relative_to(one))
        same = mine.keys() == theirs.keys() and all(
            mine[k].numpy().tobytes() == theirs[k].numpy().tobytes() for k in mine
        )
        if not same:
            return f"{path.relative_to(one)} is not the same"
    return None


RECORDS = (
    "models/*/model.json",
    "tokens/*/*.json",
    "references/**/*.json",
    "runs/**/run.json",
    "scores/**/evaluation.json",
)


def finished(root: Path) -> dict[Path, str]:
    """Record -> what says that it was made once: a ticket may be written into it anew."""
    found = {}
    for path in (path for pattern in RECORDS for path in root.glob(pattern)):
        with suppress(ValueError, KeyError):
            document = json.loads(path.read_text())
            found[path] = json.dumps([document["cost"], document["software"]])
    return found
