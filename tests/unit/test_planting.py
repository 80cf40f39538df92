"""Planted noise: what is labelled is what changed, for any text; prompts stay; the same seed plants the same."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sstoken.data import DataError, planted, tokenize, unplanted
from sstoken.data.arithmetic import changed_numbers
from sstoken.data.noise_kinds import KINDS, LEAKS, Corpus
from sstoken.data.planting import BOILERPLATE
from sstoken.data.readers import Row
from tests.byte_models import byte_tokenizer

ALL = dict.fromkeys(KINDS, 1.0)
TEXTS = [
    "Anna Berg went to Paris in 1999. She had 3 cats and 4 dogs, so 3 + 4 = 7 animals. Then 7 * 2 = 14 paws.",
    "The capital of France is the city of Paris.\n\n1. It is large.\n2. It is old.",
    "Water boils at 100 degrees, as we told Carl Olsson in Stockholm.",
    "漢字かな交じり文を書きました。それは長い文章です。終わり。",
    "שלום עולם, מה שלומך היום? הכל בסדר גמור.",
    "नमस्ते दुनिया। यह एक लंबा वाक्य है।",
    "yes",
]


def row(text, name="r", **extra):
    messages = ({"role": "user", "content": f"question of {name}?"}, {"role": "assistant", "content": text, **extra})
    return Row(name, messages, "", "f:1")


def rows_of(texts):
    return [row(text, f"r{n}") for n, text in enumerate(texts)]


def check_labels(clean, noisy):
    """Undoing the labels gives the clean row back, and a label's text is never what stood there."""
    assert unplanted(noisy) == clean
    for before, after in zip(clean.messages, noisy.messages, strict=True):
        if before["role"] != "assistant":
            assert after == before
            continue
        last = 0
        for (start, end, kind), original in zip(after["noise"], after["originals"], strict=True):
            assert last <= start < end <= len(after["content"])
            assert kind in KINDS
            assert after["content"][start:end] != original
            last = end


# letters of many scripts, digits, signs of arithmetic, white space, marks that combine, emoji, what templates are made of
SIGNS = [". ", "\n", "\n\n", "。", "? ", " ", "  ", "3 + 4 = 7", "12", "1,000", "2.50", "= ", "-", "</s", "<|"]
WORDS = ["the cat ", "Anna ", "漢字", "かな", "שלום ", "привет ", "नमस्ते ", "한국어 ", "e\u0301", "ไทย", "İı", "Paris"]
PIECE = st.one_of(
    st.sampled_from(SIGNS),
    st.sampled_from([*WORDS, "\U0001f469\u200d\U0001f467 ", "dž", "ß", "ﬁ"]),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=8),
)
TEXT = st.lists(PIECE, min_size=1, max_size=14).map("".join).filter(str.strip)


@settings(max_examples=1500, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=3), seed=st.integers(0, 3))
def test_unplanting_gives_back_the_clean_row_for_any_text(texts, seed):
    clean = rows_of([*texts, *TEXTS[:2]])
    noisy, counts = planted(clean, {**ALL, "seed": seed})
    for before, after in zip(clean, noisy, strict=True):
        check_labels(before, after)
        assert after.messages[-1]["content"].strip()
    for kind, count in counts.items():
        assert count["rows"] + sum(count["could_not"].values()) == len(clean), kind


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(text=TEXT, seed=st.integers(0, 9))
def test_each_kind_alone_is_undone_and_counted(kind, text, seed):
    clean = rows_of([text, *TEXTS])
    noisy, counts = planted(clean, {kind: 1.0, "seed": seed})
    spans = characters = 0
    for before, after in zip(clean, noisy, strict=True):
        check_labels(before, after)
        found = after.messages[-1]["noise"]
        assert {k for _, _, k in found} <= {kind}
        spans += len(found)
        characters += sum(end - start for start, end, _ in found)
    assert (counts[kind]["spans"], counts[kind]["characters"]) == (spans, characters)
    assert counts[kind]["rows"] == sum(bool(r.messages[-1]["noise"]) for r in noisy)


def noisy_text(kind, text, seed=0, others=TEXTS):
    (first, *_), counts = planted(rows_of([text, *others]), {kind: 1.0, "seed": seed})
    return first.messages[-1], counts[kind]


def labelled(message):
    return [message["content"][start:end] for start, end, _ in message["noise"]]


def test_another_rows_response_takes_the_whole_place():
    message, _ = noisy_text("other_response", " own answer \n")
    assert message["content"].strip() in TEXTS
    assert labelled(message) == [message["content"].strip()]
    assert message["content"].startswith(" ") and message["content"].endswith(" \n")


def test_a_cut_response_stops_inside_a_word_and_its_end_of_turn_is_noise():
    message, _ = noisy_text("cut", TEXTS[2])
    assert TEXTS[2].startswith(message["content"])
    assert message["end_noise"] == "cut"
    assert message["content"].endswith(labelled(message)[0])
    assert TEXTS[2][len(message["content"])].isalpha()
    tokenizer = byte_tokenizer(pad_token="</s>")
    noisy, _ = planted([row(TEXTS[2])], {"cut": 1.0})
    (fragment,) = labelled(noisy[0].messages[-1])
    data, _ = tokenize(noisy, tokenizer, template="tulu", max_length=1000, on_bad_row="stop")
    assert data.kinds == ("cut",)
    assert tokenizer.decode(data.input_ids[data.truth == 1]) == f"{fragment}</s>"
    assert not data.always_clean.any()


def test_a_shuffled_sentence_keeps_its_words_and_the_others_their_place():
    text = "First comes this. Then four more words follow here. Last one."
    message, _ = noisy_text("shuffled", text)
    assert Counter(message["content"].split()) == Counter(text.split())
    assert message["content"] != text
    one, _ = noisy_text("shuffled", "漢字かな交じり文を書きました")
    assert sorted(one["content"]) == sorted("漢字かな交じり文を書きました")
    assert one["noise"]


def test_a_name_is_swapped_wherever_it_stands_with_another_of_the_data():
    text = "We met Carl Olsson there. He is what Carl Olsson said."
    message, _ = noisy_text("names", text)
    assert len(labelled(message)) == 2
    assert len(set(labelled(message))) == 1
    corpus = Corpus([[t] for t in [text, *TEXTS]], ())
    assert set(labelled(message)) <= set(corpus.names) - {"Carl Olsson"}
    assert "He" not in corpus.names and "Paris" in corpus.names and "Anna Berg" not in corpus.names


def test_insertions_stand_behind_a_sentence_and_begin_with_the_space_before_them():
    for kind in ("repetition", "random_words", "boilerplate", "debris"):
        for seed in range(10):
            message, _ = noisy_text(kind, TEXTS[0], seed)
            ((start, end, _),) = message["noise"]
            assert message["content"][start - 1] == "."
            assert message["content"][start].isspace()
            assert not message["content"][end - 1].isspace()
    assert labelled(noisy_text("boilerplate", TEXTS[0])[0])[0].strip() in BOILERPLATE
    assert labelled(noisy_text("debris", TEXTS[0])[0])[0].strip() in {leak.strip() for leak in LEAKS}


def test_phrases_of_the_user_replace_ours():
    noisy, _ = planted([row("Some answer.")], {"boilerplate": 1, "phrases": ["My own words."]})
    assert noisy[0].messages[-1]["content"] == "Some answer. My own words."


def test_text_in_another_script_has_none_of_its_own_letters():
    message, _ = noisy_text("script", "Plain Latin words")
    (made,) = labelled(message)
    assert message["content"] == made
    assert not any("a" <= c.lower() <= "z" for c in made)
    assert [c.isspace() for c in made] == [c.isspace() for c in "Plain Latin words"]


def test_typing_errors_are_words_that_are_no_longer_right():
    message, _ = noisy_text("typos", "several ordinary English words")
    for wrong in labelled(message):
        assert wrong not in ["several", "ordinary", "English", "words"]
        assert wrong.isalpha()


WORKED = [
    # text, the number that is changed (its place among those of equations, its new value), the text that follows from it
    ("3 + 4 = 7. 7 * 2 = 14. So 14.", 2, 9, "3 + 4 = 9. 9 * 2 = 18. So 18."),
    ("3 + 4 = 7. 7 * 2 = 14. So 14.", 0, 5, "5 + 4 = 9. 9 * 2 = 18. So 18."),
    ("3 + 4 = 7. 7 * 2 = 14. So 14.", 4, 3, "3 + 4 = 7. 7 * 3 = 21. So 21."),
    ("14 is it: 7 * 2 = 14.", 2, 15, "14 is it: 7 * 2 = 15."),
    ("(1 + 2) * 3 = 9 of 9", 0, 2, "(2 + 2) * 3 = 12 of 12"),
    ("1 + 2 * 3 = 7 = 7.", 1, 3, "1 + 3 * 3 = 10 = 10."),
    ("<<3*4=12>>12 left, 4 each", 0, 5, "<<5*4=20>>20 left, 4 each"),
    ("$1,500 + $500 = $2,000, or 2,000", 1, 700, "$1,500 + $700 = $2,200, or 2,200"),
    ("5 apples - 8 apples = -3 apples", 0, 9, "9 apples - 8 apples = 1 apples"),
    ("7 / 2 = 3.5 and 3.5 x 2 = 7", 0, 9, "9 / 2 = 4.5 and 4.5 x 2 = 9"),
    ("2 * 3 = 6. 2 * 4 = 8.", 0, 5, "5 * 3 = 15. 2 * 4 = 8."),
    ("3 + 4 = 7. 5 + 2 = 7. 7 * 2 = 14", 2, 9, "3 + 4 = 9. 5 + 2 = 7. 7 * 2 = 14"),
]


class Chosen(random.Random):
    """A generator that chooses one number and one value."""

    def __init__(self, place, value):
        super().__init__(0)
        self.place, self.value = place, value

    def choice(self, options):
        return options[self.place]

    def randint(self, low, high):
        return self.value


@pytest.mark.parametrize(("text", "place", "value", "expected"), WORKED)
def test_every_number_that_a_change_makes_wrong_changes_too(text, place, value, expected):
    found = changed_numbers(text, Chosen(place, value))
    made = text
    for start, end, new in reversed(found):
        assert text[start:end] != new
        made = made[:start] + new + made[end:]
    assert made == expected


@pytest.mark.parametrize("text", ["f(x) = 5 and then 7", "2x = 10, so 4 and 5", "speed = 12 / 4"])
def test_before_an_equals_sign_that_cannot_be_read_no_number_is_drawn(text):
    behind = text.rindex("=") + 1
    for seed in range(20):
        for start, _, _ in changed_numbers(text, random.Random(seed)):
            assert start >= behind


def test_an_item_of_a_list_is_no_number():
    assert changed_numbers("1. one\n2) two", random.Random(0)) == []
    message, counts = noisy_text("numbers", "1. one\n2) two", others=[])
    assert message["noise"] == []
    assert counts["could_not"] == {"no number": 1}


def test_rates_are_shares_of_rows_and_one_kind_moves_no_other():
    clean = rows_of(f"{text} Row {n} ends." for n in range(60) for text in TEXTS[:3])
    few, counts = planted(clean, {"typos": 0.3})
    assert 0.2 < counts["typos"]["rows"] / len(clean) < 0.4
    both, _ = planted(clean, {"typos": 0.3, "debris": 0.5})
    for one, two in zip(few, both, strict=True):
        assert bool(one.messages[-1]["noise"]) == any(kind == "typos" for _, _, kind in two.messages[-1]["noise"])
    assert planted(clean, {"typos": 0.3})[0] == few
    assert planted(clean, {"typos": {"rate": 0.3, "seed": 0}})[0] == few
    assert planted(clean, {"typos": {"rate": 0.3, "seed": 1}})[0] != few
    assert planted(clean, {"typos": 0.3, "seed": 1})[0] == planted(clean, {"typos": {"rate": 0.3, "seed": 1}})[0]
    assert not any(r.messages[-1]["noise"] for r in planted(clean, {"typos": 0.0})[0])


def test_only_turns_that_are_trained_on_get_noise():
    turns = (
        {"role": "user", "content": "a question with words"},
        {"role": "assistant", "content": "an answer that is not learnt", "train": False},
        {"role": "assistant", "content": "an answer that is learnt"},
    )
    noisy, _ = planted([Row("x", turns, "", "f:1")], ALL)
    assert noisy[0].messages[:2] == turns[:2]
    assert noisy[0].messages[2]["noise"]


def test_what_teaches_moves_along_and_always_clean_is_not_touched():
    text = "The answer here is seven. More words follow in this sentence."
    start = text.index("seven")
    for seed in range(30):
        spans = {"teaches": [[start, start + 5]], "always_clean": [[0, 10]]}
        noisy, _ = planted([row(text, **spans)], {**ALL, "other_response": 0, "cut": 0, "seed": seed})
        message = noisy[0].messages[-1]
        (clean_start, clean_end), *_ = message["always_clean"]
        assert message["content"][clean_start:clean_end] == "The answer"
        assert "".join(message["content"][s:e] for s, e in message["teaches"]) in ("seven", "")
        for s, e in message["teaches"]:
            assert not any(s < end and start < e for start, end, _ in message["noise"])
        assert unplanted(noisy[0]).messages[-1] == row(text, **spans).messages[-1]


def test_rows_without_text_and_labelled_rows():
    known = Row("x", (), "", "f:1", tokens=((1, 2), (False, True)))
    noisy, counts = planted([known, row("An answer of words.", "y")], {"debris": 1.0})
    assert noisy[0] == known
    assert counts["debris"]["could_not"] == {"the row is tokenised already": 1}
    with pytest.raises(DataError, match="f:1: the row carries labels of noise already"):
        planted([row("An answer.", noise=[[0, 2, "k"]])], {"debris": 1.0})


@pytest.mark.parametrize(
    ("noise", "reason"),
    [({"typo": 0.1}, "unknown kind 'typo'; known: other_response"), ({"typos": 1.5}, "the rate of typos is 1.5")],
)
def test_an_unknown_kind_or_rate_is_an_error(noise, reason):
    with pytest.raises(DataError, match=reason):
        planted([row("An answer.")], noise)


def test_real_rows_carry_every_kind_and_tokenise(shared_data):
    from sstoken.data import read_rows

    clean, _ = read_rows([str(shared_data / "instruct")], on_bad_row="stop", limit=600, shuffle_seed=0)
    noisy, counts = planted(clean, dict.fromkeys(KINDS, 0.1))
    for before, after in zip(clean, noisy, strict=True):
        check_labels(before, after)
    assert all(count["rows"] > 5 for count in counts.values()), counts
    data, bad = tokenize(noisy, byte_tokenizer(pad_token="</s>"), template="tulu", max_length=10**6, on_bad_row="drop")
    assert set(data.kinds) == set(KINDS)
    of_clean, bad_clean = tokenize(
        clean, byte_tokenizer(pad_token="</s>"), template="tulu", max_length=10**6, on_bad_row="drop"
    )
    assert data.ids == of_clean.ids
    assert len(bad) == len(bad_clean)
