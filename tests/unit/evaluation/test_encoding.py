"""Encodings remembered over runs: those of the same tokenizer and use, each caller's own list, up to a bound."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sstoken.evaluation.encoding import Remembering


def tokenizer_of(*words):
    core = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token=words[0]))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(Remembering, "known", {})
    monkeypatch.setattr(Remembering, "held", 0)


@pytest.fixture
def asked():
    return []


@pytest.fixture
def remembering(asked):
    def make(*words, add_bos=None):
        tokenizer = tokenizer_of(*words)

        def encode(text, **options):
            asked.append((text, options))
            return tokenizer.encode(text)[: options.get("most")]

        return Remembering(encode, tokenizer, add_bos)

    return make


def test_a_later_run_does_not_encode_again(remembering, asked):
    first = remembering("a", "b", "c")("b c")
    first.append(7)  # a list of its own: what its owner does to it must not reach the next run
    assert remembering("a", "b", "c")("b c") == [1, 2]
    assert len(asked) == 1


def test_another_tokenizer_use_or_option_is_another_encoding(remembering, asked):
    assert remembering("a", "b", "c")("b c") == [1, 2]
    assert remembering("a", "c", "b")("b c") == [2, 1]
    remembering("a", "b", "c", add_bos=True)("b c")
    assert remembering("a", "b", "c")("b c", most=1) == [1]
    assert len(asked) == 4


def test_what_is_beyond_the_bound_is_encoded_each_time(remembering, asked, monkeypatch):
    monkeypatch.setattr(Remembering, "MOST", 3)
    encode = remembering("a", "b", "c")
    for _ in range(2):
        assert encode("b c") == [1, 2] and encode("c b") == [2, 1]
    assert [text for text, _ in asked] == ["b c", "c b", "c b"]
