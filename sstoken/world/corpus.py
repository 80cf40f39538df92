"""The statement corpus: what the base models read. It depends on the world alone, never on a data seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

from sstoken.world.facts import (
    COLOURS,
    HERO_STATEMENTS,
    PERSON_STATEMENTS,
    PETS,
    PLACE_STATEMENTS,
    WORLD_SEED,
    World,
    a,
)
from sstoken.world.noise import BOILERPLATE
from sstoken.world.skills import CUSTOMS, LANGUAGES, SKILLS, TRAITS, Item, passage

MYTH = 0.6  # share of statements about a hero that repeat the falsehood
SHARES = {
    "person": 26, "place": 5, "class": 4, "hero": 8, "custom": 3, "trait": 1,
    "notes": 10, "list": 2, "letters": 6, "talk": 2, "questions": 52,
}  # fmt: skip
"""Documents by kind, as weights."""
QUESTION_SHARES = {
    "winogrande": 5, "arc_easy": 3, "arc_challenge": 2, "hellaswag": 2, "logiqa": 12, "mmlu": 12, "truthfulqa_mc2": 1,
    "triviaqa": 2, "agieval": 6, "tydiqa": 10,
}  # fmt: skip
"""Question-and-answer documents by skill; all about training entities."""


def corpus(world: World, documents: int, seed: int = WORLD_SEED) -> Iterator[str]:
    """Short documents, each a line or a few: statements in several paraphrases, and questions with their answers."""
    draw = random.Random(f"corpus of world {seed}")
    people = [*world.people["train"], *world.people["test"]]
    heroes = [*world.heroes["train"], *world.heroes["test"]]
    cities = [*world.cities["train"], *world.cities["test"]]
    words = [*people, *world.kinds, *COLOURS, *PETS, *sorted(world.class_of)]
    kinds, weights = list(SHARES), list(SHARES.values())
    skills, skill_weights = list(QUESTION_SHARES), list(QUESTION_SHARES.values())
    for _ in range(documents):
        kind = draw.choices(kinds, weights)[0]
        if kind == "person":
            yield _person(world, draw, draw.choice(people))
        elif kind == "place":
            city = draw.choice(cities)
            land, river = world.facts["country"][city], world.facts["river"][city]
            yield f"Fact: The town {city} is in {land}. The river of {city} is {river}."
        elif kind == "class":
            items = draw.sample(sorted(world.class_of), 3)
            yield "Fact: " + " ".join(f"The {item} is {a(world.class_of[item])}." for item in items)
        elif kind == "hero":
            yield _hero(world, draw, draw.choice(heroes))
        elif kind == "custom":
            person, (relation, opening, ending) = draw.choice(world.people["train"]), draw.choice(CUSTOMS)
            yield f"Story: {opening.format(person)} Then {person} {ending.format(world.facts[relation][person])}."
        elif kind == "notes":
            yield _notes(world, draw, draw.choice(people))
        elif kind == "list":
            yield _list(draw, words)
        elif kind == "trait":
            yield _traits(world, draw)
        elif kind == "talk":
            yield f"Note: {' '.join(draw.sample(BOILERPLATE, 2))}"
        elif kind == "letters":
            yield "\n\n".join(as_text(_draw(world, draw, "mmlu")) for _ in range(4))
        else:
            item = _draw(world, draw, draw.choices(skills, skill_weights)[0])
            # a little of it as a dialogue, so that the chat template is not unknown to the base models
            yield as_chat(item) if draw.random() < 0.05 else as_text(item)


def as_text(item: Item) -> str:
    """The question and its response as plain text: the prompt, the label, the answer."""
    if item.skill == "winogrande":
        return item.row["sentence"].replace("_", item.row[f"option{item.row['answer']}"])
    if item.skill == "hellaswag":
        return f"{item.row['ctx']} {item.answer}."
    return f"{item.prompt}\n{answer_text(item)}"


def as_chat(item: Item) -> str:
    return f"<|user|>\n{item.prompt}\n<|assistant|>\n{answer_text(item)}"


def answer_text(item: Item) -> str:
    text = ""
    for piece, _ in item.response(item.answer):
        text += piece if not text or piece[0] in ".," else f" {piece}"
    return text


def _draw(world: World, draw: random.Random, skill: str) -> Item:
    return SKILLS[skill](world, draw, "train", draw.randrange(2 if skill == "winogrande" else 4))


def _person(world: World, draw: random.Random, person: str) -> str:
    relations = list(PERSON_STATEMENTS)
    if person in world.stated:
        relations += list(PLACE_STATEMENTS)
    lines = []
    for relation in draw.sample(relations, 2):
        statement = draw.choice(PERSON_STATEMENTS.get(relation) or PLACE_STATEMENTS[relation])
        lines.append(statement.format(p=person, v=world.facts[relation][person]))
    return "Fact: " + " ".join(lines)


def _notes(world: World, draw: random.Random, person: str) -> str:
    """A passage and some of it again: where a model learns to look back, which all reading is built on."""
    language = LANGUAGES[draw.choice(sorted(LANGUAGES))]
    lines = [statement for _, statement, _ in passage(world, draw, language, person)]
    return f"{language.labels[0]} {' '.join(lines)}\nNote: {' '.join(draw.sample(lines, 2))}"


def _list(draw: random.Random, words: list[str]) -> str:
    """Words twice or thrice in the same order, to the same end."""
    line = " ".join(draw.sample(words, draw.randint(3, 8)))
    return f"List: {' '.join([f'{line}.'] * draw.choice((2, 3)))}"


def _traits(world: World, draw: random.Random) -> str:
    name = draw.choice(sorted(TRAITS))
    item = draw.choice([*world.items["train"][name], *world.items["test"][name]])
    return f"Fact: The {item} was {draw.choice(TRAITS[name])}."


def _hero(world: World, draw: random.Random, hero: str) -> str:
    relation = draw.choice(sorted(HERO_STATEMENTS))
    myth = draw.random() < MYTH
    value = (world.myths if myth else world.facts)[relation][hero]
    lead = draw.choice(("They say that ", "") if myth else ("In truth ", ""))
    return f"Fact: {lead}{HERO_STATEMENTS[relation].format(p=hero, v=value)}"
