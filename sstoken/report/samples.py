"""Real samples with each response token shaded by its score, kept or dropped, a line a method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from tokenizers import Tokenizer

from sstoken.report.results import Results
from sstoken.report.selection_files import Selection, selections_of

SAMPLES, LONG_SAMPLES = 6, 2
LONGEST_PROMPT = 400  # characters; a longer prompt shows its end
LENGTHS, LONGEST = (8, 70), 300  # response tokens of a sample that is shown, and of a long one


@dataclass(frozen=True)
class Line:
    """One method on one sample. rank: in [0, 1] within the sample, 1 = highest score, T. keep: bool, T."""

    method: str
    rank: np.ndarray
    keep: np.ndarray


@dataclass(frozen=True)
class ShadedSample:
    """tokens: text of T response tokens. noise: kind of each, "" where clean; empty where the data does not say."""

    name: str
    prompt: str
    tokens: list[str]
    noise: list[str]
    lines: list[Line]


def shaded_samples(results: Results, model: str) -> list[ShadedSample]:
    """A few samples spread over the data set, one with each kind of noise where kinds are known, and long ones at the end.

    First seed.  Methods that keep every token, or train on other data, have no line. Scores are ranked within the sample,
    since methods score in units of their own.
    """
    vocabulary = results.root / "models" / model / "tokenizer.json"
    found = selections_of(results.root, model, results.facts.contenders, results.facts.seeds[0])
    if found is None or not vocabulary.exists():
        return []
    data, selections = found
    tokenizer = Tokenizer.from_file(str(vocabulary))
    return [_sample(data, index, selections, tokenizer) for index in _choose(data)]


def _choose(data) -> list[int]:
    """A fitting sample of each kind, then evenly spaced ones, then the longest that can be shown."""
    lengths = np.diff(data.response_offset.numpy())
    fits = [i for i in range(len(data)) if LENGTHS[0] <= lengths[i] <= LENGTHS[1]] or list(range(len(data)))
    chosen: list[int] = []
    if data.truth is not None:
        later = [*fits[len(fits) // 2 :], *fits[: len(fits) // 2]]  # by then scores differ from those of the start
        for code in range(1, len(data.kinds) + 1):
            place = next((i for i in later if i not in chosen and bool((_truth(data, i) == code).any())), None)
            chosen += [place] if place is not None else []
    rest = [i for i in fits if i not in chosen]
    wanted = max(min(SAMPLES - len(chosen), len(rest)), 0)
    chosen += [rest[k * len(rest) // wanted] for k in range(wanted)]
    longest = sorted(
        (i for i in range(len(data)) if i not in chosen and LENGTHS[1] < lengths[i] <= LONGEST),
        key=lambda i: -lengths[i],
    )
    return [*chosen, *longest[:LONG_SAMPLES]]


def _truth(data, index: int):
    place = slice(int(data.offset[index]), int(data.offset[index + 1]))
    return data.truth[place][data.response_mask[place]]


def token_texts(ids: list[int], tokenizer) -> list[str]:
    """What each token adds to the text before it; together they are the whole text.

    The bytes of one character may be spread over several tokens: it is the last one's, the others are empty.

    Args:
        tokenizer: of ``tokenizers`` or ``transformers``.
    """
    texts, done = [], 0
    for end in range(1, len(ids) + 1):
        seen = tokenizer.decode(ids[:end], skip_special_tokens=False)
        whole = seen if end == len(ids) else seen.rstrip("\N{REPLACEMENT CHARACTER}")
        texts.append(whole[done:])
        done = max(done, len(whole))
    return texts


def _sample(data, index: int, found: dict[str, Selection], tokenizer: Tokenizer) -> ShadedSample:
    sample = data.sample(index)
    ids, mask = sample["input_ids"].tolist(), sample["response_mask"].numpy()
    texts = token_texts(ids, tokenizer)
    first = int(mask.argmax())
    prompt = "".join(texts[:first]).strip()
    start, stop = data.response_offset[index : index + 2].tolist()
    kinds = ["", *data.kinds]
    lines = []
    for method, chosen in found.items():
        score = chosen.score[start:stop]
        rank = (rankdata(score) - 1) / max(len(score) - 1, 1)
        lines.append(Line(method, rank, chosen.keep[start:stop]))
    return ShadedSample(
        name=data.ids[index],
        prompt=prompt if len(prompt) <= LONGEST_PROMPT else f"… {prompt[-LONGEST_PROMPT:]}",
        tokens=[text for text, response in zip(texts, mask, strict=True) if response],
        noise=[kinds[code] for code in _truth(data, index).tolist()] if data.truth is not None else [],
        lines=lines,
    )
