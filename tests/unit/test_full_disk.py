"""A job that finds no room on its disk says which, where its user looks."""

import errno
import os
import subprocess
import sys

import pytest

FULL = """
import sys
from sstoken.jobs import logged
with logged(sys.argv[1]):
    raise {error}
"""


@pytest.mark.parametrize(
    "error", [f"OSError({errno.ENOSPC}, 'No space left on device', 'a')", "ValueError('No space left')"]
)
def test_a_full_disk_is_named_on_the_terminal(tmp_path, error):
    done = subprocess.run(
        [sys.executable, "-c", FULL.format(error=error), tmp_path / "log"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "No space left" in done.stderr and f"the disk of {tmp_path} has" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_log_without_room_does_not_hide_the_error():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    done = subprocess.run(
        [sys.executable, "-c", FULL.format(error="ValueError('why')"), "/dev/full"], capture_output=True
    )
    assert done.returncode == 1 and b"ValueError: why" in done.stderr


def test_another_error_says_nothing_of_disks(tmp_path):
    command = [sys.executable, "-c", FULL.format(error="ValueError('why')"), tmp_path / "log"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == f"ValueError: why\n(see {tmp_path / 'log'})\n"
