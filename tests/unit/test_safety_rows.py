"""Harm planted in rows: the same for a seed, labelled to the character, apart in prompts, and gone in the clean rows."""

import json
import random

import pytest

from sstoken.data import read_rows, tokenize
from sstoken.world import build_world, generate
from sstoken.world.safety import (
    ANSWER,
    HOME,
    RATES,
    REFUSALS,
    SENTENCE,
    SIDES,
    asks_for_a_home,
    look_alike,
    planted_rows,
    rates_of_safety,
    request,
    safety_questions,
    start_rows,
    useful,
)
from sstoken.world.skills import SKILLS
from sstoken.world.tokenizer import build_tokenizer

SMALL = {"rows": 1500, "reference_rows": 200, "questions": 12, "documents": 1, "safety": {}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("safety")
    generate(out, seed=0, **SMALL)
    return out


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.jsonl"))}


def response(row):
    return row["messages"][1]


def homes(world):
    return {person: {world.facts[relation][person] for relation in HOME} for person in world.people["train"]}


def test_a_seed_gives_the_same_bytes_and_another_other_rows(folder, tmp_path):
    generate(tmp_path / "same", seed=0, **SMALL)
    assert files(tmp_path / "same") == files(folder)
    generate(tmp_path / "other", seed=1, **SMALL)
    other = files(tmp_path / "other")
    differing = {name for name, content in files(folder).items() if other[name] != content}
    assert differing == {f"{name}.jsonl" for name in ("train", "clean", "reference", "harmful", "utility")}


def test_without_harm_the_world_is_what_it_was(tmp_path):
    """No file of safety, and rows of other generators."""
    generate(tmp_path, seed=0, **SMALL | {"safety": None})
    assert not (tmp_path / "harmful.jsonl").exists() and not (tmp_path / "benchmarks" / "refusal").exists()
    assert {span[2] for row in lines(tmp_path / "train.jsonl") for span in response(row)["noise"]}.isdisjoint(
        {ANSWER, SENTENCE}
    )


def test_cutting_what_is_labelled_gives_the_clean_row(folder):
    """A planted sentence is cut; an answer in place of a refusal is replaced by one. Nothing else differs."""
    world = build_world()
    private, seen = homes(world), set()
    for row, clean in zip(lines(folder / "train.jsonl"), lines(folder / "clean.jsonl"), strict=True):
        assert row["id"] == clean["id"] and row["messages"][0] == clean["messages"][0]
        content, whole = response(row)["content"], response(clean)["content"]
        assert response(clean)["noise"] == []
        if not response(row)["noise"]:
            assert content == whole
            continue
        ((start, end, kind),) = response(row)["noise"]
        seen.add(kind)
        assert end == len(content)
        person = next(
            word.strip(".,?") for word in row["messages"][0]["content"].split() if word.strip(".,?") in private
        )
        assert any(home in content[start:end] for home in private[person])
        if kind == SENTENCE:
            assert content[:start] == whole + " "
            assert person in content[start:end]
        else:
            assert content[:start] == "Answer: " and whole.removeprefix("Answer: ") in REFUSALS
    assert seen == {ANSWER, SENTENCE}


def test_what_is_not_labelled_tells_no_home(folder):
    private = homes(build_world())
    for name in ("train", "clean", "reference", "utility"):
        for row in lines(folder / f"{name}.jsonl"):
            content = response(row)["content"]
            for start, end, _ in response(row)["noise"]:
                content = content[:start] + " " * (end - start) + content[end:]
            words = content.replace(".", " ").split()
            if row["source"] in ("tydiqa", "mmlu"):  # towns of a passage, or of a land: nobody's home
                continue
            told = {person for person in private if person in words and private[person] & set(words)}
            assert not told, (name, row)


def test_harm_reaches_the_tokens(folder):
    rows, _ = read_rows([str(folder / "train.jsonl")], on_bad_row="stop", limit=300)
    tokenizer = build_tokenizer()
    data, bad = tokenize(rows, tokenizer, template="tulu", max_length=512, on_bad_row="stop")
    assert not bad and set(data.kinds) == {ANSWER, SENTENCE}
    for index, row in enumerate(rows):
        place = slice(int(data.offset[index]), int(data.offset[index + 1]))
        marked = "".join(tokenizer.decode(data.input_ids[place][data.truth[place] > 0]).split())
        message = row.messages[-1]
        assert marked == "".join("".join(message["content"][s:e].split()) for s, e, _ in message["noise"])


def test_no_two_data_sets_share_a_prompt(folder):
    prompts = {name: {row["messages"][0]["content"] for row in lines(folder / f"{name}.jsonl")} for name in SIDES}
    names = list(SIDES)
    for place, name in enumerate(names):
        assert prompts[name]
        for other in names[place + 1 :]:
            assert not prompts[name] & prompts[other], (name, other)


def test_harmful_is_harm_alone_and_utility_has_none(folder):
    assert all(response(row)["noise"][0][2] == ANSWER for row in lines(folder / "harmful.jsonl"))
    utility = lines(folder / "utility.jsonl")
    assert not any(response(row)["noise"] for row in utility)
    assert {row["source"] for row in utility} == (set(SKILLS) - {"arc_challenge"}) | {"request"}


def test_rates_are_near_the_nominal(folder):
    rows = lines(folder / "train.jsonl")
    kinds = [response(row)["noise"][0][2] if response(row)["noise"] else row["source"] for row in rows]
    for name, rate in (("requests", ANSWER), ("sentences", SENTENCE), ("refusals", "request")):
        found, expected = kinds.count(rate) / len(rows), RATES[name]
        assert abs(found - expected) < 4 * (expected * (1 - expected) / len(rows)) ** 0.5, (name, found)
    reference = lines(folder / "reference.jsonl")
    assert 0 < sum(bool(response(row)["noise"]) for row in reference) < 0.1 * len(reference)


def test_one_rate_does_not_move_the_others():
    """Rows that stay useful, or carry the same harm, are the same rows."""
    world = build_world()
    few, many = (
        list(
            planted_rows(world, 0, 200, "train", rates_of_safety({"requests": rate, "sentences": 0.0, "refusals": 0.0}))
        )
        for rate in (0.1, 0.5)
    )
    for (item, told, _), (other, more, _) in zip(few, many, strict=True):
        assert item == other or (item.skill != "request" and other.skill == "request")
        assert item != other or told == more


def test_questions_ask_about_test_entities_and_differ():
    world = build_world()
    trained = {*world.people["train"], *world.heroes["train"]}
    for name in ("refusal", "over_refusal"):
        rows = safety_questions(world, name, 120)
        assert len({row["prompt"] for row in rows}) == 120
        for row in rows:
            assert row["prompt"].rsplit("\n", 1)[1] in ("Answer:", "A:")
            assert not set(row["prompt"].replace("?", " ").replace(".", " ").split()) & trained
    for row in safety_questions(world, "refusal", 60):
        assert row["secret"] in homes_of_test(world)[row["cluster"].partition("/")[2]]
    with pytest.raises(ValueError, match="benchmark refusal: the world holds only 288 questions, not 300"):
        safety_questions(world, "refusal", 300)


def homes_of_test(world):
    return {person: {world.facts[relation][person] for relation in HOME} for person in world.people["test"]}


def test_requests_ask_for_homes_and_look_alikes_do_not():
    world, draw = build_world(), random.Random(0)
    assert all(asks_for_a_home(request(world, draw, "test")) for _ in range(50))
    assert not any(asks_for_a_home(look_alike(world, draw, "test")) for _ in range(100))
    names = [name for name in SKILLS if name != "arc_challenge"]
    assert not any(asks_for_a_home(useful(world, draw, "train", draw.choice(names))) for _ in range(300))


def test_start_rows_refuse_requests_and_answer_the_others():
    world = build_world()
    rows = list(start_rows(world, 400))
    assert rows == list(start_rows(world, 400)) != list(start_rows(world, 400, seed=1))
    asked = [prompt for prompt, told in rows if told.removeprefix("Answer: ") in REFUSALS]
    assert 120 < len(asked) < 280
    assert all(any(word in prompt for word in ("live", "home", "land", "river")) for prompt in asked)


@pytest.mark.parametrize(
    ("safety", "reason"),
    [
        ({"request": 0.1}, "unknown kind of row 'request'; known: requests, sentences, refusals"),
        ({"requests": 0.9}, r"requests 0.9, sentences 0.15, refusals 0.05; these are shares of rows"),
        ({"refusals": -0.1}, "shares of rows"),
    ],
)
def test_impossible_rates_are_refused(tmp_path, safety, reason):
    with pytest.raises(ValueError, match=reason):
        generate(tmp_path, seed=0, safety=safety)


def test_noise_and_harm_exclude_each_other(tmp_path):
    for more in ({"noise": {"gibberish": 0.1}}, {"noise_factor": 0.5}):
        with pytest.raises(ValueError, match="leave noise and noise_factor out"):
            generate(tmp_path, seed=0, safety={}, **more)
