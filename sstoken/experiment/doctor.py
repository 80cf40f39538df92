"""What this machine has, and what of it would stop a run."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from sstoken.experiment.grid import Grid
from sstoken.records.documents import PACKAGE, ConfigError

CHECKOUT = PACKAGE.parent
WORKFLOW = ("workflow", "eval", "report")
LEAST_DISK = 5e9


@dataclass(frozen=True)
class Finding:
    """stops: a run could not go through. what: one line, with what to do where it stops."""

    what: str
    stops: bool = False

    def __str__(self) -> str:
        return f"{'STOP' if self.stops else 'ok  '}  {self.what}"


def examine(grid: Grid | None = None) -> list[Finding]:
    """Everything that a run of ``grid`` (None: of any grid) depends on outside of its configuration."""
    checks = (_python, _packages, _torch, _hub, _slurm, _disk, _permissions, _grid)
    return [finding for look in checks for finding in look(grid)]


def _python(grid: Grid | None) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info < (3, 11)
    yield Finding(f"Python {version}" + (": 3.11 or newer is needed" if old else f" ({sys.executable})"), old)


def requirements() -> dict[str, list[Requirement]]:
    """Extra ("": none) -> what the package asks for; of the checkout, or of what is installed."""
    found: dict[str, list[Requirement]] = {}
    if (CHECKOUT / "pyproject.toml").exists():
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
        asked = {"": project["dependencies"], **project["optional-dependencies"]}
        return {extra: [Requirement(text) for text in texts] for extra, texts in asked.items()}
    for text in importlib.metadata.requires("sstoken") or []:
        requirement = Requirement(text)
        extra = re.search(r"extra == [\"']([^\"']+)", str(requirement.marker or ""))
        found.setdefault(extra[1] if extra else "", []).append(requirement)
    return found


def _packages(grid: Grid | None) -> Iterator[Finding]:
    asked = requirements()
    for extra in ("", *WORKFLOW):
        faults, present = [], []
        for requirement in asked.get(extra, []):
            try:
                version = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                faults.append(f"{requirement.name} is not installed")
                continue
            if not requirement.specifier.contains(version, prereleases=True):
                faults.append(f"{requirement.name} {version} is not {requirement.specifier}")
            present.append(f"{requirement.name} {version}")
        name = f"packages of [{extra}]" if extra else "packages"
        if not faults:
            yield Finding(
                f"{name}: {', '.join(present[:4])}" + (f" and {len(present) - 4} more" if present[4:] else "")
            )
        elif extra and not (CHECKOUT / "Snakefile").exists():
            yield Finding(f"{name}: {'; '.join(faults)} (only the workflow needs them)")
        else:
            install = "make reproduce installs them"
            yield Finding(f"{name}: {'; '.join(faults)}; {install if extra else 'pip install --upgrade sstoken'}", True)


def _torch(grid: Grid | None) -> Iterator[Finding]:
    try:
        import torch
    except ImportError:
        return  # said with the packages
    asked = grid.config["device"] if grid else "auto"
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(number)
            yield Finding(f"GPU {number}: {device.name}, {device.total_memory / 1e9:.0f} GB")
    elif asked == "cuda" and shutil.which("sbatch") is None:
        yield Finding(
            "the configuration asks for device: cuda, and torch sees no GPU and there is no SLURM; set device=auto",
            True,
        )
    else:
        build = "a CUDA build" if torch.version.cuda else "a CPU build"
        yield Finding(f"no GPU here (torch is {build}); jobs on this machine run on {os.cpu_count()} CPU cores")


def _hub(grid: Grid | None) -> Iterator[Finding]:
    needs = bool(grid and (grid.hub.models or grid.hub.rows or grid.hub.benchmarks))
    fetched = [*map(grid.model_record, grid.hub.models), *grid.hub.records, *grid.hub.benchmarks] if grid else []
    missing = [path for path in fetched if not path.exists()]
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        yield Finding("hub: switched off (HF_HUB_OFFLINE); only the cache is read")
        return
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=4)
        reached = True
    except urllib.error.HTTPError:
        reached = True
    except (OSError, ValueError):
        reached = False
    token = (
        "a token is set" if os.environ.get("HF_TOKEN") or _token_file().exists() else "no token (gated models need one)"
    )
    if reached:
        yield Finding(f"hub: {endpoint} answers; {token}")
    elif needs and missing:
        yield Finding(
            f"hub: {endpoint} does not answer, and {len(missing)} files of this configuration come from there; "
            "run make fetch where there is network, with the same HF_HOME",
            True,
        )
    else:
        yield Finding(
            f"hub: {endpoint} does not answer" + ("; all is fetched" if needs else "; this configuration needs none")
        )


def _token_file() -> Path:
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(os.environ.get("HF_TOKEN_PATH") or Path(home) / "token")


def _slurm(grid: Grid | None) -> Iterator[Finding]:
    if shutil.which("sbatch") is None:
        yield Finding("SLURM: none here (no sbatch); runs stay on this machine")
        return
    done = subprocess.run(["squeue", "--noheader", "--me"], capture_output=True, text=True, timeout=30)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no message"])[-1]
        yield Finding(f"SLURM: sbatch is here, but squeue fails ({why}): jobs could not be submitted")
    else:
        accounts = shutil.which("sacct") and subprocess.run(["sacct", "-n", "-X"], capture_output=True).returncode == 0
        hint = "" if accounts else "; no accounts are kept, so add --slurm-status-command squeue"
        yield Finding(f"SLURM: sbatch and squeue answer{hint}")


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _disk(grid: Grid | None) -> Iterator[Finding]:
    folder = _existing((grid.root if grid else Path("results")).resolve())
    free = shutil.disk_usage(folder).free
    needed, what = LEAST_DISK, "at least"
    if grid:
        from sstoken.experiment.plan import Plan

        with contextlib.suppress(ConfigError):  # sizes that are not known: `sstoken plan` says which
            needed, what = 1.2 * sum(Plan(grid.config).disk().values()) + 1e9, "with a fifth to spare"
    text = f"disk: {free / 1e9:.0f} GB free at {folder}; {needed / 1e9:.1f} GB are needed, {what}"
    yield Finding(text + ("" if free >= needed else "; free some, or put results/ elsewhere (a link)"), free < needed)


def _permissions(grid: Grid | None) -> Iterator[Finding]:
    for path in dict.fromkeys((grid.root if grid else Path("results"), Path(_token_file().parent))):
        folder = _existing(path.resolve())
        writable = os.access(folder, os.W_OK | os.X_OK)
        yield Finding(f"writing: {folder}" + ("" if writable else ": permission denied"), not writable)


def _grid(grid: Grid | None) -> Iterator[Finding]:
    if grid is None:
        return
    from sstoken.experiment.check import check

    try:
        check(grid)
        yield Finding(f"configuration {grid.config['experiment']}: valid")
    except ConfigError as error:
        for line in str(error).splitlines():
            if not line.endswith("would stop this experiment:"):
                yield Finding(line.removeprefix("- "), True)
