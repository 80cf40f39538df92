"""Names of results: what counts, and what does not."""

import dataclasses
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sstoken
from sstoken.experiment.config import load_config
from sstoken.experiment.grid import Grid
from sstoken.experiment.job_groups import Jobs
from sstoken.experiment.tickets import Result
from sstoken.records import identity
from sstoken.records.files import hashes
from sstoken.records.identity import (
    STAGES,
    closure,
    code_of,
    code_sha256,
    name_of,
    scorer_code,
    versions_of,
)
from sstoken.records.provenance import Cost, Record
from sstoken.records.ticket import ChangedMeanwhile, Ticket, changes
from sstoken.selection.methods import scorer_of, scorers

SOURCE = '''
"""What this is."""
import math

# the gain
GAIN = 2.0


class Scorer:
    """A scorer."""

    weight: float = 0.5
    """A share."""

    def score(self, loss, reference):
        """Their difference."""
        return GAIN * (loss - reference)  # nats


def empty():
    """Nothing to do."""
'''


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# the gain", "# how much it counts"),
        ("  # nats", ""),
        ('"""Their difference."""', '"""Loss minus reference."""'),
        ('        """Their difference."""\n', ""),
        ('    """A share."""\n', ""),
        ('"""What this is."""\n', ""),
        ("GAIN * (loss - reference)", "(GAIN\n            * (loss-reference))"),
        ("2.0", "2.00"),
        ('"""Nothing to do."""', '"""Still nothing."""'),
    ],
)
def test_what_code_says_to_people_does_not_count(before, after):
    assert before in SOURCE
    assert code_sha256(SOURCE.replace(before, after)) == code_sha256(SOURCE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("loss - reference", "reference - loss"),
        ("2.0", "2"),
        ("2.0", "2.5"),
        ("weight: float = 0.5", "weight: float = 0.6"),
        ("self, loss, reference", "self, reference, loss"),
        ("import math", "import cmath"),
        ("def score", "def scores"),
        ("return GAIN", "yield GAIN"),
    ],
)
def test_what_code_does_counts(before, after):
    assert before in SOURCE
    assert code_sha256(SOURCE.replace(before, after)) != code_sha256(SOURCE)


def test_text_that_is_a_value_counts():
    assert code_sha256('mode = "sum"') != code_sha256('mode = "mean"')
    assert code_sha256('call("sum")') != code_sha256('call("mean")')


@given(
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none() | st.booleans(), max_size=6)
)
def test_the_order_of_settings_does_not_count(settings):
    turned = dict(reversed(settings.items()))
    assert name_of(settings) == name_of(turned)
    assert name_of({**settings, "one more": 1}) != name_of(settings)


def ticket_of(folder: Path, **changed) -> Ticket:
    data = folder / "tokens.json"
    if not data.exists():
        data.write_text(json.dumps({"content": "aa", "truth": "bb"}))
    parts = {"training.learning_rate": 0.1, "seed": 0, "code sstoken/records/files.py": code("records/files.py")}
    needs = {"tokens": (changed.pop("tokens", "t1"), str(data), changed.pop("key", "content"))}
    return Ticket(changed.pop("stage", "train"), parts | changed, needs)


def code(name: str) -> str:
    return identity.file_code(identity.PACKAGE / name)


def test_each_part_moves_a_ticket(tmp_path):
    names = {
        ticket_of(tmp_path).name,
        ticket_of(tmp_path, seed=1).name,
        ticket_of(tmp_path, **{"training.learning_rate": 0.2}).name,
        ticket_of(tmp_path, tokens="t2").name,
        ticket_of(tmp_path, stage="losses").name,
        ticket_of(tmp_path, more=None).name,
    }
    assert len(names) == 6


def test_an_identity_is_of_content_and_a_ticket_of_what_made_it(tmp_path):
    before, after = ticket_of(tmp_path), ticket_of(tmp_path, tokens="made by newer code")
    assert before.name != after.name and before.identity == after.identity
    of_content, of_truth = before.identity, ticket_of(tmp_path, key="truth").identity
    assert of_content != of_truth
    (tmp_path / "tokens.json").write_text(json.dumps({"content": "cc", "truth": "bb"}))
    assert ticket_of(tmp_path).identity != of_content
    assert ticket_of(tmp_path, key="truth").identity == of_truth


def stored(folder: Path, ticket: Ticket) -> Path:
    (folder / "weights").write_text("w")
    Record(Cost("train"), {"files": hashes(folder, ["weights"]), **ticket.details()}).write(folder / "run.json")
    return folder / "run.json"


def test_records_of_an_older_version_name_their_files_alone(tmp_path):
    record, ticket = stored(tmp_path, ticket_of(tmp_path)), ticket_of(tmp_path)
    plain = json.loads(record.read_text()) | {"files": ["weights"]}
    record.write_text(json.dumps({key: value for key, value in plain.items() if key != "seal"}))
    assert ticket.finished(record)
    (tmp_path / "weights").unlink()
    assert not ticket.finished(record)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


DAMAGE = {
    "a file cut": lambda folder: (folder / "weights").write_text(""),
    "a file replaced": lambda folder: (folder / "weights").write_text("v"),
    "a file replaced by an older one": lambda folder: (
        (folder / "weights").write_text("v"), os.utime(folder / "weights", (1, 1))),
    "its record cut": lambda folder: cut(folder / "run.json"),
    "its record emptied": lambda folder: (folder / "run.json").write_text(""),
    "a number edited": lambda folder: (folder / "run.json").write_text(
        (folder / "run.json").read_text().replace('"seconds": 0.0', '"seconds": 1.0')),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_result_cut_or_edited_by_hand_is_not_finished(tmp_path, what):
    record, ticket = stored(tmp_path, ticket_of(tmp_path)), ticket_of(tmp_path)
    result = Result("train", "train", record, ticket)
    assert result.changed() == []
    DAMAGE[what](tmp_path)
    name = "run.json" if "record" in what or "number" in what else "weights"
    assert result.changed() == [f"{name} was cut, or edited by hand"]
    assert not ticket.finished(record)


def test_a_copy_is_as_good_as_what_it_was_copied_from(tmp_path):
    (here := tmp_path / "here").mkdir()
    record, ticket = stored(here, ticket_of(here)), ticket_of(here)
    shutil.copytree(here, tmp_path / "there")
    time.sleep(0.02)
    shutil.copy(here / "weights", tmp_path / "there" / "weights")  # its record is older
    there = tmp_path / "there" / record.name
    assert ticket.finished(there)
    cut(tmp_path / "there" / "weights")
    assert not ticket.finished(there)


def test_a_finished_result_is_found_and_gets_the_new_ticket(tmp_path):
    record = stored(tmp_path, before := ticket_of(tmp_path))
    assert before.finished(record) and not ticket_of(tmp_path, seed=1).finished(record)
    after = ticket_of(tmp_path, tokens="made by newer code")
    assert changes(json.loads(record.read_text()), after) == ["tokens"]
    assert after.finished(record)
    assert changes(json.loads(record.read_text()), after) == []
    (tmp_path / "weights").unlink()
    assert not after.finished(record)


def test_changes_are_named(tmp_path):
    record = json.loads(stored(tmp_path, ticket_of(tmp_path)).read_text())
    now = ticket_of(tmp_path, seed=1, **{"code sstoken/records/files.py": "other", "file rows.jsonl": "x"})
    assert changes(record, now) == ["seed: 0 -> 1", "code sstoken/records/files.py", "file rows.jsonl"]
    del record["ticket"]
    assert changes(record, now) == ["made by an older version"]


def test_what_changes_while_a_workflow_runs_is_refused(tmp_path):
    ticket_of(tmp_path).check()
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    known = identity.sha256_file(rows)[: identity.LENGTH]
    ticket_of(tmp_path, **{f"file {rows}": known}).check()
    rows.write_text("{ }\n")
    with pytest.raises(ChangedMeanwhile, match=r"rows\.jsonl was changed"):
        ticket_of(tmp_path, **{f"file {rows}": known}).check()
    with pytest.raises(ChangedMeanwhile, match=r"files\.py was changed"):
        ticket_of(tmp_path, **{"code sstoken/records/files.py": "before"}).check()


def test_a_stage_names_code_that_is_there_and_libraries():
    for stage, code in STAGES.items():
        assert code_of(stage), stage
        for module in (*code.entries, *code.leave_out):
            assert identity._file_of(module.rstrip(".")), f"{stage}: {module}"
        assert all(value for value in versions_of(stage).values())
    assert "+" not in versions_of("train")["version torch"]


def test_every_module_that_a_stage_imports_is_counted_or_left_out_by_name():
    """What is left out is left out by the list in one place, not by an oversight."""
    everything = closure(("sstoken.jobs.train", "sstoken.jobs.losses", "sstoken.jobs.evaluate"))
    counted = {key for stage in ("train", "losses", "evaluate") for key in code_of(stage)}
    uncounted = {
        m for m, path in everything.items() if f"code {path.relative_to(identity.PACKAGE.parent)}" not in counted
    }
    named = (*identity.SILENT, *identity.AS_CONTENT, "sstoken.tasks", identity.SCORERS)
    assert all(any(identity._within(module, room) for room in named) for module in uncounted), uncounted


def test_what_plants_noise_counts_for_tokens_and_reaches_training_as_their_content():
    planting = {f"code sstoken/data/{name}.py" for name in ("planting", "noise_kinds", "chat", "readers")}
    assert planting <= set(code_of("tokens")) and not planting & set(code_of("train"))


def test_a_scorer_counts_for_itself_alone():
    found = {name: scorer_code(config) for name, config in scorers().items()}
    for name, code in found.items():
        assert list(code) == [f"code sstoken/selection/methods/{name}.py"]
        assert not set(code) & set(code_of("train"))


def test_a_scorer_of_a_file_brings_the_helpers_that_it_imports(tmp_path, monkeypatch):
    """Another scorer's code that it calls is its own too."""
    module = type(sys)("borrowed")
    module.__file__ = str(tmp_path / "borrowed.py")
    Path(module.__file__).write_text("from sstoken.selection.methods.rho1 import Config as Theirs\n")
    monkeypatch.setitem(sys.modules, "borrowed", module)
    monkeypatch.chdir(tmp_path)
    config = dataclasses.make_dataclass("Config", [])
    config.__module__ = "borrowed"
    assert set(scorer_code(config)) == {"code borrowed.py", "code sstoken/selection/methods/rho1.py"}


def test_a_scorer_of_a_file_brings_files_of_ones_own_and_versions_of_libraries(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "helping.py").write_text("import math\nfrom helping_too import GAIN\n")
    (tmp_path / "helping_too.py").write_text("GAIN = 2\n")
    scorer = (
        "import scipy\nfrom helping import GAIN\nfrom sstoken.selection import Scorer\nclass Config(Scorer): pass\n"
    )
    (tmp_path / "mine.py").write_text(scorer)
    found = scorer_code(scorer_of("mine.py", "here"))
    assert {"code mine.py", "code helping.py", "code helping_too.py"} == {
        key for key in found if key.startswith("code")
    }
    assert "version scipy" in found and "version math" not in found
    (tmp_path / "helping_too.py").write_text("GAIN = 3\n")
    for function in (identity.scorer_code, identity.file_code):
        function.cache_clear()
    again = scorer_code(scorer_of("mine.py", "here"))
    assert {key for key in found if found[key] != again[key]} == {"code helping_too.py"}


def test_what_a_shell_sets_for_other_programs_moves_no_number(monkeypatch):
    """transformers takes this precision where the recipe asks for none."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert sstoken.drop_settings_of_the_environment() == ["ACCELERATE_MIXED_PRECISION", "NVIDIA_TF32_OVERRIDE"]
    assert "ACCELERATE_MIXED_PRECISION" not in os.environ
    assert sstoken.drop_settings_of_the_environment() == []


def test_the_report_counts_what_it_imports_and_the_libraries_of_its_statistics():
    found = identity.report_code()
    assert {"code sstoken/report/statistics.py", "code sstoken/data/tokens.py", "version scipy"} <= set(found)
    assert any(key.endswith(".j2") for key in found) and "code sstoken/experiment/plan.py" not in found


@pytest.mark.parametrize("stage", [stage for stage, code in STAGES.items() if code.job])
def test_a_job_counts_for_its_stage_from_its_next_edit_on(stage, monkeypatch):
    """It chooses what is read and how weights are stored; results that are there were made by the code of ``SINCE``."""
    path = identity._file_of(STAGES[stage].job)
    name = f"code {path.relative_to(identity.PACKAGE.parent).as_posix()}"
    assert name not in code_of(stage), (
        f"{name} was edited: where no number moves, SINCE takes {identity.file_code(path)}"
    )
    edited = identity.code_sha256(path.read_text() + "\nEDITED = 1\n")
    monkeypatch.setattr(identity, "file_code", lambda file: edited if file == path else "")
    assert code_of.__wrapped__(stage)[name] == edited


def test_a_job_elsewhere_sees_that_the_configuration_or_a_table_was_changed_since(tmp_path, monkeypatch, root):
    """On a cluster each job reads them again: a run would be made by the new recipe and filed as one by the old."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(root / "sstoken" / "selection" / "methods" / "methods.yaml", "methods.yaml")

    def jobs(*, plan, **changes):
        changes = {"methods_file": "methods.yaml", **changes}
        return Jobs(Grid(load_config(root / "config" / "ci.yaml", **changes)), plan=plan)

    jobs(plan=True).write("report", "audit")
    assert jobs(plan=False).changed_since_the_start() == []
    assert jobs(plan=False, training={"learning_rate": 0.02}).changed_since_the_start() == ["the configuration"]
    with open("methods.yaml", "a") as file:
        file.write("  mine: {extends: rho1}\n")
    assert jobs(plan=False).changed_since_the_start() == ["methods.yaml"]
