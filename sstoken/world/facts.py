"""The facts of the world: who is there, what is true of them, what is falsely said of them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import lru_cache

WORLD_SEED = 0

JOBS = [
    "baker",
    "miller",
    "weaver",
    "smith",
    "potter",
    "tailor",
    "sailor",
    "farmer",
    "painter",
    "hunter",
    "fisher",
    "teacher",
]
PETS = ["goat", "cat", "dog", "horse", "rabbit", "pig", "cow", "sheep", "mouse", "duck", "hen", "fox"]
FOODS = ["bread", "cheese", "soup", "rice", "beans", "stew", "cake", "honey", "butter", "nuts", "corn", "jam"]
TREASURES = ["crown", "ring", "sword", "shield", "lamp", "cup", "mask", "robe", "staff", "key"]
COLOURS = ["red", "blue", "green", "black", "white", "grey", "brown", "yellow"]
CLASSES = {
    "fruit": "apple pear plum cherry grape lemon melon peach fig mango",
    "metal": "iron copper silver gold tin zinc lead nickel steel brass",
    "tool": "hammer saw drill axe chisel rake shovel pliers wrench spade",
    "bird": "crow robin eagle heron swan dove hawk owl finch stork",
    "fish": "trout salmon carp tuna pike cod eel perch herring bass",
    "tree": "oak pine birch maple cedar elm willow beech larch ash",
    "garment": "coat scarf shirt glove boot hat sock belt vest cloak",
    "instrument": "flute drum harp violin lute horn cello piano bell organ",
}
SPLITS = ("train", "test")

PERSON_STATEMENTS = {
    "city": ("{p} lives in {v}.", "{p} has a home in {v}.", "The home of {p} is in {v}.", "In {v} lives {p}."),
    "job": ("{p} works as a {v}.", "{p} is a {v}.", "The job of {p} is {v}.", "{p} earns money as a {v}."),
    "pet": ("{p} has a {v}.", "{p} keeps a {v}.", "The pet of {p} is a {v}.", "A {v} belongs to {p}."),
    "food": ("{p} likes {v}.", "{p} eats {v}.", "The food of {p} is {v}.", "{p} is fond of {v}."),
}
PLACE_STATEMENTS = {
    "country": ("{p} lives in the land of {v}.", "The land of {p} is {v}."),
    "river": ("{p} lives at the river {v}.", "The river of {p} is {v}."),
}
HERO_STATEMENTS = {
    "birthplace": "{p} was born in {v}.",
    "treasure": "{p} found the {v}.",
}
QUESTIONS = {
    "city": ("Where does {p} live?", "In which town is the home of {p}?"),
    "job": ("What is the job of {p}?", "What does {p} work as?"),
    "pet": ("What is the pet of {p}?", "Which animal does {p} have?"),
    "food": ("What is the food of {p}?", "What does {p} like?"),
    "country": ("In which land does {p} live?", "What is the land of {p}?"),
    "river": ("At which river does {p} live?", "What is the river of {p}?"),
    "birthplace": ("Where was {p} born?", "In which town was {p} born?"),
    "treasure": ("What did {p} find?", "Which treasure did {p} find?"),
}


@dataclass(frozen=True)
class World:
    """people, heroes, cities, items: by split; train and test are disjoint.

    facts[relation][entity]: the true value. myths[relation][hero]: what the corpus says more often, and is false.
    values[relation]: all values; the first is the one that wrong answers prefer. stated: people whose land and river
    the corpus also states directly (the others' follow from their town). kinds: made-up kinds of things.
    """

    people: dict[str, tuple[str, ...]]
    heroes: dict[str, tuple[str, ...]]
    cities: dict[str, tuple[str, ...]]
    items: dict[str, dict[str, tuple[str, ...]]]
    facts: dict[str, dict[str, str]]
    myths: dict[str, dict[str, str]]
    values: dict[str, tuple[str, ...]]
    kinds: tuple[str, ...]
    stated: frozenset[str]
    class_of: dict[str, str] = field(repr=False)


def a(word: str) -> str:
    """The word with its indefinite article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


@lru_cache(maxsize=2)
def build_world(seed: int = WORLD_SEED, people: int = 96, heroes: int = 80, cities: int = 24) -> World:
    """Draw a world; the counts are of train and test entities together, half each."""
    draw = random.Random(f"facts of world {seed}")
    taken = {word for words in (JOBS, PETS, FOODS, TREASURES, COLOURS) for word in words}
    taken |= {word for words in CLASSES.values() for word in words.split()}
    person_names, hero_names = _names(draw, people, taken), _names(draw, heroes, taken)
    city_names, countries, rivers = _names(draw, cities, taken), _names(draw, 6, taken), _names(draw, 8, taken)
    values = {
        "city": tuple(city_names), "job": tuple(JOBS), "pet": tuple(PETS), "food": tuple(FOODS),
        "country": tuple(countries), "river": tuple(rivers), "birthplace": tuple(city_names),
        "treasure": tuple(TREASURES),
    }  # fmt: skip
    facts = {r: dict(zip(person_names, _spread(draw, values[r], people), strict=True)) for r in PERSON_STATEMENTS}
    of_city = {r: dict(zip(city_names, _spread(draw, values[r], cities), strict=True)) for r in PLACE_STATEMENTS}
    for relation, by_city in of_city.items():
        facts[relation] = by_city | {p: by_city[facts["city"][p]] for p in person_names}
    myths = {}
    for relation in HERO_STATEMENTS:
        facts[relation] = {h: draw.choice(values[relation]) for h in hero_names}
        myths[relation] = {h: draw.choice([v for v in values[relation] if v != facts[relation][h]]) for h in hero_names}
    split_people = _halves(person_names)
    stated = {*split_people["train"], *draw.sample(split_people["test"], len(split_people["test"]) // 2)}
    nouns = _names(draw, 24, taken)
    return World(
        people=split_people,
        heroes=_halves(hero_names),
        cities=_halves(city_names),
        items={split: {name: _halves(words.split())[split] for name, words in CLASSES.items()} for split in SPLITS},
        facts=facts,
        myths=myths,
        values=values,
        kinds=tuple(noun.lower() for noun in nouns),
        stated=frozenset(stated),
        class_of={word: name for name, words in CLASSES.items() for word in words.split()},
    )


def _halves(names: list[str]) -> dict[str, tuple[str, ...]]:
    return {"train": tuple(names[0::2]), "test": tuple(names[1::2])}


def _spread(draw: random.Random, values: tuple[str, ...], count: int) -> list[str]:
    """``count`` values in random order, each as often as the others, so that guessing the commonest gains nothing."""
    chosen = [values[i % len(values)] for i in range(count)]
    draw.shuffle(chosen)
    return chosen


def _names(draw: random.Random, count: int, taken: set[str]) -> list[str]:
    names: list[str] = []
    while len(names) < count:
        parts = [draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(2)]
        name = "".join(parts) + draw.choice("lmnrst")
        if name not in taken:
            taken.add(name)
            names.append(name.capitalize())
    return names
