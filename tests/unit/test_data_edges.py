"""What breaks data preparation in the field: odd text, odd tokenizers, odd templates, files of another kind."""

import hashlib
import json
import os
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from sstoken.data import DataError, TokenData, read_rows, tokenize
from sstoken.data.readers import Row
from sstoken.records.files import atomic_write, sha256_file
from sstoken.training.reference_losses import ReferenceLosses
from tests.oracles.response_mask import by_bytes, noise_by_bytes

EOS = "</s>"
# a header that ends in a space, so that a token can reach from the header into the content
SPACED = (
    "{% for m in messages %}{{ ('Q: ' if m['role'] == 'user' else 'A: ') + m['content'] }}"
    "{{ eos_token if m['role'] == 'assistant' else '\\n' }}{% endfor %}"
)


def byte_tokenizer(*, trim=None, normalizer=None, special=EOS, template=None):
    """A byte-level BPE of 400 entries; trim: its post-processor's ``trim_offsets``, None for no post-processor."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>"],
        show_progress=False,
    )
    core.train_from_iterator(["Q: who are  you? \n\n A: hello  there,\n you are the cat"] * 20, trainer)
    if normalizer is not None:
        core.normalizer = normalizer
    if trim is not None:
        bos = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))])
        core.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=trim), bos])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=special, chat_template=template)


@pytest.fixture(scope="module")
def plain():
    return byte_tokenizer(template=SPACED)


@pytest.fixture(scope="module")
def trimming():
    return byte_tokenizer(trim=True, template=SPACED)


def row(*turns, place="f:1"):
    return Row("x", tuple({"role": r, "content": c, **(n[0] if n else {})} for r, c, *n in turns), "", place)


def prepared(tokenizer, *rows, template="tulu", policy="stop"):
    return tokenize(list(rows), tokenizer, template=template, max_length=10_000, on_bad_row=policy)


def response(tokenizer, data, index=0):
    sample = data.sample(index)
    return tokenizer.decode(sample["input_ids"][sample["response_mask"]], clean_up_tokenization_spaces=False)


HARD = {
    "emoji of several code points": "👩‍👩‍👧‍👦 ok 🇫🇮",
    "CJK": "漢字かな交じり文。",
    "empty lines": "one\n\n\n\ntwo\n \n\t\nthree",
    "carriage returns": "one\r\ntwo\r\n\r\nthree\rfour",
    "combining marks first": "\u0301e\u0301",
    "right to left": "שלום \u202eabc",
    "zero width": "\u200ba\u200b",
    "NUL and controls": "a\x00b\x02\x030\x03c",
    "template words": "<|user|>\nfake\n<|assistant|>\nfake",
}


@pytest.mark.parametrize("template", ["tulu", "tokenizer"])
@pytest.mark.parametrize("content", HARD.values(), ids=HARD.keys())
def test_hard_contents_are_response_to_the_byte(plain, content, template):
    padded = f"\n\r\n {content} \n\n"
    data, _ = prepared(plain, row(("system", content), ("user", padded), ("assistant", padded)), template=template)
    assert response(plain, data) == content + EOS


PIECE = st.sampled_from(
    [" ", "  ", "\n", "\r\n", "hello", "you", "the cat", ",", "é", "e\u0301", "漢", "👩‍👧", "?", "A:"]
)
CONTENT = st.lists(PIECE, min_size=1, max_size=8).map("".join).filter(str.strip)


@settings(max_examples=200, deadline=None)
@given(content=CONTENT, spans=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6)), max_size=3))
@pytest.mark.parametrize("template", ["tulu", "tokenizer"])
@pytest.mark.parametrize("name", ["plain", "trimming"])
def test_mask_and_noise_equal_the_byte_oracle_however_offsets_are_trimmed(request, name, template, content, spans):
    tokenizer, core = request.getfixturevalue(name), content.strip()
    first = content.index(core)
    # all of one kind: which kind wins where two overlap is no promise
    noise = [[s, min(s + n, len(content)), "k"] for s, n in spans if s < len(content)]
    header = "<|user|>\nwho\n<|assistant|>\n" if template == "tulu" else "Q: who\nA: "
    text = header + core + EOS
    noisy = {len(header) + c - first for s, e, _ in noise for c in range(s, e) if first <= c < first + len(core)}
    turns = row(("user", "who"), ("assistant", content, {"noise": noise}))
    data, _ = prepared(tokenizer, turns, template=template)
    ids, mask, truth = data.input_ids.tolist(), data.response_mask.tolist(), data.truth.tolist()
    if name == "trimming" and template == "tulu":  # its beginning-of-text has no place in the text
        assert (ids.pop(0), mask.pop(0), truth.pop(0)) == (tokenizer.convert_tokens_to_ids("<s>"), False, 0)
    assert mask == by_bytes(tokenizer, ids, [(False, header), (True, core + EOS)])
    assert truth == noise_by_bytes(tokenizer, ids, text, [int(c in noisy) for c in range(len(text))])


def test_a_token_that_reaches_from_the_header_into_the_response_is_prompt(trimming):
    data, _ = prepared(trimming, row(("user", "who"), ("assistant", "hello you")), template="tokenizer")
    assert "Ġhello" in trimming.convert_ids_to_tokens(data.input_ids)  # else this shows nothing
    assert response(trimming, data) == f" you{EOS}"


def test_a_tokenizer_is_left_as_it_was(trimming):
    before = trimming.backend_tokenizer.to_str()
    prepared(trimming, row(("user", "who"), ("assistant", "hello")))
    assert '"trim_offsets":true' in before.replace(" ", "")
    assert trimming.backend_tokenizer.to_str() == before


def test_a_normalizer_that_composes_characters_keeps_sides():
    tokenizer = byte_tokenizer(normalizer=normalizers.NFC())
    data, _ = prepared(tokenizer, row(("user", "caf\u0065\u0301"), ("assistant", "\u0065\u0301t\u0065\u0301 漢")))
    assert response(tokenizer, data) == f"été 漢{EOS}"


def test_look_alikes_that_a_normalizer_makes_special_are_refused():
    eos = AddedToken(EOS, special=True, normalized=True)
    tokenizer = byte_tokenizer(normalizer=normalizers.NFKC(), special=eos)
    look_alike = "\uff1c/s\uff1e"
    assert tokenizer(look_alike)["input_ids"] == [tokenizer.eos_token_id]  # else this shows nothing
    with pytest.raises(DataError, match="special token '</s>'"):
        prepared(tokenizer, row(("user", f"x{look_alike}y"), ("assistant", "b")))


def test_messages_that_a_chat_template_refuses_are_bad_rows():
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + SPACED
    tokenizer = byte_tokenizer(template=template)
    good = row(("user", "a"), ("assistant", "b"))
    refused = row(("system", "s"), ("user", "a"), ("assistant", "b"), place="f:2")
    data, bad = prepared(tokenizer, good, refused, template="tokenizer", policy="drop")
    assert len(data) == 1
    assert [(b.place, "no system role" in b.reason) for b in bad] == [("f:2", True)]


def test_a_chat_template_with_a_clock_is_refused_unless_it_takes_a_date():
    turns = row(("user", "a"), ("assistant", "b"))
    clock = "{{ strftime_now('%d %b %Y') }}\n" + SPACED
    with pytest.raises(DataError, match="today's date"):
        prepared(byte_tokenizer(template=clock), turns, template="tokenizer")
    dated = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    tokenizer = byte_tokenizer(template=dated + "{{ date_string }}\n" + SPACED)
    data, _ = prepared(tokenizer, turns, template="tokenizer")
    assert tokenizer.decode(data.input_ids).startswith("26 Jul 2024\nQ: a")


@pytest.mark.parametrize(
    ("options", "template", "reason"),
    [
        ({"special": None}, "tulu", "no eos_token"),
        ({}, "tokenizer", "no chat template"),
        ({}, "chatml", "must be one of tulu, tokenizer"),
    ],
)
def test_a_template_that_a_tokenizer_cannot_fill_is_said_at_once(options, template, reason):
    with pytest.raises(DataError, match=reason):
        prepared(byte_tokenizer(**options), row(("user", "a"), ("assistant", "b")), template=template)


def test_no_rows_and_too_many_kinds_of_noise_are_errors(plain):
    with pytest.raises(DataError, match="no rows"):
        prepared(plain)
    kinds = [row(("user", "a"), ("assistant", "hello", {"noise": [[0, 5, f"kind-{n}"]]})) for n in range(256)]
    assert prepared(plain, *kinds[:255])[0].truth.max() == 255
    with pytest.raises(DataError, match="'kind-255' is number 256"):
        prepared(plain, *kinds)


ASSISTANT = '{{"messages": [{{"role": "assistant", "content": "abc", "noise": {}}}]}}'
BAD = {
    ASSISTANT.format('[["0", 1, "k"]]'): "is not [start, end, kind]",
    ASSISTANT.format('[[0, 1.5, "k"]]'): "is not [start, end, kind]",
    ASSISTANT.format('[[false, true, "k"]]'): "is not [start, end, kind]",
    ASSISTANT.format('[[2, 2, "k"]]'): "outside the content",
    ASSISTANT.format("5"): "noise is not a list",
    ASSISTANT.format('{"a": 1}'): "noise is not a list",
    '{"prompt": "\\ud83d", "completion": "b"}': "message 1's content is not Unicode text",
    '{"prompt": "a", "completion": "b\\udc00"}': "message 2's content is not Unicode text",
    '{"messages": null}': "in none of the known forms",
    "[" * 100_000: "invalid JSON",
    '{"prompt": "a", "completion": "b"': "invalid JSON",
}


@pytest.mark.parametrize(("line", "reason"), BAD.items(), ids=range(len(BAD)))
def test_odd_rows_are_bad_rows_and_never_a_crash(tmp_path, line, reason):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"prompt": "a", "completion": "b"}}\n{line}\n')
    rows, bad = read_rows([str(path)], on_bad_row="drop")
    assert [r.place for r in rows] == [f"{path}:1"]
    assert [b.place for b in bad] == [f"{path}:2"]
    assert reason in bad[0].reason


def test_bytes_that_are_not_utf8_are_a_bad_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "\xff", "completion": "b"}\r\n\r\n{"prompt": "a", "completion": "b"}\r\n')
    rows, bad = read_rows([str(path)], on_bad_row="drop")
    assert [r.place for r in rows] == [f"{path}:3"]
    assert [b.place for b in bad] == [f"{path}:1"]


def test_a_null_messages_column_beside_prompt_and_completion_is_passed_over(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"messages": null, "prompt": "a", "completion": "b"}\n')
    rows, _ = read_rows([str(path)], on_bad_row="stop")
    assert [m["content"] for m in rows[0].messages] == ["a", "b"]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.json"])
def test_a_broken_file_is_named(tmp_path, name):
    (tmp_path / name).write_text("junk")
    with pytest.raises(DataError, match=name):
        read_rows([str(tmp_path)], on_bad_row="drop")


def test_bad_rows_beyond_the_limit_still_stop(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n' * 5 + "{\n")
    with pytest.raises(DataError, match=r"rows.jsonl:6: invalid JSON"):
        read_rows([str(path)], on_bad_row="stop", limit=2)


def test_repeats_are_numbered_around_ids_that_are_taken_and_in_linear_time(tmp_path):
    same = {"prompt": "a", "completion": "b"}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(same) + "\n")
    stem = read_rows([str(path)], on_bad_row="stop")[0][0].id
    path.write_text("".join(json.dumps(r) + "\n" for r in [{"id": f"{stem}-2", **same}, *[same] * 20_000]))
    ids = [r.id for r in read_rows([str(path)], on_bad_row="stop")[0]]  # a quadratic count takes a minute here
    assert ids[:4] == [f"{stem}-2", stem, f"{stem}-3", f"{stem}-4"]
    assert len(set(ids)) == len(ids)


def test_another_kind_of_stored_array_is_not_taken_for_tokens(plain, tmp_path):
    data, _ = prepared(plain, row(("user", "a"), ("assistant", "b")))
    path = tmp_path / "losses.safetensors"
    count = int(data.response_offset[-1])
    ReferenceLosses(torch.zeros(count), data.response_offset, data.sha256, "w").save(path)
    with pytest.raises(DataError, match="not a token file"):
        TokenData.load(path)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_loading_maps_the_file_and_copies_nothing(plain, tmp_path):
    prepared(plain, row(("user", "a"), ("assistant", "b" * 3000)))[0].save(tmp_path / "t.safetensors")
    data = TokenData.load(tmp_path / "t.safetensors")
    with open("/proc/self/maps") as lines:
        spans = [line.split()[0].split("-") for line in lines if "t.safetensors" in line]
    views = [data.input_ids, data.offset, data.response_mask, data.sample(0)["input_ids"], data.slice(0, 1).input_ids]
    for view in views:
        assert any(int(start, 16) <= view.data_ptr() < int(end, 16) for start, end in spans)


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("old")
        assert temporary.parent == path.parent  # else the last step is no rename
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["file.txt"]
    assert sha256_file(path) == hashlib.sha256(b"old").hexdigest()
