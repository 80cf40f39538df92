"""Settings of a command line: what they name changes, nothing else; what cannot be read says how to write it."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstoken.experiment.config import load_config, read_config
from sstoken.experiment.settings import flat, merged, settings_of
from sstoken.records.documents import ConfigError, read_yaml

KEYS = st.sampled_from(["a", "b", "c"])
BLOCKS = st.recursive(
    st.integers() | st.none() | st.lists(st.integers(), max_size=2),
    lambda below: st.dictionaries(KEYS, below, min_size=1, max_size=3),
    max_leaves=8,
)
CONFIGS = st.dictionaries(KEYS, BLOCKS, max_size=3)


def ci(root, *words):
    return read_config([root / "config" / "ci.yaml"], list(words))


@given(CONFIGS, CONFIGS)
def test_every_leaf_is_that_of_the_upper_one_where_it_has_it(under, over):
    before = copy.deepcopy((under, over))
    found, upper, lower = flat(merged(under, over)), flat(over), flat(under)
    for key, value in upper.items():
        assert found[key] == value
    for key, value in lower.items():
        touched = any(key == k or key.startswith(f"{k}.") or k.startswith(f"{key}.") for k in upper)
        assert touched or found[key] == value
    assert set(found) <= set(upper) | set(lower)
    assert (under, over) == before


@pytest.mark.parametrize(
    "words",
    [
        ["training={learning_rate: 0.02}"],
        ["training={learning_rate:", "0.02}"],  # as a shell cuts it
        ["training.learning_rate=0.02"],
        ["training.learning_rate=2e-2"],
        ["set=training.learning_rate=2e-2"],
        ["set=training={learning_rate:\\ 0.02}"],
        ["set=training={learning_rate: 0.02}"],
    ],
)
def test_a_setting_changes_what_it_names_and_nothing_else(root, words):
    before, after = flat(ci(root)), flat(ci(root, *words))
    assert {key for key in before if before[key] != after[key]} == {"training.learning_rate"}
    assert after["training.learning_rate"] == 0.02
    assert after["training.adapter.rank"] == 4


def test_a_block_is_replaced_where_that_is_asked_for(root):
    after = ci(root, "training:={learning_rate: 0.02}")
    assert after["training"]["adapter"]["rank"] == 64  # the default, not ci.yaml's 4
    then = ci(root, "training:={learning_rate: 0.02}", "training.epochs=3")["training"]
    assert (then["learning_rate"], then["epochs"], then["adapter"]["rank"]) == (0.02, 3, 64)
    assert ci(root, "training.adapter=null")["training"]["adapter"] is None


def test_later_words_go_before_and_several_keys_of_a_block_add_up(root):
    training = ci(root, "training.epochs=2", "training.epochs=3", "training.adapter.rank=2")["training"]
    assert (training["epochs"], training["adapter"]["rank"], training["adapter"]["alpha"]) == (3, 2, 8)


def test_values_with_blanks_are_quoted_once():
    assert settings_of(["set=instruct_data='my rows/a b.jsonl' seeds=[0, 1]"]) == {
        "instruct_data": "my rows/a b.jsonl", "seeds": [0, 1],
    }  # fmt: skip
    assert settings_of(["instruct_data=my rows.jsonl"]) == {"instruct_data": "my rows.jsonl"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["training={learning_rate: 0.02"], "not valid YAML .*single quotes"),
        (["0.02}"], "is not key=value"),
        (["set=instruct_data='my rows"], "a quote is not closed"),
        ([".epochs=1"], "a key is a name"),
        (["seeds=3"], r"seeds: 3 is not a list; write seeds=\[3\], in a file seeds: \[3\]"),
        (["methods=full,sstoken"], r"write methods=\[full, sstoken\]"),
        (["training.learning_rat=1"], "unknown key 'training.learning_rat'. Did you mean 'learning_rate'"),
        (["training.learning_rate=.nan"], "is no number to work with"),
        (["seeds.first=1"], "is not a list"),
    ],
)
def test_what_cannot_be_read_says_what_to_write(root, words, message):
    with pytest.raises(ConfigError, match=message):
        ci(root, *words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3:1: the key 'a' stands in line 1 already"),
        ("a:\n  b: 1\n  b: 1\n", "x.yaml:3:3: the key 'b' stands in line 2 already"),
        ("a:\n\tb: 1\n", "x.yaml:2:1: a tab"),
        ("a: .inf\n", "x.yaml:1:4: .inf is no number"),
        ("- a\n", "a mapping of keys is needed"),
        ("a: 1\n---\na: 2\n", "x.yaml:2:1: .*document"),
        ("a: [1\n", "x.yaml:2:1: "),
        ("a: *b\n", "undefined alias"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_place(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml("x.yaml")
    assert "\n" not in str(caught.value)


def test_anchors_and_merges_work_and_numbers_are_those_of_yaml_1_2(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("base: &b {x: 1e-3, y: 2}\nother: {<<: *b, y: 1E+2}\ntext: '1e-3'\nname: e5\n")
    assert read_yaml(path) == {
        "base": {"x": 0.001, "y": 2}, "other": {"x": 0.001, "y": 100.0}, "text": "1e-3", "name": "e5",
    }  # fmt: skip


def test_files_that_cannot_be_read_are_one_line(tmp_path, root):
    with pytest.raises(ConfigError, match=r"nowhere.yaml: no such file$"):
        load_config("nowhere.yaml")
    with pytest.raises(ConfigError, match="a folder; a file is needed"):
        load_config(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"a: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"not a text file in UTF-8 \(byte 3\)"):
        load_config(tmp_path / "x.yaml")
