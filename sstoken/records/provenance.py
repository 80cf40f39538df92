"""What a result was made with: versions, commit, device, peak memory, hashes; written beside it as JSON."""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sstoken.records.files import atomic_write

PACKAGES = [
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "datasets",
    "lm_eval",
    "safetensors",
    "numpy",
    "pandas",
    "pyarrow",
    "snakemake",
]
CHECKOUT = Path(__file__).parents[2]


@dataclass
class Cost:
    """One job's cost: a row of ``costs.csv``.

    tokens: input tokens trained on, scored or stored. kept_tokens: response tokens in the loss.
    forward_tokens, backward_tokens: tokens that went through the model, each pass counted.
    flops: of matrix products, from shapes (a multiply-add counts 2). seconds: wall time without start-up; of a run that
    was resumed, with the training up to the checkpoint that it went on from. cpu_seconds: of all threads of the process that
    wrote the record; on a shared machine they scatter less than wall time. peak_memory_bytes: of the device on a GPU, of the
    process on a CPU, while this job ran: another one before it in the same process does not count. A forked job's has the
    libraries of the process that forked it, more or fewer: small models compare only roughly.
    """

    stage: str
    model: str = ""
    method: str = ""
    seed: int | str = ""
    tokens: int = 0
    kept_tokens: int = 0
    forward_tokens: int = 0
    backward_tokens: int = 0
    flops: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    device: str = ""


COST_COLUMNS = list(Cost.__dataclass_fields__)


@dataclass
class Record:
    """What a job leaves as JSON: its cost, and everything that its result depends on."""

    cost: Cost
    details: dict = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """
        Raises:
            TypeError: it names files without their hashes, so that an edit of one would not be seen.
        """
        if not isinstance(self.details.get("files", {}), dict):
            raise TypeError(f"files of {path} without their hashes")
        self.rewrite(path, {"cost": asdict(self.cost), "software": software(), **self.details})

    @staticmethod
    def rewrite(path: Path, document: dict) -> None:
        """Put a whole record, sealed, in the place of one that is there, or of none."""
        document = json.loads(json.dumps(document, default=str))
        with atomic_write(path) as temporary:
            sealed = {**document, "seal": _seal(document)}
            Path(temporary).write_text(json.dumps(sealed, indent=1, sort_keys=True) + "\n")


class DamagedRecord(ValueError):
    """A record that is not as its job wrote it."""


def read_record(path: str | Path) -> dict:
    """
    Raises:
        DamagedRecord: it is cut, or edited since its job wrote it.
    """
    try:
        document = json.loads(Path(path).read_text())
    except ValueError as error:
        raise DamagedRecord(f"{path} is cut or damaged; delete it, and its result is made again") from error
    if document.get("seal") not in (None, _seal(document)):  # None: of an older version
        raise DamagedRecord(f"{path} was edited after its job wrote it; delete it, and its result is made again")
    return document


def _seal(document: dict) -> str:
    plain = {key: value for key, value in document.items() if key != "seal"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def software() -> dict:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {"versions": versions, "platform": platform.platform(), "commit": commit()}


def commit() -> str:
    """The checkout's commit, with ``+changes`` where tracked files differ from it; "unknown" outside a checkout."""
    git = ["git", "-C", str(CHECKOUT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = [*git, "status", "--porcelain", "--untracked-files=no"]
        changes = subprocess.run(status, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if changes else "")


@contextmanager
def measured(cost: Cost, device: str):
    """Fill in seconds, peak memory and device of what happens inside."""
    cuda = str(device).startswith("cuda")
    if cuda:
        import torch

        torch.cuda.reset_peak_memory_stats()
    start, cpu = time.perf_counter(), time.process_time()
    with own_peak() as process:
        yield cost
        if cuda:
            torch.cuda.synchronize()
    cost.seconds += round(time.perf_counter() - start, 3)
    cost.cpu_seconds += round(time.process_time() - cpu, 3)
    peak = torch.cuda.max_memory_allocated() if cuda else process["peak"]
    cost.peak_memory_bytes = max(cost.peak_memory_bytes, peak)
    cost.device = torch.cuda.get_device_name() if cuda else processor()


@contextmanager
def own_peak(every: float = 0.02) -> Iterator[dict[str, int]]:
    """Resident memory of this process at its highest inside, in bytes, under "peak" once it is left.

    Linux keeps the highest mark and lets it be reset.  Where a container forbids that, a thread looks ``every`` so many
    seconds; where there is no /proc, the mark is that of the process since its start.
    """
    found: dict[str, int] = {}
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmHWM")
    except OSError:
        with _sampled(every) as sampled:
            yield found
        # ru_maxrss counts KiB on Linux, bytes on macOS
        process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        found["peak"] = sampled.get("peak", process)
        return
    yield found
    found["peak"] = max(before, _status("VmHWM"))


@contextmanager
def _sampled(every: float) -> Iterator[dict[str, int]]:
    found: dict[str, int] = {}
    stop = threading.Event()

    def look() -> None:
        while True:
            found["peak"] = max(found.get("peak", 0), _status("VmRSS"))
            if stop.wait(every):
                return

    if not Path("/proc/self/status").exists():
        yield found
        return
    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        stop.set()
        watcher.join()


def _status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def processor() -> str:
    """The CPU's name where the system tells it, else its architecture."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()
