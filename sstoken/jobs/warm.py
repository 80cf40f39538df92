"""A process that has loaded what jobs load, and forks one for each: imports are paid once a workflow, not once a job.

Only libraries are loaded here; sstoken's own modules are read anew by each job, as they lie there when it starts.

Lines of JSON come in, ``{"number", "script", "kind", "environment"}``; lines go out, ``{"number", "pid"}`` when a job
starts and ``{"number", "code"}`` when it has ended, ``code`` as of ``subprocess``: below zero is a signal.
The end of the input ends this process, and what it has not yet begun is not begun; jobs that still run are left alone,
as those of a killed workflow are.  It starts with SIGINT blocked, which a terminal sends to all of its processes: the
workflow and the jobs answer that; here no further job begins.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

SCRIPTS = ("snakemake.script", "snakemake.logging", "snakemake.iocontainers")
MODELS = (
    "torch",
    "transformers",
    "transformers.generation.utils",
    "transformers.models.auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "safetensors.torch",
    "tokenizers",
    "filelock",
    "jsonschema",
    "yaml",
)
TRAINING = (*MODELS, "peft", "accelerate", "datasets")
TABLES = ("pandas", "pyarrow.parquet", "scipy.stats", "statsmodels.stats.multitest")
LIBRARIES = {
    "fetch_rows": ("datasets", "huggingface_hub"),
    "fetch_benchmarks": ("datasets", "huggingface_hub", "lm_eval.tasks"),
    "world": ("torch", "tokenizers", "transformers"),
    "model": MODELS,
    "heldout": MODELS,
    "tokens": (*MODELS, "datasets"),
    "losses": TRAINING,
    "train": (*TRAINING, "transformers.trainer", "tabulate"),
    "evaluate": (*TRAINING, "lm_eval.evaluator", "lm_eval.tasks", "lm_eval.models.huggingface"),
    "audit": (*TRAINING, "transformers.trainer", *TABLES),
    "audit_page": (*TABLES, "jinja2"),
    "tables": ("torch", *TABLES),
    "page": (*TABLES, "matplotlib.pyplot", "jinja2"),
}  # fmt: skip
"""Name of a rule's script -> what it loads; a script that is not here is not run from here."""


def load(kind: str, loaded: set[str], requests: int) -> None:
    """What a script of that name will load. One that is not there, or does not load, fails in the job, which says so."""
    for name in (*SCRIPTS, *LIBRARIES[kind]):
        if name not in loaded and not gone(requests) and not interrupted():
            loaded.add(name)
            with suppress(Exception, SystemExit):
                importlib.import_module(name)


def gone(requests: int) -> bool:
    """Nobody holds the other end any more, though requests may still lie in the pipe."""
    poll = select.poll()
    poll.register(requests, 0)
    return bool(poll.poll(0))


def interrupted() -> bool:
    """A blocked signal stays pending, also one that is ignored, as under nohup."""
    return signal.SIGINT in signal.sigpending() and signal.getsignal(signal.SIGINT) != signal.SIG_IGN


def serve(requests: int, answers: int) -> None:
    gc.disable()
    loaded: set[str] = set()
    running: dict[int, tuple[int, int]] = {}  # a job's handle -> its number and process
    begun = b""
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd != requests:
                    number, pid = running.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    tell(answers, number=number, code=code)
                    continue
                data = os.read(requests, 65536)
                if not data:
                    return
                *lines, begun = (begun + data).split(b"\n")
                for request in map(json.loads, lines):
                    load(request["kind"], loaded, requests)
                    if gone(requests):
                        return
                    pid = begin(request, answers, (selector, requests, answers, *running))
                    if pid is not None:
                        handle = os.pidfd_open(pid)
                        running[handle] = request["number"], pid
                        selector.register(handle, selectors.EVENT_READ)


def begin(request: dict, answers: int, ours: tuple) -> int | None:
    """Fork the job and tell its process, or that there is none; ``ours`` is closed in it."""
    number = request["number"]
    if interrupted():
        tell(answers, number=number, code=-signal.SIGINT)
        return None
    gc.freeze()  # what is shared with the jobs is not walked over by their collectors
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.close(os.dup(answers))  # a handle will be needed to wait for it
        pid = os.fork()
    except OSError as error:  # too many processes or files, or no memory for one more: others go on
        print(f"a job could not be started: {error}", file=sys.stderr, flush=True)
        tell(answers, number=number, code=1)
        return None
    if not pid:
        for handle in ours:
            handle.close() if isinstance(handle, selectors.BaseSelector) else os.close(handle)
        become(request["script"], request["kind"], request["environment"])
    if interrupted():  # it came while the job was forked
        os.kill(pid, signal.SIGINT)
    tell(answers, number=number, pid=pid)
    return pid


def tell(answers: int, **said: int) -> None:
    with suppress(BrokenPipeError):  # the workflow is gone: the end of the requests says so next
        os.write(answers, json.dumps(said).encode() + b"\n")


def become(script: str, kind: str, environment: dict[str, str]) -> None:
    """The job, in the forked process: as ``python script`` in that environment. Does not return."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    for name in [name for name in sys.modules if name.partition(".")[0] == "sstoken"]:
        del sys.modules[name]
    with suppress(OSError):  # so that `top` tells one job from another
        Path("/proc/self/comm").write_text(f"sstoken {kind}")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # jobs that set no seed do not draw the same
    if (threads := int(environment["OMP_NUM_THREADS"])) > 1:
        with suppress(ImportError):  # numpy's and scipy's own libraries
            from threadpoolctl import threadpool_limits

            threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    gc.enable()
    sys.argv, sys.path[:0] = [script], [str(Path(script).parent)]
    runpy.run_path(script, run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
