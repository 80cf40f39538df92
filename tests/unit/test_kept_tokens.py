"""Which tokens are kept: counted one by one, and shown as text, JSON lines and a page."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from sstoken.data import TokenData
from sstoken.experiment.config import load_config
from sstoken.experiment.grid import Grid
from sstoken.report import show_run
from sstoken.report.kept_tokens import kept_tokens, token_kind
from sstoken.report.results import Results
from sstoken.report.samples import token_texts
from tests.byte_models import byte_tokenizer
from tests.report_case import facts

PIECES = ["<|user|>", "Ġwhat", "Ġis", "Ġthe", "Ġboat", "ly", "Ġ12", ".", "Ċ", "Ġ<b>", "</s>"]
LY = PIECES.index("ly")


def tokenizer_of():
    tokenizer = Tokenizer(models.BPE(vocab={piece: n for n, piece in enumerate(PIECES)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


@pytest.fixture
def case(tmp_path):
    """40 samples, the last 4 never trained on. rho1 keeps at random, sstoken drops "ly" alone, full nothing."""
    draw, samples = np.random.default_rng(0), 40
    ids, mask, offset = [], [], [0]
    for _ in range(samples):
        length = int(draw.integers(3, 30))
        ids += [0, 1, *draw.integers(2, 10, length).tolist(), 10]
        mask += [False, False, *[True] * (length + 1)]
        offset.append(len(ids))
    truth = torch.tensor(draw.integers(0, 2, len(ids)), dtype=torch.uint8)
    names = tuple(f"row-{n}" for n in range(samples))
    ids, offset, mask = torch.tensor(ids, dtype=torch.int32), torch.tensor(offset), torch.tensor(mask)
    data = TokenData(ids, offset, mask, names, truth, ("wrong",))
    data.save(tmp_path / "tokens" / "small-llama" / "train.safetensors")
    model = tmp_path / "models" / "small-llama"
    model.mkdir(parents=True)
    tokenizer_of().save(str(model / "tokenizer.json"))
    response = data.input_ids[data.response_mask]
    keeps = {"rho1": torch.tensor(draw.random(len(response)) < 0.7), "sstoken": response != LY, "full": response >= 0}
    step = torch.arange(samples, dtype=torch.int32)
    step[-4:] = -1
    untrained = int(data.response_offset[-5])
    for method, keep in keeps.items():
        keep[untrained:] = False
        folder = tmp_path / "runs" / "small-llama" / method / "seed0"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text('{"counted": {"response_tokens": 2, "kept_tokens": 1}}')
        score = torch.arange(len(keep)) / 8.0
        score[untrained:] = float("nan")
        arrays = {"score": score, "keep": keep, "step": step, "offset": data.response_offset}
        save_file(arrays, folder / "selection.safetensors", metadata={"tokens_sha256": data.sha256})
    return tmp_path, data, keeps


def test_shares_are_those_counted_token_by_token(case):
    root, data, keeps = case
    found = kept_tokens(Results(root, facts()), "small-llama")
    assert found.methods == ["rho1", "sstoken"], "what keeps every token has nothing to show"
    seen, places = {}, {}
    for index in range(36):
        start, sample = int(data.response_offset[index]), data.sample(index)
        ids = sample["input_ids"][sample["response_mask"]].tolist()
        for place, token in enumerate(ids):
            kept = bool(keeps["rho1"][start + place])
            seen.setdefault(token, []).append(kept)
            places.setdefault(place * 10 // len(ids) + 1, []).append(kept)
    assert found.tokens == sum(map(len, seen.values()))
    assert found.kept["rho1"] == pytest.approx(np.mean([kept for each in seen.values() for kept in each]))
    assert found.positions["rho1"].to_dict() == pytest.approx({at: np.mean(kept) for at, kept in places.items()})
    often = {token: kept for token, kept in seen.items() if len(kept) >= 20}
    ranked = sorted(often, key=lambda token: (np.mean(often[token]), -len(often[token])))
    for lists, tokens in ((found.dropped_most, ranked), (found.kept_most, ranked[::-1])):
        expected = [(len(often[token]), pytest.approx(np.mean(often[token]))) for token in tokens[: len(often) // 2]]
        assert [(extreme.count, extreme.kept) for extreme in lists["rho1"]] == expected
    assert found.dropped_most["sstoken"][0].text == "ly" and found.dropped_most["sstoken"][0].kept == 0
    assert found.kept_most["sstoken"][0].kept == 1 and "ly" not in {
        extreme.text for extreme in found.kept_most["sstoken"]
    }
    kinds = found.kinds["tokens"]
    assert kinds["special"] == 36 and kinds["punctuation"] == len(seen[7]) and kinds.sum() == found.tokens
    assert found.kinds.loc["word or part without a space"]["sstoken"] == 0


def test_overlap_is_the_share_of_the_rows_drops_that_the_column_drops(case):
    root, data, keeps = case
    end = int(data.response_offset[36])
    rho1, sstoken = (~keeps[name][:end].numpy() for name in ("rho1", "sstoken"))
    overlap = kept_tokens(Results(root, facts()), "small-llama").overlap
    assert overlap.loc["rho1", "sstoken"] == pytest.approx((rho1 & sstoken).sum() / rho1.sum())
    assert overlap.loc["sstoken", "rho1"] == pytest.approx((rho1 & sstoken).sum() / sstoken.sum())
    assert overlap.loc["rho1", "rho1"] == 1


def test_tokens_are_told_apart_by_their_characters():
    kinds = [token_kind(token, tokenizer_of()) for token in range(2, 11)]
    after, without = "word after a space", "word or part without a space"
    assert kinds == [after, after, after, without, "number", "punctuation", "white space", after, "special"]


def arguments(root, method="sstoken"):
    run = root / "runs" / "small-llama" / method / "seed0"
    return run, root / "tokens" / "small-llama" / "train.safetensors", root / "models" / "small-llama"


def test_text_marks_what_was_dropped_and_loses_nothing(case):
    root, data, keeps = case
    first, second = show_run(*arguments(root), ids=["row-3", "row-1"]).split("\n\nrow-1: ")
    start, stop = data.response_offset[3:5].tolist()
    assert first.startswith(f"row-3: kept {int(keeps['sstoken'][start:stop].sum())} of {stop - start} response tokens")
    truth = data.truth[data.response_mask][start:stop] > 0
    dropped = int((truth & ~keeps["sstoken"][start:stop].bool()).sum())
    assert f"; dropped {dropped} of {int(truth.sum())} noise tokens (" in first.splitlines()[0]
    response = first.partition("<|user|> what\n")[2]
    whole = tokenizer_of().decode(data.sample(3)["input_ids"][2:].tolist(), skip_special_tokens=False)
    assert re.sub(r"\[-|-\]", "", response).rstrip("\n") == whole.rstrip("\n")
    dropped = re.findall(r"\[-(.*?)-\]", first + second, re.DOTALL)
    assert dropped and set("".join(dropped).split("ly")) == {""}
    assert "ly" not in re.sub(r"\[-.*?-\]", "", response, flags=re.DOTALL)


def test_lines_hold_every_token_with_its_score_and_noise(case):
    root, data, keeps = case
    rows = [json.loads(line) for line in show_run(*arguments(root, "rho1"), format="jsonl").splitlines()]
    assert [row["id"] for row in rows] == [f"row-{n}" for n in range(36)], "what was never trained on is left out"
    tokens = [token for row in rows for token in row["tokens"]]
    assert [token["kept"] for token in tokens] == keeps["rho1"][: len(tokens)].tolist()
    assert [token["score"] for token in tokens] == [n / 8 for n in range(len(tokens))]
    assert [token["id"] for token in tokens] == data.input_ids[data.response_mask][: len(tokens)].tolist()
    codes = data.truth[data.response_mask][: len(tokens)]
    assert [token["noise"] for token in tokens] == [["", "wrong"][code] for code in codes]
    (row,) = map(json.loads, show_run(*arguments(root), ids=["row-39"], format="jsonl").splitlines())
    assert row["kept_tokens"] == 0 and {token["score"] for token in row["tokens"]} == {None}
    assert "row-39: never trained on" in show_run(*arguments(root), ids=["row-39"])


def test_the_page_escapes_what_the_rows_hold(case):
    root, *_ = case
    page = show_run(*arguments(root), format="html")
    assert "&lt;b&gt;" in page and "<b>" not in page and page.count("<del") > 10
    assert "http" not in page and "<script" not in page


@pytest.mark.parametrize(
    "change, message",
    [
        ("sample", "no sample 'row-99' among its 40; ids look like row-0"),
        ("format", "choose one of text, jsonl, html"),
        ("run", "give the folder of a finished run"),
        ("tokens", "was trained on other tokens"),
        ("tokenizer", "give a tokenizer.json"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(case, change, message):
    root, data, _ = case
    run, tokens, tokenizer = arguments(root)
    if change == "tokens":
        data.slice(0, 39).save(tokens)
    ids, format = ["row-99"] if change == "sample" else None, "pdf" if change == "format" else "text"
    run, tokenizer = run.parent if change == "run" else run, root if change == "tokenizer" else tokenizer
    with pytest.raises(ValueError, match=message) as error:
        show_run(run, tokens, tokenizer, ids, format)
    assert "\n" not in str(error.value)


def test_six_lines_of_python_read_the_file(case, root, monkeypatch):
    """Those of docs/how-to/read-what-was-kept.md, as they stand there."""
    folder, *_ = case
    text = (root / "docs" / "how-to" / "read-what-was-kept.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line]) == 6
    (folder / "results").mkdir()
    (folder / "results" / "world").symlink_to(folder)
    monkeypatch.chdir(folder)
    found: dict = {}
    named = re.search(r'load_file\("(results/world/tokens/[^"]*)"', code)[1]
    grid = Grid(load_config(root / "config" / "config.yaml"))
    assert Path(named) == grid.tokens("world-llama-small", "train", 0)  # the default experiment's own
    code = code.replace(named, "results/world/tokens/small-llama/train.safetensors")
    exec(code.replace("world-llama-small", "small-llama"), found)
    assert len(found["dropped"]) > 5 and set(found["dropped"].tolist()) == {LY}
    assert found["share"] == pytest.approx(1 - len(found["dropped"]) / found["trained"].sum())


@pytest.mark.parametrize("text", ["a 日本 b", "né", "😀😀 x", "plain", "日", "\N{REPLACEMENT CHARACTER} real"])
def test_a_character_of_several_tokens_is_shown_once_and_whole(text):
    tokenizer = byte_tokenizer().backend_tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    texts = token_texts(ids, tokenizer)
    assert len(texts) == len(ids) and "".join(texts) == tokenizer.decode(ids, skip_special_tokens=False)
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in texts) or "\N{REPLACEMENT CHARACTER}" in text


def test_a_token_file_that_is_not_there_is_named_with_its_neighbours(case):
    root, *_ = case
    run, tokens, model = arguments(root)
    with pytest.raises(ValueError, match=r"train.seed7.safetensors: no such file; beside it are train.safetensors$"):
        show_run(run, tokens.with_name("train.seed7.safetensors"), model)
