"""TyDiQA as the papers ask it: rows, example, passage, prompt, F1."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest
from datasets import Dataset

from sstoken.evaluation import EvaluationError, evaluate
from sstoken.records.files import sha256_file
from sstoken.tasks import prompt_tokenizer
from sstoken.tasks.tydiqa import utils as tydiqa
from tests.unit.evaluation.conftest import SETTINGS, TYDIQA, write


def test_f1_is_squads():
    assert tydiqa.f1("The cat, sat!", "a cat sat") == 1
    assert tydiqa.f1("in 1994", "1994") == pytest.approx(2 / 3)
    assert tydiqa.f1("cat cat", "cat dog bird") == pytest.approx(0.4)
    assert tydiqa.f1("", "x") == tydiqa.f1("the", "a") == 0
    doc = {"answers": {"text": ["blue whale", "whale"]}}
    assert tydiqa.process_results(doc, [" whale\n"]) == {"f1": 1.0, "exact_match": 1.0}


def test_at_most_200_a_language_by_one_generator_over_languages():
    sizes = {name: 150 if name == "bengali" else 203 + i for i, name in enumerate(tydiqa.LANGUAGES)}
    rows = Dataset.from_list([{"id": f"{name}-{i}", "context": ""} for name, n in sizes.items() for i in range(n)])
    random.seed(42)
    for name, n in sizes.items():
        ids = [f"{name}-{i}" for i in range(n)]
        expected = random.sample(ids, 200) if n > 200 else ids
        assert getattr(tydiqa, name)(rows)["id"][:] == expected


def test_the_example_is_of_the_same_language_or_english():
    rows = Dataset.from_list([{"id": f"{name}-{i}", "context": ""} for name in ("english", "korean") for i in range(5)])
    assert tydiqa.korean_shot(rows)["id"][0].startswith("korean")
    assert tydiqa.swahili_shot(rows)["id"][0].startswith("english")
    assert len(tydiqa.korean_shot(rows)) == 1
    with pytest.raises(ValueError, match="neither swahili nor English"):
        tydiqa.swahili_shot(rows.filter(lambda row: row["id"].startswith("korean")))


def test_the_example_comes_from_the_generator_that_drew_the_questions():
    """The release's order, spelt out: all languages' questions, then an example of each, one stream."""
    sizes = dict(zip(tydiqa.LANGUAGES, tydiqa.QUESTIONS, strict=True))
    train = {name: [f"{name}-train-{i}" for i in range(7 + 3 * n)] for n, name in enumerate(sizes)}
    random.seed(42)
    questions = {name: list(range(n)) for name, n in sizes.items()}
    drawn = {name: random.sample(ids, 200) if len(ids) > 200 else ids for name, ids in questions.items()}
    expected = {name: random.sample(ids, 1)[0] for name, ids in train.items()}
    rows = Dataset.from_list([{"id": name, "context": ""} for ids in train.values() for name in ids])
    assert {name: getattr(tydiqa, f"{name}_shot")(rows)["id"][0] for name in sizes} == expected
    validation = [{"id": f"{name}-{i}", "context": ""} for name, ids in questions.items() for i in ids]
    assert tydiqa.telugu(Dataset.from_list(validation))["id"][:] == [f"telugu-{i}" for i in drawn["telugu"]]


def other_wording(path, **changes):
    wording = {
        name: {"instruction": f"Read {name}.", "passage": "P:", "question": "Q:", "answer": "A:"}
        for name in tydiqa.LANGUAGES
    }
    path.write_text(json.dumps(wording | changes))
    return dataclasses.replace(SETTINGS, limit=1, max_gen_toks=1, tydiqa_prompts=str(path))


def test_another_wording_is_taken_from_a_file(model, tokenizer, data, forward_passes):
    settings = other_wording(data / "prompts.yaml")
    result = evaluate(model, tokenizer, [TYDIQA], settings, data_root=data)
    head, example, question = tokenizer.decode(forward_passes[0][0]).split("\n\n")
    assert head == "Read arabic."
    assert example.startswith("P: arabic passage")
    assert question == "P: arabic passage 0, with the answer 0.\nQ: what of 0?\nA:"
    files = result.provenance["benchmarks"]["tydiqa"]["data_files"]
    assert files["tydiqa_prompts"] == sha256_file(data / "prompts.yaml")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"klingon": {}}, "needs the languages arabic, .* has .*klingon"),
        ({"korean": {"instruction": "a"}}, "korean needs the texts answer, instruction, passage, question"),
        ({"korean": dict.fromkeys(("instruction", "passage", "question", "answer"), "{{x}}")}, "holds a brace"),
    ],
)
def test_a_wording_that_is_not_whole_is_refused(model, tokenizer, data, changes, reason):
    with pytest.raises(EvaluationError, match=reason):
        evaluate(model, tokenizer, [TYDIQA], other_wording(data / "prompts.yaml", **changes), data_root=data)


def test_passages_end_after_512_tokens_of_the_model(tokenizer):
    rows = Dataset.from_list([{"id": "telugu-1", "context": "పేరా" * 300}, {"id": "telugu-2", "context": "short"}])
    assert tydiqa.telugu(rows)["context"][:] == rows["context"][:]
    reading = prompt_tokenizer.set(tokenizer)
    long, short = tydiqa.telugu(rows)["context"]
    prompt_tokenizer.reset(reading)
    assert short == "short" and ("పేరా" * 300).startswith(long)
    assert 509 <= len(tokenizer(long)["input_ids"]) <= 515  # a letter of three bytes may straddle the limit


def test_prompt(model, tokenizer, data, forward_passes):
    evaluate(model, tokenizer, [TYDIQA], dataclasses.replace(SETTINGS, limit=1, max_gen_toks=1), data_root=data)
    (ids,) = forward_passes
    head, example, question = tokenizer.decode(ids[0]).split("\n\n")
    assert head.startswith("اقرأ")
    assert example.startswith("الفقرة: arabic passage") and example.split("\n")[2].split(": ")[1] in "012"
    assert question == "الفقرة: arabic passage 0, with the answer 0.\nالسؤال: what of 0?\nالجواب:"


def test_the_models_tokenizer_cuts_example_and_question(model, tokenizer, data, forward_passes):
    rows = [json.loads(line) for line in (data / "tydiqa/train.jsonl").open()]
    for split in ("train", "validation"):
        write(data / f"tydiqa/{split}.jsonl", [row | {"context": "x" * 1200} for row in rows])
    evaluate(model, tokenizer, [TYDIQA], dataclasses.replace(SETTINGS, limit=1, max_gen_toks=1), data_root=data)
    assert tokenizer.decode(forward_passes[0][0]).count("x" * 512 + "\n") == 2
    assert "x" * 513 not in tokenizer.decode(forward_passes[0][0])
