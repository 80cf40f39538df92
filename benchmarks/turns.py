"""Steps of several cases taken in turns, each case in a process of its own, and the rows that come of them."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from importlib.metadata import version

BASELINE, OWN_FULL = "hf-full", "full"
PACKAGES = ["torch", "transformers", "peft", "accelerate"]


def worker(case: str, options: argparse.Namespace, pipe) -> None:
    """Run steps on command; the channel carries seconds after each and memory after the last."""
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    import torch
    from transformers import PrinterCallback, TrainerCallback
    from transformers.utils.logging import disable_progress_bar

    from benchmarks.cases import build, synthetic_data
    from benchmarks.memory import Clock, Memory

    disable_progress_bar()
    torch.set_num_threads(options.threads)
    memory = Memory(options.cpu)

    class Turn(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            memory.start()

        def on_step_begin(self, args, state, control, **_):
            clock.each.append(0.0)
            pipe.send("ready")
            pipe.recv()
            memory.synchronize()
            self.began = time.perf_counter(), time.process_time()

        def on_step_end(self, args, state, control, **_):
            memory.synchronize()
            pipe.send((time.perf_counter() - self.began[0], time.process_time() - self.began[1]))

    data = synthetic_data(options.samples, options.warm_up + options.repeats, options.model, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(
            case,
            options.model,
            data,
            folder,
            batch_size=len(options.samples),
            cpu=options.cpu,
            random=options.random,
            mixed=options.mixed,
        )
        clock = Clock()
        if not memory.cuda:
            clock.watch(trainer)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Turn())
        trainer.train()
    pipe.send({"device": memory.device_name(options.threads), "selection": clock.each, **memory.peak()})


def measure(cases: list[str], options: argparse.Namespace) -> dict[str, dict]:
    """case -> (wall, CPU) seconds of each round, device and memory; the cases take turns."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for case in cases:
        pipes[case], far_end = context.Pipe()
        process = context.Process(target=worker, args=(case, options, far_end), name=case, daemon=True)
        process.start()
        far_end.close()  # so that a dead worker is an end of file here and not silence
        processes.append(process)
    try:
        seconds = {case: [] for case in cases}
        for pipe in pipes.values():
            pipe.recv()  # loaded: loading is slow, and must not fall into another's step
        rounds = options.warm_up + options.repeats
        for number in range(rounds):
            for case, pipe in pipes.items():
                pipe.send("go")
                seconds[case].append(pipe.recv())
                if number + 1 < rounds:
                    pipe.recv()
        measured = {case: {"seconds": seconds[case], **pipe.recv()} for case, pipe in pipes.items()}
        for result in measured.values():
            result["seconds"] = result["seconds"][options.warm_up :]
            result["selection"] = result["selection"][options.warm_up :]
        return measured
    except EOFError:
        raise SystemExit("a case ended early; its own message stands above") from None
    finally:
        for process in processes:
            process.join(timeout=60)
            process.terminate()


def rows_of(measured: dict[str, dict], shape: str) -> list[dict]:
    from benchmarks.cases import EXTRAS

    rows = []
    for case, result in measured.items():
        seconds, cpu_seconds = zip(*result["seconds"], strict=True)
        row = {
            "device": result["device"],
            "shape": shape,
            "case": case,
            "seconds": statistics.median(seconds),
            "cpu_seconds": statistics.median(cpu_seconds),
            "peak_memory_bytes": result["peak"],
            "peak_growth_bytes": result["growth"],
            "selection_share": statistics.median(
                part / whole for part, whole in zip(result["selection"], cpu_seconds, strict=True)
            ),
            "seconds_each": seconds,
            "versions": {name: version(name) for name in (*PACKAGES, *EXTRAS.get(case, ()))},
        }
        for name, against in (("ratio_to_hf_full", BASELINE), ("ratio_to_own_full", OWN_FULL)):
            pairs = None
            if against in measured:
                pairs = [s / b for s, (b, _) in zip(seconds, measured[against]["seconds"], strict=True)]
            row |= {name: pairs and statistics.median(pairs), f"{name}_each": pairs}
        rows.append(row)
    return rows
