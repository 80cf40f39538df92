"""Kinds of noise that need no knowledge of the text: each proposes edits of one clean response.

A kind is a function of the response, the corpus, a generator and the row's id.  It returns edits that do not touch each
other, or raises ``Cannot``.  What is put in starts with the space before its first word, so that a token of a word and the
space before it belongs to the word's side.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

from sstoken.data.arithmetic import changed_numbers

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
SENTENCE_END = re.compile(r"[.!?…؟।]+[\"'”’)\]]*(?=\s)|[。！？]+[」』”）]*|\n+")
LEAKS = (
    "<|im_end|", "im_start|>assistant", "### Response:", "### Instruction:", "[INST", "/INST]", "</assistant>",
    "<<SYS>>", "Human:", "Assistant:", "\n1.\n2.", "\n-\n-", "\n1. First,\n2.",
)  # fmt: skip
"""Template tokens as plain text, none a special token of a known tokenizer (rows that hold one are refused), and lists that
someone forgot to finish."""
ALPHABETS = {
    "CYRILLIC": "абвгдежзиклмнопрстуфхцчшщыэюя",
    "GREEK": "αβγδεζηθικλμνξοπρστυφχψω",
    "HEBREW": "אבגדהוזחטיכלמנסעפצקרשת",
    "HANGUL": "가나다라마바사아자차카타파하",
}


class Cannot(Exception):
    """This response cannot carry this kind; the message is the reason."""


class Edit(NamedTuple):
    """clean[start:end] becomes text; ends: the end of the turn is noise too."""

    start: int
    end: int
    text: str
    ends: bool = False
    kind: str = ""


class Corpus:
    """What the rows of a data set lend to each other. texts: responses by row; phrases: boilerplate."""

    def __init__(self, texts: list[list[str]], phrases: tuple[str, ...]):
        self.phrases = phrases
        self.responses = [part for row in texts for part in row]

    @cached_property
    def words(self) -> list[str]:
        return [word for text in self.responses for word in WORD.findall(text)]

    @cached_property
    def _lower(self) -> set[str]:
        return {word for word in self.words if word == word.lower()}

    @cached_property
    def names(self) -> list[str]:
        return sorted({text[start:end] for text in self.responses for start, end in self.names_in(text)})

    def names_in(self, text: str) -> Iterator[tuple[int, int]]:
        """Runs of capitalised words inside a sentence, none of which the corpus ever writes small."""
        run: list[int] = []
        for found in WORD.finditer(text):
            before = text[: found.start()].rstrip()
            inside = (
                bool(before) and before[-1] not in ".!?:…\"“”'*#>-|" and "\n" not in text[len(before) : found.start()]
            )
            word = found[0]
            beside = text[found.start() - 1 : found.start()] + text[found.end() : found.end() + 1]
            name = len(word) > 1 and word[0].isupper() and word[1:].islower() and word.lower() not in self._lower
            name = name and not re.search(r"\w", beside)
            if run and name and text[run[1] : found.start()] == " ":
                run[1] = found.end()
                continue
            if run:
                yield run[0], run[1]
            run = [found.start(), found.end()] if name and inside else []
        if run:
            yield run[0], run[1]


def other_response(text: str, corpus: Corpus, draw: random.Random, row: str) -> list[Edit]:
    """Another row's response in this one's place."""
    start, end = _core(text)
    own = text[start:end]
    for _ in range(20):
        other = draw.choice(corpus.responses)
        if other != own:
            return [Edit(start, end, other)]
    raise Cannot("no other response in the data set")


def cut(text: str, corpus: Corpus, draw: random.Random, row: str) -> list[Edit]:
    """The response stops inside a word in the middle of a sentence; the end of the turn that follows is noise too."""
    _, end = _core(text)
    places = [
        found
        for found in WORD.finditer(text)
        if len(found[0]) >= 3 and found.end() < end and text[: found.start()].strip()
        and text[: found.start()].rstrip()[-1] not in ".!?…。！？"
    ]  # fmt: skip
    if not places:
        raise Cannot("no word inside a sentence to stop in")
    found = draw.choice(places)
    stop = found.start() + draw.randint(1, len(found[0]) - 1)
    return [Edit(found.start(), len(text), text[found.start() : stop], ends=True)]


def shuffled(text: str, corpus: Corpus, draw: random.Random, row: str) -> list[Edit]:
    """The words of a sentence in another order; in a script without spaces, the letters of a run."""
    for separated, pattern, least in ((True, r"\S+", 4), (False, r"[^\W\d_]", 6)):
        sentences = [
            (start, end)
            for start, end in _sentences(text)
            if len(set(re.findall(pattern, text[start:end]))) >= least and (separated or not re.search(r"\s", text[start:end]))
        ]  # fmt: skip
        if sentences:
            start, end = draw.choice(sentences)
            places = [(start + p.start(), start + p.end()) for p in re.finditer(pattern, text[start:end])]
            parts = [text[s:e] for s, e in places]
            mixed = list(parts)
            while mixed == parts:
                draw.shuffle(mixed)
            return list(_moved_runs(text, places, mixed))
    raise Cannot("no sentence of four different words")


def numbers(text: str, corpus: Corpus, draw: random.Random, row: str) -> list[Edit]:
    """A number changed, and in worked arithmetic every number that follows from it."""
    found = changed_numbers(text, draw)
    if not found:
        raise Cannot("no number")
    return [Edit(*change) for change in found]


def names(text: str, corpus: Corpus, draw: random.Random, row: str) -> list[Edit]:
    """A name swapped with another of the data set, wherever the response says it."""
    places = list(corpus.names_in(text))
    if not places:
        raise Cannot("no name")
    start, end = draw.choice(places)
    own = text[start:end]
    others = [name for name in corpus.names if name != own]
    if not others:
        raise Cannot("no other name in the data set")
    other = draw.choice(others)
    return [Edit(m.start(), m.end(), other) for m in re.finditer(rf"(?<!\w){re.escape(own)}(?!\w)", text)]


def script(text: str, corpus: Corpus, draw: random.Random, row: str) -> list[Edit]:
    """A sentence in letters of another script."""
    letters = Counter(unicodedata.name(c, "").split(" ")[0] for c in text if c.isalpha())
    sentences = [(s, e) for s, e in _sentences(text) if any(map(str.isalpha, text[s:e]))]
    if not sentences:
        raise Cannot("no letters")
    start, end = draw.choice(sentences)
    others = [alphabet for name, alphabet in ALPHABETS.items() if not letters[name]]
    if not others:
        raise Cannot("every script that could be taken is there already")
    alphabet = draw.choice(others)
    places = [n for n in range(start, end) if text[n].isalpha()]
    first, last = places[0], places[-1] + 1
    while last < len(text) and unicodedata.combining(text[last]):
        last += 1
    made = []
    for c in text[first:last]:
        if c.isalpha():
            other = alphabet[ord(c.lower()[0]) % len(alphabet)]
            made.append(other.upper() if c.isupper() else other)
        elif not unicodedata.combining(c):
            made.append(c)
    return [Edit(first, last, "".join(made))]


def typos(text: str, corpus: Corpus, draw: random.Random, row: str) -> list[Edit]:
    """One to three words with a letter dropped, doubled or changed with its neighbour."""
    words = [found for found in WORD.finditer(text) if len(found[0]) >= 4 and found[0].isalpha()]
    if not words:
        raise Cannot("no word of four letters")
    edits = []
    for found in draw.sample(words, min(len(words), draw.randint(1, 3))):
        word = found[0]
        place = draw.randint(1, len(word) - 2)
        swapped = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
        wrong = [word[:place] + word[place + 1 :], word[:place] + word[place] + word[place:]]
        wrong += [swapped] if swapped != word else []
        edits.append(Edit(found.start(), found.end(), draw.choice(wrong)))
    return edits


def repetition(text: str, corpus: Corpus, draw: random.Random, row: str) -> list[Edit]:
    """A sentence said once or twice more."""
    start, end = draw.choice(list(_sentences(text)))
    return [Edit(end, end, (_gap(text, end) + text[start:end]) * draw.choice((1, 1, 2)))]


def random_words(text: str, corpus: Corpus, draw: random.Random, row: str) -> list[Edit]:
    """Four to eight words of the data set behind a sentence."""
    if len(set(corpus.words)) < 4:
        raise Cannot("fewer than four words in the data set")
    place = _behind_a_sentence(text, draw)
    return [Edit(place, place, f"{_gap(text, place)}{' '.join(draw.choices(corpus.words, k=draw.randint(4, 8)))}.")]


def boilerplate(text: str, corpus: Corpus, draw: random.Random, row: str) -> list[Edit]:
    """A phrase of a list behind a sentence."""
    place = _behind_a_sentence(text, draw)
    return [Edit(place, place, _gap(text, place) + draw.choice(corpus.phrases))]


def debris(text: str, corpus: Corpus, draw: random.Random, row: str) -> list[Edit]:
    """A leaked template token as plain text, or an unfinished list, behind a sentence."""
    place = _behind_a_sentence(text, draw)
    leak = draw.choice(LEAKS)
    return [Edit(place, place, leak if leak.startswith("\n") else _gap(text, place) + leak)]


KINDS: dict[str, Callable[[str, Corpus, random.Random, str], list[Edit]]] = {
    kind.__name__: kind
    for kind in (
        other_response, cut, shuffled, numbers, names, script, typos, repetition, random_words, boilerplate, debris,
    )
}  # fmt: skip
"""Name -> kind; the ones that replace most come first and take their place."""


def _moved_runs(text: str, places: list[tuple[int, int]], mixed: list[str]) -> Iterator[Edit]:
    """One edit for each run of parts that have changed; a part that kept its place is not touched."""
    run: list[int] = []
    for number, (start, end) in enumerate([*places, (0, 0)]):
        if number < len(mixed) and mixed[number] != text[start:end]:
            run.append(number)
            continue
        if run:
            begin, stop = places[run[0]][0], places[run[-1]][1]
            gaps = [text[places[a][1] : places[a + 1][0]] for a in run[:-1]] + [""]
            yield Edit(begin, stop, "".join(mixed[n] + gap for n, gap in zip(run, gaps, strict=True)))
            run = []


def _core(text: str) -> tuple[int, int]:
    return len(text) - len(text.lstrip()), len(text.rstrip())


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each sentence, without outer white space; at least one in a text that is not blank."""
    begin, stop = _core(text)
    marks = [found.end() for found in SENTENCE_END.finditer(text) if begin < found.end() < stop]
    for start, end in zip([begin, *marks], [*marks, stop], strict=True):
        lead, tail = _core(text[start:end])
        if lead < tail:
            yield start + lead, start + tail


def _behind_a_sentence(text: str, draw: random.Random) -> int:
    return draw.choice([end for _, end in _sentences(text)])


def _gap(text: str, place: int) -> str:
    """What parts a new sentence from the one that ends here: nothing in a script that writes without spaces."""
    return "" if text[place - 1] in "。！？」』）" else " "
