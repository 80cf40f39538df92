"""Held-out rows are in no other data set, whatever their order, ids, noise or place."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstoken.data import DataError, read_rows
from sstoken.data.disjoint import disjoint_rows


def section(source, **options):
    return {"sources": [str(source)], "skip": 0, "limit": None, "shuffle_seed": None} | options


def texts(rows):
    return [tuple((m["role"], m["content"]) for m in row.messages) for row in rows]


def write(path, answers, **more):
    lines = [json.dumps({"prompt": "q", "completion": f"answer {a}", **more}) for a in answers]
    path.write_text("\n".join(lines))
    return path


@given(
    answers=st.lists(st.integers(0, 12), min_size=4, max_size=30),
    train=st.fixed_dictionaries({"skip": st.integers(0, 3), "limit": st.none() | st.integers(1, 9)}),
    own=st.fixed_dictionaries({"skip": st.integers(0, 3), "limit": st.none() | st.integers(1, 9)}),
    seeds=st.tuples(*[st.none() | st.integers(0, 3)] * 2),
)
def test_nothing_that_is_trained_on_is_held_out(tmp_path_factory, answers, train, own, seeds):
    path = write(tmp_path_factory.mktemp("rows") / "rows.jsonl", answers)
    train, own = section(path, shuffle_seed=seeds[0], **train), section(path, shuffle_seed=seeds[1], **own)
    trained, _ = read_rows(
        train["sources"], on_bad_row="stop", **{k: train[k] for k in ("skip", "limit", "shuffle_seed")}
    )
    candidates, _ = read_rows(own["sources"], on_bad_row="stop", skip=own["skip"], shuffle_seed=own["shuffle_seed"])
    expected = [t for t in texts(candidates) if t not in set(texts(trained))][: own["limit"]]
    if not expected:
        with pytest.raises(DataError, match=r"none of .* rows is held out: .* stand in train"):
            disjoint_rows(own, {"train": train}, "stop")
        return
    rows, left_out = disjoint_rows(own, {"train": train}, "stop")
    assert texts(rows) == expected
    assert sum(left_out.values()) <= len(candidates) - len(expected)


def test_every_other_data_set_counts_and_ids_do_not(tmp_path):
    train = write(tmp_path / "train.jsonl", [1, 2])
    reference = write(tmp_path / "reference.jsonl", [3], source="elsewhere")
    own = write(tmp_path / "own.jsonl", [1, 4, 3, 5, 2, 6])
    rows, left_out = disjoint_rows(
        section(own, limit=2), {"train": section(train), "reference": section(reference)}, "stop"
    )
    assert [content for _, (_, content) in texts(rows)] == ["answer 4", "answer 5"]
    assert left_out == {"train": 1, "reference": 1}
