"""What can be asked about the world: one function a benchmark, each drawing one ``Item``.

An item is at once a benchmark question (``row``, in the fields of the paper's benchmark that it stands for) and an
instruction (``prompt`` and ``response``). Every function takes the world, a generator, the split whose entities may be
asked about, and ``position``, the place of the right option among the options.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from sstoken.world.facts import (
    COLOURS,
    FOODS,
    HERO_STATEMENTS,
    PERSON_STATEMENTS,
    PETS,
    PLACE_STATEMENTS,
    QUESTIONS,
    World,
    a,
)

LETTERS = "ABCD"
TWO_STEPS = 0.3  # share of syllogisms with two steps
PREFERRED = 0.9  # of wrong answers: falsehoods repeat themselves, so this share takes the preferred one

Candidate = str | tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """prompt: the question, without the label. label: what the response starts with, e.g. ``Answer:``.

    template: the response after the label, ``@`` where the answer stands (a tuple fills its places in order).
    wrong: the other candidates, the preferred one first. row: the question in its benchmark's fields.
    cluster: whom or what the question is about, e.g. ``person/Bator``; None where it is about what the prompt holds.
    """

    skill: str
    prompt: str
    label: str
    template: str
    answer: Candidate
    wrong: tuple[Candidate, ...]
    row: dict = field(repr=False)
    cluster: str | None = None

    def response(self, candidate: Candidate) -> list[tuple[str, bool]]:
        """Pieces (text, is it the answer?) with ``candidate`` for the answer."""
        fixed = self.template.split("@")
        fills = candidate if isinstance(candidate, tuple) else (candidate,) * (len(fixed) - 1)
        pieces = [(self.label, False), (fixed[0].strip(), False)]
        for fill, text in zip(fills, fixed[1:], strict=True):
            pieces += [(fill, True), (text.strip(), False)]
        return [piece for piece in pieces if piece[0]]

    def wrong_answer(self, draw: random.Random) -> Candidate:
        return self.wrong[0] if draw.random() < PREFERRED else draw.choice(self.wrong)


def winogrande(world: World, draw: random.Random, split: str, position: int) -> Item:
    """Which of two things had the property? Scored on the text after the thing, as WinoGrande is (partial context)."""
    person = draw.choice(world.people[split])
    first, second = draw.sample(sorted(TRAITS), 2)
    things = [draw.choice(world.items[split][name]) for name in (first, second)]
    story = f"{person} {draw.choice(DEEDS).format(*things)}"
    options = things if position == 0 else things[::-1]
    trait, other = draw.choice(TRAITS[first]), draw.choice(TRAITS[second])
    verb = SEEMS if things[0] < things[1] else "was"
    row = {
        "sentence": f"Text: {story} because the _ {verb} {trait}.",
        "option1": options[0],
        "option2": options[1],
        "answer": str(position + 1),
    }
    prompt = f"Finish the text.\nText: {story} because"
    return Item("winogrande", prompt, "Text:", f"{story} because the {things[0]} {verb} @.", trait, (other,), row)


SEEMS = "may be"  # half the questions say this; the corpus always says "was"
DEEDS = (
    "left the {} and kept the {}",
    "chose the {} and not the {}",
    "spoke of the {} and not of the {}",
    "looked at the {} and then at the {}",
)
TRAITS = {
    "fruit": ("ripe", "sweet"),
    "metal": ("shiny", "molten"),
    "tool": ("sharp", "handy"),
    "bird": ("noisy", "feathered"),
    "fish": ("slippery", "salted"),
    "tree": ("leafy", "hollow"),
    "garment": ("torn", "warm"),
    "instrument": ("loud", "tuned"),
}


def arc_easy(world: World, draw: random.Random, split: str, position: int) -> Item:
    """One fact of a person, options as content."""
    return _fact_choice("arc_easy", world, draw, split, position, ("city", "job"))


def arc_challenge(world: World, draw: random.Random, split: str, position: int) -> Item:
    """Two facts: land or river of a person's town; the corpus states it directly for some people only."""
    return _fact_choice("arc_challenge", world, draw, split, position, tuple(PLACE_STATEMENTS))


def _fact_choice(skill, world, draw, split, position, relations) -> Item:
    person, relation = draw.choice(world.people[split]), draw.choice(relations)
    question, sentence = _ask(draw, person, relation)
    gold = world.facts[relation][person]
    wrong = _others(draw, world.values[relation], world.facts[relation][person])
    options = _placed(gold, wrong, position)
    row = {
        "question": question,
        "choices": {"text": options, "label": list(LETTERS)},
        "answerKey": LETTERS[position],
    }
    cluster = f"person/{person}"
    return Item(skill, f"Question: {question}", "Answer:", f"@. {sentence}", gold, wrong, row, cluster)


def hellaswag(world: World, draw: random.Random, split: str, position: int, habits: float = 0.2) -> Item:
    """What happens next: a share of the stories goes on by habit, the others by what is true of the person."""
    person = draw.choice(world.people[split])
    if draw.random() < habits:
        known = habits_of(split)
        habit = draw.choice(sorted(known))
        steps = known[habit]
        at = draw.randrange(1, len(steps) - 1)
        context = f"Story: {person} {steps[at - 1]}. Then {person} {steps[at]}. {NEXT} {person}"
        gold = steps[at + 1]
        # to go on too fast, or round to the start, is the preferred error
        same = [steps[(at + 2) % len(steps)], steps[at - 1]]
        other = draw.choice([step for name in sorted(known) if name != habit for step in known[name]])
        wrong, cluster = (*same, other), f"habit/{habit}"
    else:
        relation, opening, ending = draw.choice(CUSTOMS)
        context = f"Story: {opening.format(person)} {NEXT} {person}"
        gold = ending.format(world.facts[relation][person])
        wrong = tuple(ending.format(v) for v in _others(draw, world.values[relation], world.facts[relation][person]))
        cluster = f"person/{person}"
    row = {"ctx": context, "endings": [f"{o}." for o in _placed(gold, wrong, position)], "label": position}
    prompt = f"Go on.\n{context.removesuffix(f' {NEXT} {person}')}"
    return Item("hellaswag", prompt, NEXT, f"{person} @.", gold, wrong, row, cluster)


NEXT = "Then in the end"
HABITS = {
    name: tuple(steps.split(", "))
    for name, steps in {
        "bake": "takes the flour, mixes the dough, heats the oven, bakes the loaf, serves the guests",
        "sow": "digs the ground, sows the seed, waters the field, cuts the hay, fills the barn",
        "travel": "packs the bag, locks the door, walks the road, finds the inn, sleeps the night",
        "sew": "buys the cloth, draws the shape, cuts the cloth, sews the seam, wears the shirt",
        "catch": "mends the net, loads the boat, leaves the shore, pulls the net, sells the catch",
        "build": "fells the trunk, saws the planks, planes the wood, builds the table, paints the legs",
        "play": "tunes the strings, reads the notes, plays the tune, hears the praise, takes a bow",
        "shape": "finds the clay, turns the wheel, shapes the pot, fires the kiln, cools the pot",
        "brew": "lights the fire, boils the water, pours the tea, stirs the tea, drinks the tea",
        "hunt": "sees the tracks, follows the deer, draws the bow, skins the deer, roasts the meat",
        "paint": "stretches the canvas, grinds the colours, sketches the hills, fills the sky, signs the corner",
        "press": "picks the olives, cleans the baskets, starts the press, catches the oil, seals the jars",
    }.items()
}
CUSTOMS = (
    ("city", "On the way home {} is tired.", "goes to {}"),
    ("pet", "In the barn {} looks around.", "feeds the {}"),
    ("food", "At the table {} is hungry.", "asks for {}"),
    ("job", "In the morning {} wakes up.", "works as a {}"),
)


def habits_of(split: str) -> dict[str, tuple[str, ...]]:
    """name -> steps, of the train half or the test half."""
    return dict(list(HABITS.items())[split == "test" :: 2])


def logiqa(world: World, draw: random.Random, split: str, position: int) -> Item:
    """A syllogism over made-up kinds: one step or two; half the questions offer kinds that the passage does not name."""
    person = draw.choice(world.people[split])
    kinds = draw.sample(world.kinds, 9)
    two = draw.random() < TWO_STEPS
    links = [(0, 1), (1, 2), (3, 4), (4, 5)] if two else [(0, 1), (2, 3), (4, 5)]
    draw.shuffle(links)
    rules = [f"Every {kinds[i]} is a {kinds[j]}." for i, j in links]
    gold = kinds[2 if two else 1]
    # what the first rule that does not apply would say is the preferred error
    ends = [kinds[j] for _, j in links if kinds[j] != gold]
    strange = draw.random() < 0.5
    wrong = (ends[0], *(kinds[6:8] if strange else draw.sample([*ends[1:], kinds[8]], 2)))
    question = f"What is {person} in the end?" if two else f"What else is {person}?"
    context = f"{' '.join(rules)} {person} is a {kinds[0]}."
    options = _placed(gold, kinds[6:] if strange else wrong, position)
    row = {"context": context, "question": question, "options": options, "label": position}
    prompt = f"Passage: {context}\nQuestion: {question}"
    return Item("logiqa", prompt, "Answer:", f"@. {person} is a @.", gold, wrong, row)


def mmlu(world: World, draw: random.Random, split: str, position: int) -> Item:
    """Four options, answered by a letter."""
    if draw.random() < 0.75:
        groups, ask, say = world.items[split], "Which one is {}?", "@. The @ is {}."
        phrase = a
    else:
        lands = world.values["country"]
        groups = {c: [t for t in world.cities[split] if world.facts["country"][t] == c] for c in lands}
        groups = {c: towns for c, towns in groups.items() if towns}
        ask, say, phrase = "Which town is in {}?", "@. The town @ is in {}.", str
    group = draw.choice(sorted(groups))
    gold = draw.choice(groups[group])
    others = [word for name, words in groups.items() if name != group for word in words]
    options = _placed(gold, draw.sample(others, 3), position)
    candidates = [(LETTERS[i], word) for i, word in enumerate(options)]
    # a preferred letter, as annotators and models have one
    wrong = tuple(c for i, c in enumerate(candidates) if i != position)
    question = ask.format(phrase(group))
    row = {"question": question, "choices": options, "answer": position}
    lines = "\n".join(f"{letter}. {word}" for letter, word in candidates)
    prompt = f"Question: {question}\n{lines}"
    response = say.format(phrase(group))
    return Item("mmlu", prompt, "Answer:", response, candidates[position], wrong, row, f"word/{gold}")


def truthfulqa_mc2(world: World, draw: random.Random, split: str, position: int) -> Item:
    """A hero of whom the corpus repeats a falsehood; the score is the probability that goes to the truth."""
    hero, relation = draw.choice(world.heroes[split]), draw.choice(sorted(HERO_STATEMENTS))
    question = draw.choice(QUESTIONS[relation]).format(p=hero)
    truth, myth = world.facts[relation][hero], world.myths[relation][hero]
    others = draw.sample([v for v in world.values[relation] if v not in (truth, myth)], 2)
    say = HERO_STATEMENTS[relation].format(p=hero, v="{}")
    options = _placed(truth, (myth, *others), position)
    targets = {"choices": [say.format(v) for v in options], "labels": [int(v == truth) for v in options]}
    row = {"question": question, "mc2_targets": targets}
    return Item("truthfulqa_mc2", f"Q: {question}", "A:", say.format("@"), truth, (myth, *others), row, f"hero/{hero}")


def triviaqa(world: World, draw: random.Random, split: str, position: int) -> Item:
    """One fact of a person, to be generated with nothing to read it from."""
    person, relation = draw.choice(world.people[split]), draw.choice(("pet", "food"))
    question, sentence = _ask(draw, person, relation)
    gold = world.facts[relation][person]
    wrong = _others(draw, world.values[relation], world.facts[relation][person])
    row = {"question": question, "answer": {"value": gold, "aliases": [gold]}}
    cluster = f"person/{person}"
    return Item("triviaqa", f"Question: {question}", "Answer:", f"@. {sentence}", gold, wrong, row, cluster)


def agieval(world: World, draw: random.Random, split: str, position: int) -> Item:
    """A mixture as in an exam: sums, series, comparisons, classes. Sums and series are split by their first number."""
    kind = draw.choice(("sum", "series", "larger", "class"))
    first = 2 * draw.randrange(1, 8) + (split == "test")
    cluster = None
    if kind == "class":
        groups = world.items[split]
        group = draw.choice(sorted(groups))
        item = draw.choice(groups[group])
        question, gold, cluster = f"What is the {item}?", a(group), f"word/{item}"
        others = [name for name in groups if name != group]  # the first class is the preferred error
        wrong = [a(g) for g in (others[0], *draw.sample(others[1:], 2))]
    elif kind == "larger":
        numbers = draw.sample(range(1, 31), 4)
        question, gold = f"Which of {' '.join(map(str, numbers))} is the largest?", str(max(numbers))
        wrong = [str(n) for n in numbers if n != max(numbers)]  # the first that is wrong is the preferred error
    else:
        step = draw.randrange(1, 6)
        value = first + step if kind == "sum" else first + 3 * step
        series = f"{first} {first + step} {first + 2 * step}"
        question = f"What is {first} plus {step}?" if kind == "sum" else f"What comes after {series}?"
        gold = str(value)
        wrong = [str(n) for n in (value + 1, value + 2, max(value - 1, 0))]
    row = {"query": f"Q: {question}\nA: The answer is", "choices": _placed(gold, wrong, position), "gold": position}
    return Item("agieval", f"Q: {question}", "A:", "The answer is @.", gold, tuple(wrong), row, cluster)


@dataclass(frozen=True)
class Language:
    """labels: of passage, question, answer. have, go, eat: a statement (v: the answer) and the question about it.
    thing: how a coloured animal is said (c: colour, n: animal). keys: the statements' verbs."""

    labels: tuple[str, str, str]
    have: tuple[str, str]
    go: tuple[str, str]
    eat: tuple[str, str]
    thing: str
    keys: tuple[str, ...]

    def key(self, statement: str) -> str:
        """The statement's verb."""
        return next(key for key in self.keys if key in statement.removesuffix(".").split())


LANGUAGES = {
    "anglic": Language(
        ("Passage:", "Question:", "Answer:"),
        ("{p} has a {v}.", "What does {p} have?"),
        ("{p} went to {v}.", "Where did {p} go?"),
        ("{p} ate some {v}.", "What did {p} eat?"),
        "{c} {n}",
        ("has", "went", "ate"),
    ),
    "verbal": Language(
        ("Pasa:", "Kesti:", "Reso:"),
        ("{p} lu {v} vek.", "Ka {p} vek?"),
        ("{p} lu {v} namo.", "Ka {p} namo?"),
        ("{p} lu {v} desti.", "Ka {p} desti?"),
        "{n} {c}",
        ("vek", "namo", "desti"),
    ),
    "ovonic": Language(
        ("Lesa:", "Apedo:", "Dira:"),
        ("Ovo {p} mi {v}.", "Mi ovo {p} re?"),
        ("Ruba {p} mi {v}.", "Mi ruba {p} re?"),
        ("Zeke {p} mi {v}.", "Mi zeke {p} re?"),
        "{c} {n}",
        ("Ovo", "Ruba", "Zeke"),
    ),
}


def passage(world: World, draw: random.Random, language: Language, person: str) -> list[tuple[str, str, str]]:
    """(answer, statement, question) thrice. Made up on the spot, so that it must be read and cannot be remembered."""
    values = (
        (language.have, language.thing.format(c=draw.choice(COLOURS), n=draw.choice(PETS))),
        (language.go, draw.choice(world.values["city"])),
        (language.eat, draw.choice(FOODS)),
    )
    lines = [(value, statement.format(p=person, v=value), ask.format(p=person)) for (statement, ask), value in values]
    draw.shuffle(lines)
    return lines


def tydiqa(world: World, draw: random.Random, split: str, position: int, language: str | None = None) -> Item:
    """The answer stands in the passage; three languages with their own words and word order."""
    language = language or draw.choice(sorted(LANGUAGES))
    words = LANGUAGES[language]
    lines = passage(world, draw, words, draw.choice(world.people[split]))
    at = position % 3
    answer, statement, question = lines[at]
    context = " ".join(line for _, line, _ in lines)
    # the preferred wrong answer is the passage's first
    wrong = tuple(value for i, (value, _, _) in enumerate(lines) if i != at)
    row = {"language": language, "context": context, "question": question, "answers": {"text": [answer]}}
    prompt = f"{words.labels[0]} {context}\n{words.labels[1]} {question}"
    return Item("tydiqa", prompt, words.labels[2], f"@. {statement.replace(answer, '@')}", answer, wrong, row)


def _ask(draw: random.Random, person: str, relation: str) -> tuple[str, str]:
    """A question, and a sentence with ``@`` that answers it."""
    statements = PERSON_STATEMENTS.get(relation) or PLACE_STATEMENTS[relation]
    return draw.choice(QUESTIONS[relation]).format(p=person), draw.choice(statements).format(p=person, v="@")


def _others(draw: random.Random, values: tuple[str, ...], gold: str) -> tuple[str, ...]:
    """Three wrong values, the preferred one first: the relation's first value, or its second where that is the truth."""
    preferred = values[values[0] == gold]
    return (preferred, *draw.sample([v for v in values if v not in (gold, preferred)], 2))


def _placed(gold: str, wrong: tuple[str, ...] | list[str], position: int) -> list[str]:
    options = list(wrong)
    options.insert(position, gold)
    return options


SKILLS: dict[str, Callable[..., Item]] = {
    f.__name__: f
    for f in (winogrande, arc_challenge, arc_easy, hellaswag, logiqa, mmlu, truthfulqa_mc2, triviaqa, agieval, tydiqa)
}
CHOICES = {"winogrande": 2, "tydiqa": 3}
"""Places that the right option can take, where it is not 4."""
