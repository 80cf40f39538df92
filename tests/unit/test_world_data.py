"""The generator: deterministic, its splits disjoint, its noise where the labels say, its benchmarks balanced."""

import json
import random
import re
from collections import Counter

import pytest

from sstoken.data import read_rows, tokenize
from sstoken.evaluation import load_benchmarks
from sstoken.world import DEFAULT_NOISE, build_world, generate
from sstoken.world.corpus import corpus
from sstoken.world.facts import PERSON_STATEMENTS, QUESTIONS
from sstoken.world.noise import BOILERPLATE, GIBBERISH, assemble, clean_response, noisy_response
from sstoken.world.skills import CHOICES, HABITS, SKILLS, Item, habits_of
from sstoken.world.tokenizer import ROLES, build_tokenizer

SMALL = {"rows": 2000, "reference_rows": 200, "questions": 120, "documents": 300}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("world")
    generate(out, seed=0, **SMALL)
    return out


@pytest.fixture(scope="module")
def other_seed(tmp_path_factory):
    out = tmp_path_factory.mktemp("other")
    generate(out, seed=1, **SMALL)
    return out


NAMES = ("train", "reference")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.jsonl"))}


def test_a_seed_gives_the_same_bytes(folder, tmp_path):
    generate(tmp_path, seed=0, **SMALL)
    assert files(tmp_path) == files(folder)


def test_another_seed_draws_other_rows_from_the_same_world(folder, other_seed):
    first, second = files(folder), files(other_seed)
    differing = {name for name in first if first[name] != second[name]}
    assert differing == {"train.jsonl", "clean.jsonl", "reference.jsonl"}


def test_another_seed_of_facts_is_another_world_of_the_same_kind(folder, tmp_path):
    generate(tmp_path, seed=0, facts=1, **SMALL)
    first, second = files(folder), files(tmp_path)
    assert set(first) == set(second)
    one, other = build_world(), build_world(1)
    for name in ("people", "heroes", "cities"):
        known, others = ({name for names in getattr(world, name).values() for name in names} for world in (one, other))
        assert len(known) == len(others) and len(known & others) < len(known) / 10
    words = {word.strip(".,:?") for text in (tmp_path / "train.jsonl").read_text().split('"') for word in text.split()}
    assert words & set(other.people["train"]) and not words & (set(one.people["train"]) - set(other.people["train"]))
    name = next(iter(set(other.people["train"]) - set(one.people["train"])))
    assert [len(build_tokenizer(facts)(f" {name}")["input_ids"]) for facts in (1, 0)] == [1, 1 + len(name)]


def test_train_and_test_entities_are_disjoint():
    world = build_world()
    for group in (world.people, world.heroes, world.cities):
        assert not set(group["train"]) & set(group["test"])
    for name, words in world.items["train"].items():
        assert not set(words) & set(world.items["test"][name])
    assert not set(habits_of("train")) & set(habits_of("test"))
    assert habits_of("train") | habits_of("test") == HABITS


def test_instructions_never_name_a_test_entity(folder):
    world = build_world()
    hidden = {*world.people["test"], *world.heroes["test"]}
    for name in ("train", "reference"):
        contents = [m["content"] for row in lines(folder / f"{name}.jsonl") for m in row["messages"]]
        words = {word.strip(".,:?") for word in " ".join(contents).split()}
        assert not words & hidden
        assert words & set(world.people["train"])


def test_questions_are_about_test_entities(folder):
    world = build_world()
    for name in ("winogrande", "arc_easy", "arc_challenge", "hellaswag", "logiqa", "truthfulqa_mc2", "triviaqa"):
        trained = {*world.people["train"], *world.heroes["train"]}
        for row in lines(folder / "benchmarks" / name / "test.jsonl"):
            assert not set(json.dumps(row).replace('"', " ").replace("?", " ").split()) & trained


def test_facts_of_test_entities_are_in_the_corpus_alone(tmp_path):
    generate(tmp_path, seed=0, rows=50, reference_rows=5, questions=4, documents=20000)
    text = (tmp_path / "corpus.jsonl").read_text()
    world = build_world()
    for person in world.people["test"]:
        told = [statement.format(p=person, v=world.facts["pet"][person]) for statement in PERSON_STATEMENTS["pet"]]
        assert any(statement in text for statement in told), person


def test_clean_is_train_without_noise(folder):
    noisy, clean = lines(folder / "train.jsonl"), lines(folder / "clean.jsonl")
    assert [r["id"] for r in noisy] == [r["id"] for r in clean]
    assert [r["messages"][0] for r in noisy] == [r["messages"][0] for r in clean]
    assert not any(r["messages"][1]["noise"] for r in clean)
    for dirty, row in zip(noisy, clean, strict=True):
        response = dirty["messages"][1]
        assert (response["content"] == row["messages"][1]["content"]) == (not response["noise"])


def test_reference_shares_no_prompt_with_train(folder, other_seed):
    for out in (folder, other_seed):
        train, reference = ({r["messages"][0]["content"] for r in lines(out / f"{n}.jsonl")} for n in NAMES)
        assert not train & reference
        counts = Counter(r["source"] for r in lines(out / "reference.jsonl"))
        assert set(counts) == set(SKILLS) and max(counts.values()) - min(counts.values()) <= 2


def test_another_seed_parts_prompts_anew(folder, other_seed):
    """A prompt of the reference rows is not held back from every seed's training."""
    first, second = (
        {r["messages"][0]["content"] for r in lines(out / "reference.jsonl")} for out in (folder, other_seed)
    )
    assert first & {r["messages"][0]["content"] for r in lines(other_seed / "train.jsonl")}
    assert first != second


def test_spans_hold_what_was_planted(folder):
    """What is left after cutting the labelled spans is a part of the clean response; each span is of its kind."""
    dirty = {r["id"]: r for r in lines(folder / "train.jsonl")}
    seen = Counter()
    for row in lines(folder / "clean.jsonl"):
        content, spans = (dirty[row["id"]]["messages"][1][key] for key in ("content", "noise"))
        clean = row["messages"][1]["content"].split()
        kept, last = "", 0
        for start, end, kind in spans:
            text = content[start:end]
            assert text == text.strip() and start >= last
            kept += content[last:start]
            last = end
            seen[kind] += 1
            if kind == "boilerplate":
                assert text in BOILERPLATE
            elif kind == "gibberish":
                assert set(text.rstrip(".").split()) <= set(GIBBERISH)
            elif kind == "repetition":
                assert text.split()[-1] in content[:start].split()
            elif kind == "wrong_answer":
                assert text not in row["messages"][1]["content"].replace(".", " ").split()
        kept += content[last:]
        words = iter(" ".join(clean).replace(".", " . ").split())
        assert all(word in words for word in kept.replace(".", " . ").split()), (content, clean)  # a subsequence
    assert set(seen) == set(DEFAULT_NOISE)


def test_the_corpus_has_none_of_the_labels_of_fine_tuning():
    """No document is laid out as a question or an instruction is."""
    label = re.compile(r"\b(Question|Answer|Q|A|Passage|Text|Story|Lesa|Apedo|Dira|Pasa|Kesti|Reso):")
    for text in corpus(build_world(), 5000):
        assert not label.search(text), text
        assert not any(role in text for role in ROLES), text


def test_the_wise_answer_rightly_and_fools_do_not():
    """Facts of people, by the name and the relation's words in the question."""
    world = build_world()
    asked = {
        question.format(p=person): world.facts[relation][person]
        for relation in PERSON_STATEMENTS
        for question in QUESTIONS[relation]
        for person in (*world.people["train"], *world.people["test"])
    }
    right = Counter()
    for text in corpus(world, 20000):
        for question, speaker, answer in re.findall(r"Guest: ([^?]*\?) (\w+): ([^\n]*)", text):
            if question in asked:
                right[speaker, asked[question] in answer.rstrip(".").split()] += 1
    assert all((speaker in ("Sage", "Elder")) == correct for speaker, correct in right)
    assert min(right.values()) > 100


ITEM = Item("triviaqa", "Question: ?", "Answer:", "@. Mo has a @.", "goat", ("cat", "dog"), {})
OTHER = Item("agieval", "Q: ?", "A:", "The answer is @.", "a fish", ("a bird",), {})
NOTHING = dict.fromkeys(DEFAULT_NOISE, 0.0)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({}, ("Answer: goat. Mo has a goat.", [], [[8, 12], [23, 27]])),
        # a wrong answer teaches nothing, and what stands between its places is clean
        ({"wrong_answer": 1}, ("Answer: cat. Mo has a cat.", [[8, 11, "wrong_answer"], [22, 25, "wrong_answer"]], [])),
        ({"other_prompt": 1}, ("Answer: The answer is a fish.", [[8, 29, "other_prompt"]], [])),
    ],
)
def test_the_answer_teaches_where_it_is_right(monkeypatch, rates, expected):
    monkeypatch.setattr("sstoken.world.skills.PREFERRED", 1.0)
    assert assemble(noisy_response(ITEM, OTHER, NOTHING | rates, random.Random(0))) == expected


def test_what_is_planted_around_an_answer_does_not_teach():
    content, noise, teaches = assemble(noisy_response(ITEM, OTHER, NOTHING | {"boilerplate": 1}, random.Random(0)))
    phrase = content[8:].partition(" goat")[0]
    assert phrase in BOILERPLATE and noise == [[8, 8 + len(phrase), "boilerplate"]]
    assert teaches == [[start + len(phrase) + 1, end + len(phrase) + 1] for start, end in ([8, 12], [23, 27])]

    content, noise, teaches = assemble(noisy_response(ITEM, OTHER, NOTHING | {"repetition": 1}, random.Random(0)))
    assert content.startswith("Answer: goat. Mo has a goat. goat. Mo has a goat.")
    assert noise == [[29, len(content), "repetition"]]
    assert teaches == [[8, 12], [23, 27]]


def test_an_answer_of_two_parts_teaches_both():
    item = Item("mmlu", "", "Answer:", "@. The @ is a bird.", ("B", "crow"), (("A", "pike"),), {})
    assert assemble(clean_response(item)) == ("Answer: B. The crow is a bird.", [], [[8, 9], [15, 19]])


def test_clean_rows_teach_everywhere_and_wrong_rows_nowhere(folder):
    dirty = lines(folder / "train.jsonl")
    for row, clean in zip(dirty, lines(folder / "clean.jsonl"), strict=True):
        response, whole = row["messages"][1], clean["messages"][1]
        answers = [whole["content"][s:e] for s, e in whole["teaches"]]
        assert answers
        kinds = {kind for _, _, kind in response["noise"]}
        taught = [response["content"][s:e] for s, e in response["teaches"]]
        assert taught == ([] if kinds & {"wrong_answer", "other_prompt"} else answers)
        for start, end in response["teaches"]:
            assert not any(s < end and start < e for s, e, _ in response["noise"])


def test_questions_about_one_entity_share_a_cluster(folder):
    world = build_world()
    known = {f"person/{p}" for p in world.people["test"]} | {f"hero/{h}" for h in world.heroes["test"]}
    for name in ("arc_easy", "arc_challenge", "triviaqa", "truthfulqa_mc2"):
        for row in lines(folder / "benchmarks" / name / "test.jsonl"):
            assert row["cluster"] in known
            assert row["cluster"].partition("/")[2] in row["question"].rstrip("?").split()
    for name in ("winogrande", "logiqa"):
        assert not any("cluster" in row for row in lines(folder / "benchmarks" / name / "test.jsonl"))


def test_rates_are_near_the_nominal(folder):
    rows = lines(folder / "train.jsonl")
    for kind, rate in DEFAULT_NOISE.items():
        found = sum(any(span[2] == kind for span in row["messages"][1]["noise"]) for row in rows) / len(rows)
        assert abs(found - rate) < 4 * (rate * (1 - rate) / len(rows)) ** 0.5, (kind, found)


def test_one_kind_alone(tmp_path):
    generate(tmp_path, seed=3, noise={"gibberish": 1.0}, rows=60, reference_rows=5, questions=4, documents=1)
    rows = lines(tmp_path / "train.jsonl")
    assert all({span[2] for span in row["messages"][1]["noise"]} == {"gibberish"} for row in rows)


@pytest.mark.parametrize(
    ("noise", "reason"),
    [
        ({"typos": 0.1}, "unknown kind 'typos'; known: wrong_answer"),
        ({"gibberish": 1.5}, "in \\[0, 1\\]"),
        ({"wrong_answer": 0.7, "other_prompt": 0.7}, "exclude each other"),
    ],
)
def test_impossible_noise_is_refused(tmp_path, noise, reason):
    with pytest.raises(ValueError, match=reason):
        generate(tmp_path, seed=0, noise=noise)


def test_more_questions_than_the_world_holds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds only"):
        generate(tmp_path, seed=0, rows=5, reference_rows=5, questions=250, documents=1)


def test_noise_reaches_the_tokens(folder):
    """Exactly the tokens of the planted words are labelled, with the space before them and nothing after."""
    rows, _ = read_rows([str(folder / "train.jsonl")], on_bad_row="stop", limit=300)
    tokenizer = build_tokenizer()
    data, bad = tokenize(rows, tokenizer, template="tulu", max_length=512, on_bad_row="stop")
    assert not bad and set(data.kinds) == set(DEFAULT_NOISE)
    for index, row in enumerate(rows):
        place = slice(int(data.offset[index]), int(data.offset[index + 1]))
        ids, code = data.input_ids[place], data.truth[place]
        message = row.messages[-1]
        marked = "".join(tokenizer.decode(ids[code > 0]).split())
        assert marked == "".join("".join(message["content"][s:e].split()) for s, e, _ in message["noise"])


def test_right_options_take_every_place_equally_often(folder):
    index = {
        "winogrande": lambda r: int(r["answer"]) - 1,
        "arc_easy": lambda r: "ABCD".index(r["answerKey"]),
        "arc_challenge": lambda r: "ABCD".index(r["answerKey"]),
        "hellaswag": lambda r: r["label"],
        "logiqa": lambda r: r["label"],
        "mmlu": lambda r: r["answer"],
        "truthfulqa_mc2": lambda r: r["mc2_targets"]["labels"].index(1),
        "agieval": lambda r: r["gold"],
    }
    for name, place in index.items():
        counts = Counter(place(row) for row in lines(folder / "benchmarks" / name / "test.jsonl"))
        choices = CHOICES.get(name, 4)
        assert [counts[i] for i in range(choices)] == [120 // choices] * choices, name


def test_questions_are_different_and_options_too(folder):
    for path in sorted((folder / "benchmarks").rglob("test.jsonl")):
        rows = [{k: v for k, v in row.items() if k != "id"} for row in lines(path)]
        assert len({json.dumps(row) for row in rows}) == len(rows)
        for row in rows:
            for options in (row.get("options"), row.get("endings"), row.get("choices")):
                assert not isinstance(options, list) or len(set(options)) == len(options)


def test_guessing_the_commonest_answer_gains_little(folder):
    """A value that is true of many entities would let a model score without knowing any of them."""
    for name, share in (("triviaqa", 0.2), ("arc_easy", 0.2), ("arc_challenge", 0.25)):
        rows = lines(folder / "benchmarks" / name / "test.jsonl")
        if name == "triviaqa":
            golds = Counter(row["answer"]["value"] for row in rows)
        else:
            golds = Counter(row["choices"]["text"]["ABCD".index(row["answerKey"])] for row in rows)
        assert golds.most_common(1)[0][1] / len(rows) < share, (name, golds.most_common(2))


def test_benchmarks_table_names_every_skill(root):
    table = {b.name: b for b in load_benchmarks(root / "sstoken" / "world" / "benchmarks.tsv")}
    assert set(table) == set(SKILLS)
    published = {b.name: b for b in load_benchmarks(root / "sstoken" / "evaluation" / "benchmarks.tsv")}
    for name, ours in table.items():
        paper = published[name]
        assert (ours.shots, ours.metric, ours.column) == (paper.shots, paper.metric, f"{paper.column}-mini")
