"""Real samples with each response token shaded by its score, kept or dropped, a line a method."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors import safe_open
from scipy.stats import rankdata
from tokenizers import Tokenizer

from sstoken.report.results import Results

SAMPLES = 6
LONGEST_PROMPT = 400  # characters; a longer prompt shows its end
LENGTHS = (8, 70)  # response tokens of a sample that is shown


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
    """A few samples of the second half of training, one with each kind of noise where kinds are known.

    Methods that keep every token, or train on other data, have no line. Scores are ranked within the sample, since
    methods score in units of their own.

    Raises:
        ValueError: a run's selection does not belong to the tokens that are there.
    """
    from sstoken.data import TokenData  # imports torch: figures without samples need not wait for it

    path = results.root / "tokens" / model / "train.safetensors"
    vocabulary = results.root / "models" / model / "tokenizer.json"
    if not (path.exists() and vocabulary.exists()):
        return []
    data = TokenData.load(path)
    seed = results.facts.seeds[0]
    found = {m: _selection(results.root / "runs" / model / m / f"seed{seed}", data) for m in results.facts.contenders}
    found = {m: s for m, s in found.items() if s is not None and not s[1].all()}
    if not found:
        return []
    tokenizer = Tokenizer.from_file(str(vocabulary))
    return [_sample(data, index, found, tokenizer) for index in _choose(data)]


def _selection(run: Path, data) -> tuple[np.ndarray, np.ndarray] | None:
    """(score_R, keep_R) of a run, parts of a chain end to end; None where the run is not there or used other data."""
    if not (run / "run.json").exists():
        return None
    parts = sorted(run.glob("part*"), key=lambda p: int(p.name.removeprefix("part")))
    scores, keeps = [], []
    for number, folder in enumerate([*parts, run]):
        start, stop = (len(data) * (number + step) // (len(parts) + 1) for step in (0, 1))
        with safe_open(folder / "selection.safetensors", framework="np") as file:
            expected = (data.slice(start, stop) if parts else data).sha256
            if (file.metadata() or {}).get("tokens_sha256") != expected:
                return None
            scores.append(file.get_tensor("score"))
            keeps.append(file.get_tensor("keep"))
    return np.concatenate(scores), np.concatenate(keeps)


def _choose(data) -> list[int]:
    """The first fitting sample of each kind after the middle of training, then evenly spaced ones."""
    middle = len(data) // 2
    lengths = np.diff(data.response_offset.numpy())
    fits = [i for i in range(middle, len(data)) if LENGTHS[0] <= lengths[i] <= LENGTHS[1]] or list(range(len(data)))
    chosen: list[int] = []
    if data.truth is not None:
        for code in range(1, len(data.kinds) + 1):
            place = next((i for i in fits if i not in chosen and bool((_truth(data, i) == code).any())), None)
            chosen += [place] if place is not None else []
    rest = [i for i in fits if i not in chosen]
    wanted = min(SAMPLES - len(chosen), len(rest))
    return [*chosen, *(rest[k * len(rest) // wanted] for k in range(wanted))]


def _truth(data, index: int):
    place = slice(int(data.offset[index]), int(data.offset[index + 1]))
    return data.truth[place][data.response_mask[place]]


def _sample(data, index: int, found: dict, tokenizer: Tokenizer) -> ShadedSample:
    sample = data.sample(index)
    ids, mask = sample["input_ids"].tolist(), sample["response_mask"].numpy()
    # a token's text is what it adds to the text before it: bytes of one character may be spread over several tokens
    seen = [tokenizer.decode(ids[:end], skip_special_tokens=False) for end in range(len(ids) + 1)]
    texts = [after[len(before) :] for before, after in pairwise(seen)]
    first = int(mask.argmax())
    prompt = "".join(texts[:first]).strip()
    start, stop = data.response_offset[index : index + 2].tolist()
    kinds = ["", *data.kinds]
    lines = []
    for method, (score_R, keep_R) in found.items():
        score = score_R[start:stop]
        rank = (rankdata(score) - 1) / max(len(score) - 1, 1)
        lines.append(Line(method, rank, keep_R[start:stop]))
    return ShadedSample(
        name=data.ids[index],
        prompt=prompt if len(prompt) <= LONGEST_PROMPT else f"… {prompt[-LONGEST_PROMPT:]}",
        tokens=[text for text, response in zip(texts, mask, strict=True) if response],
        noise=[kinds[code] for code in _truth(data, index).tolist()] if data.truth is not None else [],
        lines=lines,
    )
