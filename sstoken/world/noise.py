"""Planted noise: an instruction response as pieces, each clean or of a known kind."""

from __future__ import annotations

import random
from dataclasses import dataclass

from sstoken.world.facts import CLASSES, COLOURS, FOODS, JOBS, PETS, TREASURES
from sstoken.world.skills import Item

DEFAULT_NOISE = {"wrong_answer": 0.2, "gibberish": 0.08, "boilerplate": 0.2, "other_prompt": 0.05, "repetition": 0.08}
"""Share of rows that carry each kind."""

BOILERPLATE = (
    "thank you for the good question.",
    "as a model I am happy to help.",
    "I hope that this will help you.",
    "please note that I may be wrong.",
)
GIBBERISH = sorted([*JOBS, *PETS, *FOODS, *TREASURES, *COLOURS, *" ".join(CLASSES.values()).split()])


@dataclass(frozen=True)
class Piece:
    """Text of a response without outer white space; kind of noise, or None where it is clean.

    teaches: clean, and the answer, which the prompt does not give away.
    """

    text: str
    kind: str | None = None
    teaches: bool = False


def rates_of(noise: dict[str, float] | None = None, factor: float = 1.0) -> dict[str, float]:
    """The rates of every kind, times ``factor``; those not named are 0.

    Args:
        noise: share of rows by kind. None: ``DEFAULT_NOISE``.

    Raises:
        ValueError: an unknown kind, a negative factor, a rate outside [0, 1], or rates of wrong_answer and other_prompt
            that exceed 1 together (a response that answers another prompt has no answer of its own to get wrong).
    """
    noise = DEFAULT_NOISE if noise is None else noise
    if unknown := sorted(set(noise) - set(DEFAULT_NOISE)):
        raise ValueError(f"noise: unknown kind {unknown[0]!r}; known: {', '.join(DEFAULT_NOISE)}")
    if not factor >= 0:
        raise ValueError(f"noise_factor is {factor}; it must not be negative")
    full = dict.fromkeys(DEFAULT_NOISE, 0.0) | {kind: rate * factor for kind, rate in noise.items()}
    for kind, rate in full.items():
        if not 0 <= rate <= 1:
            raise ValueError(f"noise: the rate of {kind} is {rate:g}; it is a share of rows, in [0, 1]")
    if full["wrong_answer"] + full["other_prompt"] > 1:
        raise ValueError(
            "noise: wrong_answer and other_prompt exclude each other: their rates must not exceed 1 together"
        )
    return full


def clean_response(item: Item) -> list[Piece]:
    return [Piece(text, teaches=filled) for text, filled in item.response(item.answer)]


def noisy_response(item: Item, other: Item, rates: dict[str, float], draw: random.Random) -> list[Piece]:
    """Plant each kind with its rate.

    item: what is asked. other: what ``other_prompt`` answers instead. Kinds may meet in one response, but for
    ``wrong_answer`` and ``other_prompt``.
    """
    # a fixed number of draws a kind, so that one kind's rate does not move the others' places
    hit = {kind: draw.random() for kind in DEFAULT_NOISE}
    seed = draw.random()
    detail = {kind: random.Random(f"{kind} {seed}") for kind in DEFAULT_NOISE}
    if hit["other_prompt"] < rates["other_prompt"]:
        stray = [text for text, _ in other.response(other.answer) if text != other.label]
        pieces = [Piece(item.label), *(Piece(text, "other_prompt") for text in stray)]
    elif hit["wrong_answer"] * (1 - rates["other_prompt"]) < rates["wrong_answer"]:
        wrong = item.wrong_answer(detail["wrong_answer"])
        pieces = [Piece(text, "wrong_answer" if filled else None) for text, filled in item.response(wrong)]
    else:
        pieces = clean_response(item)
    if hit["repetition"] < rates["repetition"]:
        said, _, _ = assemble([piece for piece in pieces if piece.text != item.label])
        pieces += [Piece(said, "repetition")] * detail["repetition"].choice((1, 2))
    if hit["gibberish"] < rates["gibberish"]:
        words = detail["gibberish"].choices(GIBBERISH, k=detail["gibberish"].randint(4, 8))
        place = detail["gibberish"].choice((1, len(pieces)))
        pieces.insert(place, Piece(" ".join(words) + ".", "gibberish"))
    if hit["boilerplate"] < rates["boilerplate"]:
        phrase = Piece(detail["boilerplate"].choice(BOILERPLATE), "boilerplate")
        pieces.insert(1, phrase)
    return pieces


def assemble(pieces: list[Piece]) -> tuple[str, list[list], list[list]]:
    """(content, noise spans ``[start, end, kind]``, spans ``[start, end]`` that teach), in characters of the content.

    Neighbours of one kind of noise share a span. A span starts and ends with a word, never with the space between: a
    token of a word and the space before it then belongs to the word's side.
    """
    content, spans, teaches = "", [], []
    for piece in pieces:
        content += "" if not content or piece.text[0] in ".," else " "
        start = len(content)
        content += piece.text
        if piece.kind and spans and spans[-1][2] == piece.kind and spans[-1][1] + 1 >= start:
            spans[-1][1] = len(content)
        elif piece.kind:
            spans.append([start, len(content), piece.kind])
        elif piece.teaches:
            teaches.append([start, len(content)])
    return content, spans, teaches
