"""Held-out rows as a result: an edit of the file is seen, and no job's record names a file without its hash."""

import ast
import json

import pytest

from sstoken.experiment.tickets import Result
from sstoken.jobs.prepare import store_heldout
from sstoken.records.provenance import Cost, Record
from sstoken.records.ticket import Ticket


def test_held_out_rows_edited_by_hand_are_made_again(tmp_path):
    rows = [json.dumps({"prompt": f"question {i}", "completion": f"answer {i}"}) for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    section = {"sources": [str(tmp_path / "rows.jsonl")], "skip": 2, "limit": 2, "shuffle_seed": None}
    record, ticket = tmp_path / "heldout" / "heldout.json", Ticket("heldout", {})
    result = Result("heldout", "heldout", record, ticket)
    store_heldout(section, {}, record, on_bad_row="stop", ticket=ticket)
    assert result.changed() == []
    file = record.with_name("test.jsonl")
    content = file.read_text()
    assert content.count("answer") == 2
    file.write_text(content.replace("answer 2", "another 2"))
    assert result.changed() == ["test.jsonl was cut, or edited by hand"]
    store_heldout(section, {}, record, on_bad_row="stop", ticket=ticket)
    assert file.read_text() == content and result.changed() == []


def test_a_record_names_no_file_without_its_hash(tmp_path):
    with pytest.raises(TypeError, match=r"files of .*run\.json without their hashes"):
        Record(Cost("train"), {"files": ["weights"]}).write(tmp_path / "run.json")


def test_every_job_writes_its_record_so(root):
    """By ``Record.write``, whose check the others would pass by."""
    for path in (root / "sstoken" / "jobs").glob("*.py"):
        calls = [node.func.attr for node in ast.walk(ast.parse(path.read_text()))
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]  # fmt: skip
        assert "rewrite" not in calls, path
