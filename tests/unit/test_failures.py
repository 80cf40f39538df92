"""A run's last lines name each job that failed, with its error."""

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
    failures = Failures((f"train {name}", log, tmp_path / f"{name}.done") for name, log in logs.items())
    assert failures.lines() == []
    for name in ("done", "failed"):
        logs[name].write_text(LOG)
    logs["killed"].write_text("step 3\n")
    (tmp_path / "done.done").touch()
    head, failed, killed = failures.lines()
    assert head.startswith("2 jobs failed")
    assert failed.startswith(f"- train failed ({logs['failed']})") and "the loss of step 3 is nan" in failed
    assert killed == f"- train killed ({logs['killed']}); its log names no error: it was killed"
