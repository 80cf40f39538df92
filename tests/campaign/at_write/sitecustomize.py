"""Kill this process at one write of the workflow's files, counted over all its jobs: before it, or in its middle.

Python runs this module at its start where its folder is on PYTHONPATH.  STRIKE: a number drawn; STRUCK: a file for the count.
"""

import os
import signal
import sys

WRITES = 90  # about as many as a run of the campaign has
STRIKE, STRUCK = int(os.environ.get("STRIKE", "-1")), os.environ.get("STRUCK", "")
middle = False


def kill() -> None:
    with open(f"{STRUCK}.hit", "w") as file:
        file.write(" ".join(sys.argv))
    os.kill(os.getpid(), signal.SIGKILL)


def hook(event: str, arguments: tuple) -> None:
    global middle
    if middle:
        middle = False
        kill()
    if (
        event not in ("open", "os.rename")
        or not isinstance(arguments[0], str)
        or f"{os.sep}results{os.sep}" not in (f"{os.sep}{arguments[0]}")
    ):
        return
    if event == "open" and not (isinstance(arguments[1], str) and set(arguments[1]) & set("wx")):
        return
    count = os.open(STRUCK, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(count, b".")
    reached = os.fstat(count).st_size == STRIKE // 2 % WRITES + 1
    os.close(count)
    if reached and STRIKE % 2:
        kill()
    middle = reached


words = " ".join(sys.orig_argv)
if STRUCK and (".snakemake" in words or "sstoken.jobs.warm" in words):  # a job, not the workflow
    sys.addaudithook(hook)
