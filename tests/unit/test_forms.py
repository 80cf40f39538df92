"""Rows as people have them: each form gives the tokens of the same messages, and nothing in a row is dropped in silence."""

import json
import logging
import re

import datasets
import pytest
import torch

from sstoken.data import DataError, check_limits, read_rows, rows_of, token_data
from sstoken.data.forms import read_form
from sstoken.data.messages import BadForm
from tests.byte_models import byte_tokenizer

CHAT = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
)
ASKED = [{"role": "user", "content": "Add 1 and 2."}, {"role": "assistant", "content": "It is 3."}]
SAME = {
    "messages": {"messages": ASKED},
    "prompt-completion": {"prompt": "Add 1 and 2.", "completion": "It is 3."},
    "lists": {"prompt": ASKED[:1], "completion": ASKED[1:]},
    "list and text": {"prompt": ASKED[:1], "completion": "It is 3."},
    "alpaca": {"instruction": "Add 1 and 2.", "input": "", "output": "It is 3."},
    "alpaca without input": {"instruction": "Add 1 and 2.", "output": "It is 3."},
    "dolly": {"instruction": "Add 1 and 2.", "context": "", "response": "It is 3.", "category": None},
    "sharegpt": {"conversations": [{"from": "human", "value": "Add 1 and 2."}, {"from": "gpt", "value": "It is 3."}]},
    "parts": {"messages": [ASKED[0], {"role": "assistant", "content": [{"type": "text", "text": "It is 3."}]}]},
}


@pytest.fixture(scope="module")
def tokenizer():
    made = byte_tokenizer(pad_token="</s>")
    made.chat_template = CHAT
    return made


def tokens(tokenizer, *rows, template="tokenizer", max_length=1000):
    return token_data(rows, tokenizer, template=template, max_length=max_length)


def response(tokenizer, data, index=0):
    sample = data.sample(index)
    return tokenizer.decode(sample["input_ids"][sample["response_mask"]])


@pytest.mark.parametrize("template", ["tokenizer", "tulu"])
@pytest.mark.parametrize("row", SAME.values(), ids=SAME.keys())
def test_every_form_gives_the_tokens_of_its_messages(tokenizer, row, template):
    data, expected = tokens(tokenizer, row, template=template), tokens(tokenizer, SAME["messages"], template=template)
    assert torch.equal(data.input_ids, expected.input_ids)
    assert torch.equal(data.response_mask, expected.response_mask)
    assert response(tokenizer, data) == "It is 3.</s>"


@pytest.mark.parametrize("names", [["messages", "alpaca", "dolly"], ["sharegpt"], ["lists"]])
def test_a_dataset_gives_the_tokens_of_its_rows_whatever_columns_are_null(tokenizer, names):
    rows = [SAME[name] for name in names]
    columns = {key for row in rows for key in row}
    rows = [dict.fromkeys(columns) | row for row in rows]
    data = token_data(datasets.Dataset.from_list(rows), tokenizer, max_length=1000)
    assert torch.equal(data.input_ids, tokens(tokenizer, *rows).input_ids)


def test_a_dataset_of_tokens_is_taken_in_any_format(tokenizer):
    made = datasets.Dataset.from_list([{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}] * 2)
    for kind in (None, "numpy", "torch"):
        data = token_data(made.with_format(kind), tokenizer, max_length=1000)
        assert data.input_ids.tolist() == [5, 6, 7] * 2
        assert data.response_mask.tolist() == [False, True, True] * 2


@pytest.mark.parametrize("mask", ["labels", "assistant_masks"])
def test_rows_that_are_tokenised_already_are_taken_as_they_are_without_their_padding(tokenizer, mask):
    columns = {
        "input_ids": [9, 9, 5, 6, 7, 9],
        "attention_mask": [0, 1, 1, 1, 1, 0],
        "labels": [-100, -100, -100, 6, 7, -100],
        "assistant_masks": [0, 0, 0, 1, 1, 0],
    }
    row = {key: columns[key] for key in ("input_ids", "attention_mask", mask)}
    data = tokens(tokenizer, row)
    assert data.input_ids.tolist() == [9, 5, 6, 7]
    assert data.response_mask.tolist() == [False, False, True, True]
    assert tokens(tokenizer, row, max_length=3).input_ids.tolist() == [9, 5, 6]


def test_a_tokeniser_without_a_chat_template_takes_tokenised_rows():
    data = tokens(byte_tokenizer(), {"input_ids": [1, 2, 3], "labels": [1, 2, 3]})
    assert data.response_mask.tolist() == [False, True, True]  # no state before the first


REFUSED = {
    "two forms": ({**SAME["messages"], **SAME["alpaca"]}, "ambiguous: it fits the forms messages .* alpaca"),
    "no form": ({"text": "a"}, r"none of the known forms: messages \(messages\); .*its keys: text"),
    "shifted labels": ({"input_ids": [1, 2, 3], "labels": [2, 3, -100]}, r"labels\[0\] is 2, input_ids\[0\] is 1"),
    "short labels": ({"input_ids": [1, 2, 3], "labels": [1, 2]}, "labels has 2 entries, input_ids 3"),
    "masks at odds": (
        {"input_ids": [1, 2], "labels": [-100, 2], "assistant_masks": [1, 0]},
        "labels and assistant_masks disagree",
    ),
    "gap": ({"input_ids": [1, 2, 3], "labels": [1, 2, 3], "attention_mask": [1, 0, 1]}, "gap within the sample"),
    "another tokenizer's": ({"input_ids": [1, 5000], "labels": [1, 5000]}, "token 5000 is none of the tokenizer's"),
    "nothing to train": ({"messages": [ASKED[0], {**ASKED[1], "weight": 0}]}, "no assistant turn to train on"),
    "half a weight": ({"messages": [ASKED[0], {**ASKED[1], "weight": 0.5}]}, "weight 0.5"),
    "train as text": ({"messages": [ASKED[0], {**ASKED[1], "train": "no"}]}, "train is not true or false"),
    "two systems": ({"system": "a", "messages": [{"role": "system", "content": "b"}, *ASKED]}, "which of them counts"),
    "a speaker": ({"conversations": [{"from": "robot", "value": "a"}]}, "unknown 'robot'; known: system, human"),
    "a picture": (
        {"messages": [{"role": "user", "content": [{"type": "image", "url": "a.png"}]}, ASKED[1]]},
        "part of the type 'image'",
    ),
    "labels of a prompt": (
        {"messages": [{**ASKED[0], "noise": [[0, 1, "k"]]}, ASKED[1]]},
        "noise speaks of a response",
    ),
}


@pytest.mark.parametrize(("row", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_row_that_says_two_things_or_none_is_refused_by_number_with_the_reason(tokenizer, row, reason):
    with pytest.raises(DataError, match=reason) as error:
        tokens(tokenizer, SAME["messages"], row)
    assert "row 1: " in str(error.value)


def test_inputs_and_systems_stand_where_they_belong(tokenizer):
    alpaca = {"instruction": "Translate.", "input": "Hund", "output": "dog", "system": "Be brief."}
    data = tokens(tokenizer, alpaca)
    assert tokenizer.decode(data.input_ids) == (
        "<|system|>\nBe brief.\n<|user|>\nTranslate.\n\nHund\n<|assistant|>\ndog</s>\n"
    )


@pytest.mark.parametrize("template", ["tokenizer", "tulu"])
@pytest.mark.parametrize("unlearnt", [{"weight": 0}, {"train": False}, {"weight": 0.0}])
def test_a_turn_of_weight_0_is_prompt_for_what_follows(tokenizer, template, unlearnt):
    first = {"role": "assistant", "content": "wrong", **unlearnt}
    data = tokens(tokenizer, {"messages": [ASKED[0], first, *ASKED]}, template=template)
    assert response(tokenizer, data) == "It is 3.</s>"
    assert "wrong" in tokenizer.decode(data.input_ids)


def test_labels_of_a_one_answer_form_are_those_of_its_answer(tokenizer):
    for columns in (("instruction", "output"), ("prompt", "completion"), ("instruction", "response")):
        row = dict(zip(columns, ("q", "a bad answer"), strict=True))
        data = tokens(tokenizer, row | {"noise": [[2, 5, "k"]], "teaches": [[6, 12]]}, template="tulu")
        assert tokenizer.decode(data.input_ids[data.truth == 1]).strip() == "bad"
        assert tokenizer.decode(data.input_ids[data.teaches]).strip() == "answer"


def test_text_under_an_unknown_key_is_named_once_with_its_count(tokenizer, caplog):
    rows = [{"prompt": "a", "completion": "b", "thoughts": "long", "score": 3, "tags": []}] * 3
    turns = {"messages": [{**ASKED[0], "lang": "en"}, ASKED[1]]}
    with caplog.at_level(logging.WARNING):
        token_data([*rows, turns], tokenizer, max_length=100)
    told = [record.getMessage() for record in caplog.records]
    assert "3 of 4 rows have the key 'thoughts', which carries text and is not read" in told
    assert "1 of 4 rows have the key 'messages[].lang', which carries text and is not read" in told
    assert not any("score" in line or "tags" in line for line in told)


def test_a_file_of_several_forms_names_the_rows_of_each(tmp_path, caplog):
    path = tmp_path / "rows.jsonl"
    mixed = [SAME["messages"], SAME["alpaca"], SAME["alpaca"]]
    path.write_text("".join(json.dumps(row) + "\n" for row in mixed))
    with caplog.at_level(logging.WARNING):
        rows, _ = read_rows([str(path)], on_bad_row="stop")
    assert [row.form for row in rows] == ["messages", "alpaca", "alpaca"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"1 messages (first: {path}:1); 2 alpaca (first: {path}:2, {path}:3)" in line


def test_a_folder_of_save_to_disk_is_read_and_a_dictionary_names_its_splits(tmp_path):
    made = datasets.Dataset.from_list([SAME["alpaca"], {"instruction": "q", "input": "x", "output": "y"}])
    made.save_to_disk(str(tmp_path / "one"))
    rows, _ = read_rows([str(tmp_path / "one")], on_bad_row="stop")
    assert [row.messages[-1]["content"] for row in rows] == ["It is 3.", "y"]
    datasets.DatasetDict(train=made, test=made).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(DataError, match=r"one split: .*two/… \(train, test\)"):
        read_rows([str(tmp_path / "two")], on_bad_row="stop")
    assert len(read_rows([str(tmp_path / "two" / "test")], on_bad_row="stop")[0]) == 2
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"junk")
    with pytest.raises(DataError, match="not a readable folder"):
        read_rows([str(tmp_path / "one")], on_bad_row="stop")


def test_rows_that_differ_only_in_what_is_trained_on_have_ids_of_their_own_whatever_the_order():
    light = {"messages": [*ASKED, *ASKED[:1], {**ASKED[1], "train": False}]}
    whole = {"messages": [*ASKED, *ASKED]}
    assert [row.id for row in rows_of([light, whole])] == [row.id for row in rows_of([whole, light])][::-1]
    noisy = {"messages": [ASKED[0], {**ASKED[1], "noise": [[0, 2, "k"]]}]}
    assert rows_of([noisy])[0].id == rows_of([SAME["alpaca"]])[0].id


def test_a_json_text_is_no_row(tmp_path):
    (tmp_path / "rows.jsonl").write_text('"just text"\n')
    with pytest.raises(DataError, match=r"rows.jsonl:1: not an object but str"):
        read_rows([str(tmp_path)], on_bad_row="stop")


def limits_folder(tmp_path, **config):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [], **config}))
    return tmp_path


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "vocab_size": 258, "max_position_embeddings": 20},
        {"model_type": "gpt2", "vocab_size": 258, "n_positions": 20},
        {"model_type": "gemma3", "text_config": {"vocab_size": 258, "max_position_embeddings": 20}},
    ],
)
def test_samples_longer_than_the_models_positions_are_known_at_once(tokenizer, tmp_path, config):
    folder = limits_folder(tmp_path, **config)
    rows = [{"input_ids": [5] * n, "labels": [5] * n} for n in (20, 21, 30)]
    check_limits(tokens(tokenizer, rows[0]), folder)
    with pytest.raises(DataError, match=r"2 of 3 samples .* the 20 positions of .*30 tokens.*max_length to 20 or less"):
        check_limits(tokens(tokenizer, *rows), folder)


def test_tokens_past_the_models_embedding_are_known_at_once(tokenizer, tmp_path):
    folder = limits_folder(tmp_path, model_type="llama", vocab_size=100)
    check_limits(tokens(tokenizer, {"input_ids": [1, 99], "labels": [1, 99]}), folder)
    with pytest.raises(DataError, match="token 100 of the tokenizer is past the model's embedding of 100"):
        check_limits(tokens(tokenizer, {"input_ids": [1, 100], "labels": [1, 100]}), folder)


QUESTION = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instruction": "a", "output": "b", "train": False}, "the row says not to train on it"),
        ({"prompt": "a", "completion": "b", "weight": 0}, "the row says not to train on it"),
        ({"prompt": "a", "completion": "b", "weight": 0.5}, "the row: weight 0.5; a turn is trained on"),
        ({"messages": [QUESTION, {"role": "assistant", "content": "y", "loss": False}]}, "loss False is not read here"),
        ({"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y", "loss_weight": 0.0}]},
         "message 2: loss_weight 0.0 is not read here; write train: false"),
        ({"messages": [QUESTION | {"train": True}, {"role": "assistant", "content": "y"}]}, "only responses are trained on"),
        ({"input_ids": [1, 2, 3], "labels": [1, 2, 3], "position_ids": [0, 1, 0]}, "several samples packed into one row"),
        ({"input_ids": [1, 2, 3], "labels": [1, 2, 3], "seq_lengths": [2, 1]}, "several samples packed into one row"),
    ],
)  # fmt: skip
def test_what_says_not_to_train_is_not_trained_on_in_silence(row, message):
    with pytest.raises(BadForm, match=re.escape(message)):
        read_form(row)


def test_what_says_nothing_else_is_read_and_settings_are_named():
    read_form(
        {"messages": [QUESTION | {"loss": False, "weight": 1}, {"role": "assistant", "content": "y", "train": True}]}
    )
    read_form({"input_ids": [0, 1, 2, 3], "labels": [-100, 1, 2, 3], "attention_mask": [0, 1, 1, 1],
               "position_ids": [1, 0, 1, 2], "seq_lengths": [4]})  # fmt: skip
    row = {"instruction": "a", "output": "b", "index": 5, "kwargs": {"enable_thinking": False}, "flag": True}
    assert read_form(row).unread == ("kwargs", "flag")
