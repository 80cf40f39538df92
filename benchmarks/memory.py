"""Peak memory of this process (device memory where there is a GPU, else resident memory), and the time of selection."""

from __future__ import annotations

import re
import time
from pathlib import Path

import psutil
import torch

import sstoken.training.packing
import sstoken.training.trainer
from sstoken.records.provenance import processor

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Memory:
    """``start`` after loading, ``peak`` after the last step: the process's peak since, and its growth over the start."""

    def __init__(self, cpu: bool = False):
        self.cuda = torch.cuda.is_available() and not cpu

    def start(self) -> None:
        self.synchronize()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            RESET.write_text("5")  # the high-water mark starts anew: loading's own peak is not the step's
            self.before = psutil.Process().memory_info().rss

    def peak(self) -> dict[str, int]:
        """``peak`` and ``growth``, bytes."""
        if self.cuda:
            peak = torch.cuda.max_memory_allocated()
        else:
            # getrusage's maximum would do, but a spawned process inherits it from the one that spawned it
            peak = int(re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())[1]) * 1024
        return {"peak": peak, "growth": peak - self.before}

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def device_name(self, threads: int) -> str:
        return torch.cuda.get_device_name() if self.cuda else f"{processor()}, {threads} threads"


class Clock:
    """CPU seconds of attention mass, scoring and ranking, a sum a step in ``each``.  On a CPU only: nothing is queued."""

    def __init__(self):
        self.each: list[float] = []

    def watch(self, trainer) -> None:
        if isinstance(trainer, sstoken.training.trainer.Selects):
            sstoken.training.trainer.choose = self._timed(sstoken.training.trainer.choose)
            sstoken.training.packing.attention_mass = self._timed(sstoken.training.packing.attention_mass)

    def _timed(self, function):
        def timed(*args, **options):
            began = time.process_time()
            try:
                return function(*args, **options)
            finally:
                self.each[-1] += time.process_time() - began

        return timed
