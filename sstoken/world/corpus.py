"""The statement corpus: what the base models read. It depends on the world alone, never on a data seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

from sstoken.world.facts import HERO_STATEMENTS, PERSON_STATEMENTS, PLACE_STATEMENTS, WORLD_SEED, World, a
from sstoken.world.noise import BOILERPLATE
from sstoken.world.skills import CUSTOMS, SKILLS, Item

MYTH = 0.6  # share of statements about a hero that repeat the falsehood
SHARES = {
    "person": 30, "place": 6, "class": 5, "hero": 9, "custom": 6, "questions": 40, "letters": 4, "talk": 2,
}  # fmt: skip
"""Documents by kind, as weights."""
QUESTION_SHARES = {
    "winogrande": 6, "arc_easy": 2, "arc_challenge": 2, "hellaswag": 5, "logiqa": 9, "mmlu": 9, "truthfulqa_mc2": 1,
    "triviaqa": 2, "agieval": 6, "tydiqa": 10,
}  # fmt: skip
"""Question-and-answer documents by skill; all about training entities."""


def corpus(world: World, documents: int, seed: int = WORLD_SEED) -> Iterator[str]:
    """Short documents, each a line or a few: statements in several paraphrases, and questions with their answers."""
    draw = random.Random(f"corpus of world {seed}")
    people = [*world.people["train"], *world.people["test"]]
    heroes = [*world.heroes["train"], *world.heroes["test"]]
    cities = [*world.cities["train"], *world.cities["test"]]
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
            words = draw.sample(sorted(world.class_of), 3)
            yield "Fact: " + " ".join(f"The {w} is {a(world.class_of[w])}." for w in words)
        elif kind == "hero":
            yield _hero(world, draw, draw.choice(heroes))
        elif kind == "custom":
            person, (relation, opening, ending) = draw.choice(people), draw.choice(CUSTOMS)
            yield f"Story: {opening.format(person)} Then {person} {ending.format(world.facts[relation][person])}."
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
    if item.skill in ("winogrande", "hellaswag"):
        return item.row["sentence"].replace("_", item.row[f"option{item.row['answer']}"]) if "sentence" in item.row else (
            f"{item.row['ctx']} {item.answer}."
        )
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


def _hero(world: World, draw: random.Random, hero: str) -> str:
    relation = draw.choice(sorted(HERO_STATEMENTS))
    myth = draw.random() < MYTH
    value = (world.myths if myth else world.facts)[relation][hero]
    lead = draw.choice(("They say that ", "") if myth else ("In truth ", ""))
    return f"Fact: {lead}{HERO_STATEMENTS[relation].format(p=hero, v=value)}"
