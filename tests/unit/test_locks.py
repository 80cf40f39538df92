"""Locks: two experiments beside each other, one at a time of one experiment, and file systems that have none."""

import errno
import subprocess
import sys

import pytest

from sstoken.records import locks
from sstoken.records.locks import Held, locked

HOLD = """
import sys, time
from pathlib import Path
from sstoken.records.locks import locked
with locked(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_says_who_holds_it_and_dies_with_its_holder(tmp_path):
    path = tmp_path / "one" / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Held, match=rf"one is in use by process {holder.pid} of user "), locked(path, wait=False):
        pass
    with locked(tmp_path / "two" / ".lock", wait=False) as held:
        assert held
    holder.kill()
    holder.wait()
    with locked(path, wait=False) as held:
        assert held


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_gone_on_with_and_said(tmp_path, monkeypatch, capsys, code):
    def acquire(self):
        raise OSError(code, "Function not implemented")

    monkeypatch.setattr(locks.FileLock, "acquire", acquire)
    with locked(tmp_path / ".lock") as held:
        assert not held
    assert "this file system has no locks" in capsys.readouterr().err


def test_another_error_is_not_taken_for_a_missing_lock(tmp_path, monkeypatch):
    def acquire(self):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(locks.FileLock, "acquire", acquire)
    with pytest.raises(PermissionError), locked(tmp_path / ".lock"):
        pass
