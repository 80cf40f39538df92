"""A record or file that is not what was written is found, named, and made again; a job never reads on."""

import errno
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstoken.records import damage
from sstoken.records.damage import Damaged, checked, fault, held, hold, sealed, unsealed
from sstoken.records.files import sha256_file
from sstoken.records.identity import Ticket, whole

DOCUMENT = {"content": "c", "cost": {"seconds": 1.5}, "scores": [{"score": 0.123456}], "name": "größer"}


@pytest.fixture
def result(tmp_path):
    """A record of one file, as a job leaves it."""
    (tmp_path / "samples.parquet").write_bytes(bytes(range(200)))
    ticket = Ticket("evaluate", {"seed": 0})
    files = {"samples.parquet": sha256_file(tmp_path / "samples.parquet")}
    path = tmp_path / "evaluation.json"
    path.write_text(sealed(DOCUMENT | {"files": files} | ticket.details()))
    return path, ticket


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists)))
def test_a_sealed_record_comes_back_as_it_was(tmp_path_factory, document):
    path = tmp_path_factory.mktemp("records") / "a.json"
    path.write_text(sealed(document))
    assert unsealed(path) == document


def test_every_flipped_bit_and_every_cut_of_a_record_is_found(tmp_path):
    path = tmp_path / "run.json"
    content = sealed(DOCUMENT).encode()
    mark = len(damage.MARK)
    for place in range(len(content)):
        for bit in (0, 5, 7):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                found = unsealed(path)
            except Damaged as error:
                assert str(path) in str(error)
            else:  # of the mark itself: then nothing is checked, and nothing is wrong with the rest
                assert place < mark and {k: found.get(k) for k in DOCUMENT} == DOCUMENT, place
    for length in range(len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(Damaged):
            unsealed(path)


def test_a_record_of_an_older_version_is_read_unchecked(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(DOCUMENT | {"files": ["gone.txt"]}))
    assert unsealed(path)["name"] == "größer"
    assert "gone.txt is gone" in fault(path, unsealed(path), large=True)


ACTS = {
    "flipped": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 4]) + path.read_bytes()[1:]),
    "cut": lambda path: os.truncate(path, 100),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
    "of another run": lambda path: path.write_bytes(b"x" * 200),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("name", ["samples.parquet", "evaluation.json"])
def test_a_damaged_result_is_named_and_made_again(result, act, name, capsys):
    path, ticket = result
    assert whole(path) and ticket.finished(path)
    damage.tell.cache_clear()
    ACTS[act](path.parent / name)
    assert whole(path) is None and not ticket.finished(path)
    said = capsys.readouterr().err
    assert (f"{path.parent / name} is" in said and "made again" in said) or not path.exists()
    if path.exists():
        with pytest.raises(Damaged, match=name):
            checked(path)


def test_a_large_file_is_left_to_the_job_that_reads_it(result, monkeypatch):
    path, ticket = result
    monkeypatch.setattr(damage, "LARGE", 10)
    ACTS["flipped"](path.parent / "samples.parquet")
    assert whole(path) and not ticket.finished(path)
    with pytest.raises(Damaged, match=r"samples.parquet is not what was written: delete .*evaluation.json and run"):
        checked(path)


def test_a_job_does_not_start_from_damaged_files(result):
    path, ticket = result
    later = Ticket("report", {}, {"scores": (ticket.name, str(path), "content")})
    later.check()
    ACTS["flipped"](path.parent / "samples.parquet")
    with pytest.raises(Damaged, match=r"samples.parquet is not what was written"):
        later.check()


def test_tables_that_were_changed_are_seen_from_their_stamp(tmp_path):
    stamp, table = tmp_path / "jobs" / "report" / "tables.done", tmp_path / "report" / "main.csv"
    for path in (stamp, table):
        path.parent.mkdir(parents=True)
    stamp.touch()
    table.write_text("0.5")
    assert held(stamp) is None  # of a version that held nothing
    hold(stamp, [stamp, table])
    assert held(stamp) is None
    table.write_text("0.6")
    assert "main.csv is not what was written" in held(stamp)
    table.unlink()
    assert "main.csv is gone" in held(stamp)
    stamp.write_text("{")
    assert "tables.done is not what was written" in held(stamp)


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
