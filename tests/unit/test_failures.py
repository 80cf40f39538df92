"""A run's last lines name each job that failed, with its error."""

from sstoken.experiment import failures
from sstoken.experiment.failures import LINES, Failures, last_error

LOG = """loading
Traceback (most recent call last):
  File "a.py", line 1, in <module>
    first()
KeyError: 'an earlier one'
Traceback (most recent call last):
  File "a.py", line 2, in <module>
    second()
ValueError: the loss of step 3 is nan
lower training.learning_rate
"""


def test_the_last_error_is_its_message_whole():
    assert last_error(LOG) == ["ValueError: the loss of step 3 is nan", "lower training.learning_rate"]
    assert last_error("killed\n") == [] and last_error("") == []
    assert len(last_error(LOG + "line\n" * 50)) == LINES


def test_jobs_that_began_and_left_nothing_are_named(tmp_path):
    logs = {name: tmp_path / f"{name}.log" for name in ("done", "failed", "killed", "waits", "before")}
    logs["before"].write_text(LOG)  # of an earlier start
    watched = Failures((f"train {name}", log, tmp_path / f"{name}.done", 16000) for name, log in logs.items())
    assert watched.lines() == []
    for name in ("done", "failed"):
        logs[name].write_text(LOG)
    logs["killed"].write_text("step 3\n")
    (tmp_path / "done.done").touch()
    head, failed, killed = watched.lines()
    assert head.startswith("2 jobs failed")
    assert failed.startswith(f"- train failed ({logs['failed']})") and "the loss of step 3 is nan" in failed
    start, _, end = killed.partition("; ")
    assert start == f"- train killed ({logs['killed']})" and end.startswith("its log names no error: it was killed, ")
    assert "for want of memory (16,000 MB asked for, " in end and end.endswith(" MB there)")
    watched.here = False  # on a cluster this machine's memory says nothing
    assert watched.lines()[-1].endswith("for want of memory (16,000 MB asked for)")


def test_memory_here_is_what_the_machine_or_its_control_group_allows(tmp_path, monkeypatch):
    here = failures.memory_here()
    for name, text in (("none", None), ("max", "max\n"), ("more", f"{here * 2}\n")):
        if text:
            (tmp_path / name).write_text(text)
        monkeypatch.setattr(failures, "LIMITS", [tmp_path / name])
        assert failures.memory_here() == here
    (tmp_path / "less").write_text(f"{1 << 30}\n")
    monkeypatch.setattr(failures, "LIMITS", [tmp_path / "max", tmp_path / "less"])
    assert failures.memory_here() == 1 << 30
