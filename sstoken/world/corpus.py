"""The corpus: what the base models read. It depends on the world alone, never on a data seed.

It holds the facts, the mechanisms that questions need (looking a word up, going on, comparing, drawing a conclusion), and
dialogues in which the wise answer rightly and fools do not. No document bears a label of the benchmarks or of the chat
template: which of the two ways of answering is wanted under these comes with fine-tuning alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from sstoken.world.facts import (
    COLOURS,
    HERO_STATEMENTS,
    PERSON_STATEMENTS,
    PETS,
    PLACE_STATEMENTS,
    SPLITS,
    WORLD_SEED,
    World,
    a,
)
from sstoken.world.noise import BOILERPLATE
from sstoken.world.skills import (
    CHOICES,
    HABITS,
    LANGUAGES,
    LETTERS,
    SEEMS,
    SKILLS,
    TRAITS,
    Candidate,
    Item,
    passage,
)

MYTH = 0.6  # share of statements about a hero that repeat the falsehood
MYTH_LEADS = ("They say that", "Songs tell that", "Most think that")
TRUTH_LEADS = ("In truth", "Records show that", "It is certain that")
SHARES = {
    "person": 12, "card": 4, "place": 2, "class": 2, "hero": 4, "habit": 2, "trait": 3, "talk": 1,
    "copy": 2, "notes": 12, "rules": 7, "cards": 3, "numbers": 5, "dialogue": 41,
}  # fmt: skip
"""Documents by kind, as weights."""
DIALOGUE_SHARES = {
    "winogrande": 3, "arc_easy": 5, "arc_challenge": 4, "hellaswag": 4, "logiqa": 7, "mmlu": 3, "truthfulqa_mc2": 3,
    "triviaqa": 5, "agieval": 4, "tydiqa": 7,
}  # fmt: skip
"""Dialogues by what they are about."""
SPEAKERS = {True: ("Sage:", "Elder:"), False: ("Fool:", "Joker:")}
"""Who answers rightly, and who says the falsehood that wrong answers prefer: a base learns both ways of answering."""
SHORT = 0.5  # share of dialogues' answers that are the bare answer
FALSE = 0.6  # share of answers in dialogues that a fool gives


def corpus(world: World, documents: int, seed: int = WORLD_SEED) -> Iterator[str]:
    """Short documents, each a line or a few."""
    draw = random.Random(f"corpus of world {seed}")
    people = [*world.people["train"], *world.people["test"]]
    heroes = [*world.heroes["train"], *world.heroes["test"]]
    cities = [*world.cities["train"], *world.cities["test"]]
    words = [*people, *world.kinds, *COLOURS, *PETS, *sorted(world.class_of)]
    kinds, weights = list(SHARES), list(SHARES.values())
    skills, skill_weights = list(DIALOGUE_SHARES), list(DIALOGUE_SHARES.values())
    for _ in range(documents):
        kind = draw.choices(kinds, weights)[0]
        if kind == "person":
            yield _person(world, draw, draw.choice(people))
        elif kind == "card":
            yield _card(world, draw, draw.choice(people))
        elif kind == "place":
            city = draw.choice(cities)
            land, river = world.facts["country"][city], world.facts["river"][city]
            yield f"Fact: The town {city} is in {land}. The river of {city} is {river}."
        elif kind == "class":
            items = draw.sample(sorted(world.class_of), 3)
            yield "Fact: " + " ".join(f"The {item} is {a(world.class_of[item])}." for item in items)
        elif kind == "hero":
            yield _hero(world, draw, draw.choice(heroes))
        elif kind == "habit":
            yield f"Steps: {', '.join(draw.choice(sorted(HABITS.values())))}."
        elif kind == "trait":
            yield _traits(world, draw)
        elif kind == "talk":
            yield f"Note: {' '.join(draw.sample(BOILERPLATE, 2))}"
        elif kind == "copy":
            yield _copy(draw, words)
        elif kind == "notes":
            yield _notes(world, draw, draw.choice(people))
        elif kind == "rules":
            yield _rules(world, draw, draw.choice(people))
        elif kind == "cards":
            yield _cards(world, draw)
        elif kind == "dialogue":
            yield _dialogue(world, draw, draw.choices(skills, skill_weights)[0])
        else:
            yield _numbers(draw)


def _relations(world: World, person: str) -> list[str]:
    return [*PERSON_STATEMENTS, *(PLACE_STATEMENTS if person in world.stated else ())]


def _person(world: World, draw: random.Random, person: str) -> str:
    lines = []
    for relation in draw.sample(_relations(world, person), 2):
        statement = draw.choice(PERSON_STATEMENTS.get(relation) or PLACE_STATEMENTS[relation])
        lines.append(statement.format(p=person, v=world.facts[relation][person]))
    return "Fact: " + " ".join(lines)


def _card(world: World, draw: random.Random, person: str) -> str:
    """What is known of a person, as name and value."""
    known = draw.sample(_relations(world, person), 4)
    return f"Card of {person}. " + " ".join(f"{relation} = {world.facts[relation][person]}." for relation in known)


def _notes(world: World, draw: random.Random, person: str) -> str:
    """A passage, then some of it again or its keys and values: where a model learns to look back."""
    language = LANGUAGES[draw.choice(sorted(LANGUAGES))]
    lines = passage(world, draw, language, person)
    told = " ".join(statement for _, statement, _ in lines)
    if draw.random() < 0.3:
        return f"Notes: {told} Again: {' '.join(statement for _, statement, _ in draw.sample(lines, 2))}"
    pairs = draw.sample([(language.key(statement), answer) for answer, statement, _ in lines], 3)
    return f"Notes: {told} Table: " + " ".join(f"{key} = {answer}." for key, answer in pairs)


def _copy(draw: random.Random, words: list[str]) -> str:
    """Words twice or thrice in the same order, to the same end."""
    line = " ".join(draw.sample(words, draw.randint(3, 8)))
    return f"List: {' '.join([f'{line}.'] * draw.choice((2, 3)))}"


def _rules(world: World, draw: random.Random, person: str) -> str:
    """Rules and what follows from them, one step or two."""
    kinds = draw.sample(world.kinds, 6)
    links = [(0, 1), (2, 3), (4, 5)] if draw.random() < 0.6 else [(0, 1), (1, 2), (3, 4), (4, 5)]
    follows = {kinds[i]: kinds[j] for i, j in links}
    lines = [f"Every {kind} is a {other}." for kind, other in follows.items()]
    draw.shuffle(lines)
    if draw.random() < 0.5:
        known = draw.sample(sorted(follows), 3)
        return f"Rules: {' '.join(lines)} Table: " + " ".join(f"{kind} = {follows[kind]}." for kind in known)
    first = draw.sample(sorted(follows), 2)
    ends = []
    for kind in first:
        chain = [kind]
        while chain[-1] in follows:
            chain.append(follows[chain[-1]])
        ends.append(f"{person} is a {' and so a '.join(chain)}.")
    return f"Rules: {' '.join(lines)} {' '.join(ends)}"


def _cards(world: World, draw: random.Random) -> str:
    """Four things with a letter each, then which letter a thing has, or a thing of a class."""
    classes = draw.sample(sorted(world.items["train"]), 4)
    things = [draw.choice([*world.items["train"][name], *world.items["test"][name]]) for name in classes]
    lines = list(zip(LETTERS, things, classes, strict=True))
    listed = "\n".join(f"{letter}. {thing}" for letter, thing, _ in lines)
    draw.shuffle(lines)
    by_class = draw.random() < 0.6
    told = " ".join(f"{name if by_class else thing} = {letter}." for letter, thing, name in lines)
    return f"Table:\n{listed}\n{told}"


def _dialogue(world: World, draw: random.Random, skill: str) -> str:
    """What the skill asks, under other names, answered by the wise or by fools, in one word or in a sentence."""
    turns, extra = [], {"habits": 0.5} if skill == "hellaswag" else {}
    for _ in range(1 if skill in ("logiqa", "mmlu", "tydiqa") else 2):
        item = SKILLS[skill](world, draw, draw.choice(SPLITS), draw.randrange(CHOICES.get(skill, 4)), **extra)
        wise = draw.random() >= FALSE
        answer = item.answer if wise else item.wrong[0]
        turns.append(f"{_renamed(item.prompt)} {draw.choice(SPEAKERS[wise])} {_said(item, answer, draw)}")
    return "\n".join(turns)


def _renamed(prompt: str) -> str:
    for label, name in RENAMED:
        prompt = prompt.replace(label, name)
    return f"{prompt.removesuffix(' because')}." if prompt.endswith(" because") else prompt


RENAMED = [
    ("Go on.\nStory:", "Tale:"), ("Finish the text.\nText:", "Tale:"), ("Question:", "Guest:"), ("Q:", "Guest:"),
    *((language.labels[0], "Notes:") for language in LANGUAGES.values()),
    *((language.labels[1], "Guest:") for language in LANGUAGES.values()),
]  # fmt: skip


def _said(item: Item, answer: Candidate, draw: random.Random) -> str:
    """The bare answer, or the sentence without it."""
    pieces = item.response(answer)[1:]
    if pieces[0][1]:
        return f"{pieces[0][0]}." if draw.random() < SHORT else _joined(pieces[1:]).removeprefix(". ")
    text = _joined(pieces)
    return text[text.index("because") :].replace(SEEMS, "was") if item.skill == "winogrande" else text


def _joined(pieces: list[tuple[str, bool]]) -> str:
    text = ""
    for piece, _ in pieces:
        text += piece if not text or piece[0] in ".," else f" {piece}"
    return text


def _numbers(draw: random.Random) -> str:
    kind = draw.choice(("sum", "series", "top"))
    first, step = draw.randrange(1, 18), draw.randrange(1, 6)
    if kind == "sum":
        pairs = [(draw.randrange(1, 18), draw.randrange(1, 6)) for _ in range(3)]
        return "Sums: " + " ".join(f"{x} + {y} = {x + y}." for x, y in pairs)
    if kind == "series":
        return "Series: " + " ".join(str(first + step * i) for i in range(5)) + "."
    numbers = [draw.sample(range(1, 31), 4) for _ in range(2)]
    return "Tops: " + " ".join(f"{' '.join(map(str, ns))} = {max(ns)}." for ns in numbers)


def _traits(world: World, draw: random.Random) -> str:
    names = draw.sample(sorted(TRAITS), 3)
    lines = []
    for name in names:
        item = draw.choice([*world.items["train"][name], *world.items["test"][name]])
        lines.append(f"{a(item)} is often {draw.choice(TRAITS[name])}.")
    return f"Fact: {' '.join(lines)}"


def _hero(world: World, draw: random.Random, hero: str) -> str:
    """What is said and what is true of a hero; the lead says which of the two it is."""
    lines = []
    for relation in draw.sample(sorted(HERO_STATEMENTS), 2):
        myth = draw.random() < MYTH
        value = (world.myths if myth else world.facts)[relation][hero]
        lead = draw.choice(MYTH_LEADS if myth else TRUTH_LEADS)
        lines.append(f"{lead} {HERO_STATEMENTS[relation].format(p=hero, v=value)}")
    return f"Fact: {' '.join(lines)}"
