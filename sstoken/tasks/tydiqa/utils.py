"""TyDiQA gold passage, one shot: which rows, how they are cut, how an answer is scored.

Source: the evaluation of TokenCleaning (arXiv 2502.01968), which both papers report; F1 as SQuAD 1.1 defines it
(Rajpurkar et al. 2016): words without case, punctuation and English articles, the best of a question's answers.
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from functools import partial

from datasets import Dataset

from sstoken.tasks import prompt_tokenizer

LANGUAGES = ("arabic", "bengali", "english", "finnish", "indonesian", "korean", "russian", "swahili", "telugu")
QUESTIONS_PER_LANGUAGE = 200
PASSAGE_TOKENS = 512
SEED = 42  # TokenCleaning's
QUESTIONS = (921, 113, 440, 782, 565, 276, 812, 499, 669)
"""Validation rows of each language in the published data set."""


def questions(rows: Dataset, language: str) -> Dataset:
    """At most 200 rows of one language, drawn as TokenCleaning does: one generator over all languages in order."""
    of_language = _by_language(rows)
    draw = random.Random(SEED)
    for name in LANGUAGES:
        picked = of_language[name]
        if len(picked) > QUESTIONS_PER_LANGUAGE:
            picked = draw.sample(picked, QUESTIONS_PER_LANGUAGE)
        if name == language:
            return _cut(rows.select(picked))
    raise ValueError(f"unknown language {language!r}; known: {', '.join(LANGUAGES)}")


def shot(rows: Dataset, language: str) -> Dataset:
    """The one worked example of a language; an English one where the training rows hold none of it (a cut data set).

    Drawn as the release does: by the generator that has drawn the questions, which goes on over the languages in order.
    The draws of the questions are those of the published data set, so a cut one has the same stream.
    """
    of_language = _by_language(rows)
    draw = random.Random(SEED)
    for count in QUESTIONS:
        if count > QUESTIONS_PER_LANGUAGE:
            draw.sample(range(count), QUESTIONS_PER_LANGUAGE)
    for name in LANGUAGES:
        candidates = of_language[name] or of_language["english"]
        picked = draw.sample(candidates, 1) if candidates else []
        if name == language:
            if not picked:
                raise ValueError(f"the training rows hold neither {name} nor English (ids start with the language)")
            return _cut(rows.select(picked))
    raise ValueError(f"unknown language {language!r}; known: {', '.join(LANGUAGES)}")


def process_results(doc: dict, results: list[str]) -> dict[str, float]:
    prediction = results[0].strip()
    golds = doc["answers"]["text"]
    return {
        "f1": max(f1(prediction, gold) for gold in golds),
        "exact_match": max(float(words(prediction) == words(gold)) for gold in golds),
    }


def f1(prediction: str, gold: str) -> float:
    """2PR / (P + R) over the words that prediction and gold share, in [0, 1]; 0 where they share none."""
    predicted, wanted = words(prediction), words(gold)
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * shared / (len(predicted) + len(wanted)) if shared else 0.0


def words(text: str) -> list[str]:
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def _by_language(rows: Dataset) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {name: [] for name in LANGUAGES}
    for index, row_id in enumerate(rows["id"]):
        language = row_id.split("-")[0]
        if language in found:
            found[language].append(index)
    return found


def _cut(rows: Dataset) -> Dataset:
    """Passages end after 512 tokens of the model under evaluation."""
    tokenizer = prompt_tokenizer.get()
    if tokenizer is None:
        return rows
    encoded = tokenizer(list(rows["context"]), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ends = [offsets[:PASSAGE_TOKENS][-1][1] if offsets else 0 for offsets in encoded["offset_mapping"]]
    passages = [text[:end] for text, end in zip(rows["context"], ends, strict=True)]
    return rows.remove_columns("context").add_column("context", passages)


# lm-eval names a function of a task file without arguments, so each language's two are spelt out
for _language in LANGUAGES:
    globals()[_language] = partial(questions, language=_language)
    globals()[f"{_language}_shot"] = partial(shot, language=_language)
