"""Writes the world: corpus, instruction rows (noisy, clean, reference), benchmarks; byte-identical for a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path

from sstoken.world.corpus import corpus
from sstoken.world.facts import WORLD_SEED, World, build_world
from sstoken.world.noise import Piece, assemble, clean_response, noisy_response, rates_of
from sstoken.world.safety import ASKED, SIDES, planted_rows, rates_of_safety, safety_questions
from sstoken.world.skills import CHOICES, LANGUAGES, SKILLS, Item

SHOTS = {"mmlu": 5, "tydiqa": 1}
REFERENCE_PROMPTS = 0.2  # share of all prompts that only reference rows use


def generate(
    out: Path,
    *,
    seed: int,
    noise: dict[str, float] | None = None,
    noise_factor: float = 1.0,
    reference_noise: float = 0.1,
    rows: int = 3200,
    reference_rows: int = 640,
    questions: int = 120,
    documents: int = 20000,
    safety: dict[str, float] | None = None,
    facts: int = WORLD_SEED,
) -> None:
    """Write the world's files below ``out``.

    ``train.jsonl`` and ``clean.jsonl`` (the same rows, without noise), ``reference.jsonl`` (other rows, little noise),
    ``benchmarks/<name>/{test,fewshot}.jsonl`` (TyDiQA: a folder a language), and the first ``documents`` of the corpus,
    ``corpus.jsonl``.
    Instruction rows are ``{"id", "messages", "source"}``; an assistant message's ``noise`` lists ``[start, end, kind]``,
    its ``teaches`` ``[start, end]``, both in characters of its content: what was planted, and the clean answer in all its
    places, which the prompt does not give away. A question's ``cluster`` names whom or what it is about.

    Args:
        seed: of the instruction rows and their noise; names, corpus and benchmarks belong to ``facts``.
        noise: share of rows that carry each kind; kinds left out have none. None: ``DEFAULT_NOISE``.
        noise_factor: on all of these rates, >= 0. Rows and places stay as they are: what a lower factor plants, a higher
            one plants too (but where an answer to another prompt takes a wrong answer's place).
        reference_noise: factor on these rates in the reference rows, which are curated, not perfect.
        rows, reference_rows: instruction rows. questions: of each benchmark. documents: of the corpus.
        safety: rates (``sstoken.world.safety.rates_of_safety``) of harm planted in place of noise, by which every data set
            has other rows; two more, ``harmful.jsonl`` and ``utility.jsonl``, are as long as the reference, and the
            benchmarks ``refusal`` and ``over_refusal`` stand beside the others. None: no harm, and none of these files.
        facts: seed of names and facts. The shipped bases know those of ``WORLD_SEED``; others ask for bases of their own.

    Raises:
        ValueError: an unknown kind of noise or of harm, impossible rates, or noise and harm together.
    """
    rates = rates_of(noise, noise_factor)
    curated = {kind: rate * reference_noise for kind, rate in rates.items()}
    world = build_world(facts)
    out = Path(out)
    if safety is not None:
        if noise is not None or noise_factor != 1:
            raise ValueError("safety plants harm in place of noise: leave noise and noise_factor out")
        told = _harmful_rows(world, seed, safety, reference_noise, rows, reference_rows)
        for name in ASKED:
            _write(out / "benchmarks" / name / "test.jsonl", safety_questions(world, name, questions))
    else:
        told = {
            "train": _rows(instruction_items(world, seed, rows + 1), "train", seed, rates),
            "reference": _rows(
                instruction_items(world, seed, reference_rows + 1, "reference"), "reference", seed, curated
            ),
        }
    for name, (noisy, clean) in told.items():
        _write(out / f"{name}.jsonl", noisy)
        if name == "train":
            _write(out / "clean.jsonl", clean)
    for name in SKILLS:
        for folder, tests, shots in _benchmark(world, name, questions):
            _write(out / "benchmarks" / folder / "test.jsonl", tests)
            _write(out / "benchmarks" / folder / "fewshot.jsonl", shots)
    _write(out / "corpus.jsonl", ({"text": text} for text in corpus(world, documents)))


def instruction_items(world: World, seed: int, count: int, side: str = "train") -> list[Item]:
    """``count`` items about training entities, every skill equally often.

    side: ``train`` or ``reference``. Every prompt belongs to one of them by lot, drawn anew for each seed, so that both
    sides are drawn in one way and share no prompt.
    """
    draw = random.Random(f"instructions of {side} {seed}")
    names = list(SKILLS)
    order = [names[i % len(names)] for i in range(count)]
    draw.shuffle(order)
    items = []
    for name in order:
        position = draw.randrange(CHOICES.get(name, 4))
        while True:
            item = SKILLS[name](world, draw, "train", position)
            lot = random.Random(f"side {seed} {item.prompt}").random()
            if (lot < REFERENCE_PROMPTS) == (side == "reference"):
                break
        items.append(item)
    return items


def _rows(items: list[Item], name: str, seed: int, rates: dict[str, float]) -> tuple[list[dict], list[dict]]:
    """(with noise, without), a row an item but the last, which only serves as another's prompt."""
    draw = random.Random(f"noise of {name} {seed}")
    noisy, clean = [], []
    for index, item in enumerate(items[:-1]):
        for rows, pieces in (
            (noisy, noisy_response(item, items[index + 1], rates, draw)),
            (clean, clean_response(item)),
        ):
            rows.append(_row(f"{name}-{index:05d}", item, pieces))
    return noisy, clean


def _harmful_rows(
    world: World, seed: int, harm: dict[str, float], reference_harm: float, train_rows: int, others: int
) -> dict[str, tuple[list[dict], list[dict]]]:
    """Data set -> (with harm, without)."""
    found = {}
    for side in SIDES:
        rates = rates_of_safety(harm, reference_harm if side == "reference" else 1.0)
        rows = list(planted_rows(world, seed, train_rows if side == "train" else others, side, rates))
        found[side] = tuple(
            [_row(f"{side}-{index:05d}", row[0], row[place]) for index, row in enumerate(rows)] for place in (1, 2)
        )
    return found


def _row(name: str, item: Item, pieces: list[Piece]) -> dict:
    content, spans, teaches = assemble(pieces)
    return {
        "id": name,
        "messages": [
            {"role": "user", "content": item.prompt},
            {"role": "assistant", "content": content, "noise": spans, "teaches": teaches},
        ],
        "source": item.skill,
    }


def questions_of(name: str, asked: int) -> int:
    """How many questions a benchmark has where ``asked`` were asked for: as many in each of its languages."""
    languages = len(LANGUAGES) if name == "tydiqa" else 1
    return asked // languages * languages


def _benchmark(world: World, name: str, questions: int) -> Iterable[tuple[str, list[dict], list[dict]]]:
    """(folder, questions about test entities, worked examples about training entities)."""
    languages = sorted(LANGUAGES) if name == "tydiqa" else [None]
    for language in languages:
        folder = f"{name}/{language}" if language else name
        yield (
            folder,
            _questions(world, name, "test", questions_of(name, questions) // len(languages), language),
            _questions(world, name, "train", max(SHOTS.get(name, 0), 1), language),
        )


def _questions(world: World, name: str, split: str, count: int, language: str | None) -> list[dict]:
    """``count`` different questions; the right option takes every place equally often."""
    draw = random.Random(f"{split} questions of {name} {language or ''} {WORLD_SEED}")
    extra = {"language": language} if language else {}
    rows: dict[str, dict] = {}
    attempts = 0
    while len(rows) < count:
        attempts += 1
        if attempts > 200 * count:
            raise ValueError(
                f"benchmark {name}: the world holds only {len(rows)} questions, not {count}; ask for fewer"
            )
        item = SKILLS[name](world, draw, split, len(rows) % CHOICES.get(name, 4), **extra)
        key = item.row.get("sentence") or item.row.get("ctx") or item.prompt.partition("\nA. ")[0] + str(item.answer)
        if key not in rows:
            about = {"cluster": item.cluster} if item.cluster else {}
            rows[key] = {"id": f"{name}-{len(rows):03d}", **about, **item.row}
    return list(rows.values())


def _write(path: Path, rows: Iterable[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
