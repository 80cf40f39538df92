"""Every point where release and paper differ, row by row: what each track does, in numbers worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch

from sstoken.data import token_data
from sstoken.experiment.config import check_config, load_config
from sstoken.experiment.grid import Grid
from sstoken.models.load import Weights
from sstoken.report.published import deviations, deviations_page
from sstoken.selection import attention_mass, keep_top
from sstoken.selection.methods import full, load_method
from sstoken.tasks.tydiqa.utils import PASSAGE_TOKENS
from sstoken.training.collate import PackedCollator
from sstoken.training.dataset import EvenDataset, SelectionDataset, fixed_mask
from sstoken.training.history import History
from sstoken.training.objective import choose, items
from sstoken.training.setup import known_signals, method_of_part, part_of, training_arguments
from tests.byte_models import byte_tokenizer
from tests.conftest import ragged_tokens, tiny_model
from tests.trainers import adapter_of, trainer_for

HISTORY = [[3.0, 2.0, 4.0, 1.0, 2.5], [2.0]]
CURRENT = [[2.0, 2.5, 1.0, 0.5, 2.0], [1.5]]  # REL: 1, -0.5, 3, 0.5, 0.5 and 0.5
MASS = [[0.9, 0.8, 0.1, 0.2, 0.3], [0.4]]


def batch_for(method, positions=(0, 1), **stored):
    """One sample of two prompt and five response tokens, one of one and one."""
    samples = []
    for row, (prompt, response) in enumerate([(2, 5), (1, 1)]):
        sample = {"input_ids": torch.arange(prompt + response), "position": positions[row]}
        sample["response_mask"] = torch.tensor([False] * prompt + [True] * response)
        samples.append(sample | {name: torch.tensor(value[row]) for name, value in stored.items()})
    return PackedCollator.of(method)(samples)


def flat(rows):
    return torch.tensor([value for row in rows for value in row])


def mass_of(rows):
    """At every position of the packed row; what stands at a prompt's is read by nobody."""
    return torch.tensor([9.0, 9.0, *rows[0], 9.0, *rows[1]])


def choice_of(method, **options):
    return choose(method, batch_for(method, history_loss=HISTORY, **options), loss=flat(CURRENT), mass_N=mass_of(MASS))


def grid_of(root, **changes):
    config = {"experiment": "x", "models": ["tiny-llama"], "methods": ["full"], "benchmarks": ["arc_easy"]}
    config |= {"data": {"train": {"sources": ["rows.jsonl"]}}, "benchmarks_data": "rows"}
    return Grid(check_config(config | changes, ["test"]))


def test_the_list_is_complete_and_the_page_is_made_of_it(root):
    """The rows of the specification's table in our words, and what a reading of the releases adds."""
    walked = {
        "early-steps", "normalisation", "rho1", "random", "prompt", "clipping", "rho1-ranking", "tydiqa", "attention",
        "history", "evaluation",
    }  # fmt: skip
    own = {
        "normalisation-others", "precision", "rel-sign", "chain", "batch", "runs", "rows", "turn-newline", "rotary",
        "last-steps", "baselines", "tydiqa-stop", "evaluation-precision", "seed",
    }  # fmt: skip
    assert set(deviations()) == walked | own
    for row in walked | own:
        assert callable(globals().get(f"test_{row.replace('-', '_')}")), f"{row} has no test here"
    assert (root / "docs" / "deviations.md").read_text() == deviations_page()
    assert "docs/deviations.md" in (root / "README.md").read_text()


def test_early_steps():
    rel = [(1 + 0.5) / 3.5, 0.0, 1.0, 1 / 3.5, 1 / 3.5]
    both = [0.5 * r + 0.5 * m for r, m in zip(rel, MASS[0], strict=True)]
    corrected = choice_of(load_method("sstoken"))
    assert corrected.score_R[:5].tolist() == pytest.approx(both, abs=1e-6)
    published = load_method("sstoken", track="as_published")
    assert choice_of(published, positions=(9_999, 1)).score_R[:5].tolist() == pytest.approx(MASS[0])
    assert choice_of(published, positions=(10_000, 1)).score_R[:5].tolist() == pytest.approx(both, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "track", "kept", "other"),
    [
        ("sstoken", "corrected", 1 / 3 / 2, 1 / 2),  # Eq. 11: each sample's mean over its 3 and 1 kept tokens
        ("sstoken-tokens", "corrected", 1 / 4, 1 / 4),
        ("sstoken", "as_published", 1 / 4, 1 / 4),
        ("full", "corrected", 1 / 6, 1 / 6),
        ("full-per-sample", "corrected", 1 / 5 / 2, 1 / 2),
        ("full", "as_published", 1 / 6, 1 / 6),
    ],
)
def test_normalisation(name, track, kept, other):
    method = load_method(name, track=track)
    batch = batch_for(method, history_loss=HISTORY)
    choice = choose(method, batch, loss=flat(CURRENT), mass_N=mass_of(MASS))
    weight = choice.weight_R / items(method, [batch])
    assert weight[:5][choice.keep_R[:5]].tolist() == pytest.approx([kept] * int(choice.keep_R[:5].sum()))
    assert weight[5].item() == pytest.approx(other)


def test_normalisation_over_two_micro_batches():
    """3 + 1 kept tokens in one micro-batch, 3 + 1 in another with the loss of the first sample doubled."""
    losses = [flat(CURRENT), flat([[2 * x for x in CURRENT[0]], CURRENT[1]])]
    kept = [0, 1, 2]  # of the first sample, whose scores are .66 .40 .55 .24 .29
    totals = {}
    for name, track in [("sstoken", "corrected"), ("sstoken-tokens", "corrected"), ("sstoken", "as_published")]:
        method = load_method(name, track=track)
        batch = batch_for(method, (20_000, 20_001), history_loss=HISTORY)
        weight = choose(method, batch, loss=flat(CURRENT), mass_N=mass_of(MASS)).weight_R
        totals[name, track] = sum(float((weight * loss).sum()) for loss in losses) / items(method, [batch, batch])
    first = sum(CURRENT[0][k] for k in kept)
    assert totals["sstoken", "corrected"] == pytest.approx((first / 3 + 1.5 + 2 * first / 3 + 1.5) / 4)
    mean = (first + 1.5 + 2 * first + 1.5) / 8
    assert totals["sstoken-tokens", "corrected"] == pytest.approx(mean)
    assert totals["sstoken", "as_published"] == pytest.approx(mean)  # as many kept tokens in both: the means agree


def test_normalisation_others():
    """Three kept tokens of loss 1 in one micro-batch, one of loss 5 in the other: 8 / 4 over all, (3 / 3 + 5) / 2 of means."""
    found = {}
    for name in ("full", "random", "rho1", "tokencleaning-fixed"):
        for track, expected in (("corrected", "tokens"), ("as_published", "micro-batch")):
            assert load_method(name, track=track).normalisation == expected
    for track in ("corrected", "as_published"):
        method = load_method("full", track=track)
        batches = []
        for responses in (3, 1):
            sample = {"input_ids": torch.arange(1 + responses), "position": 0}
            sample["response_mask"] = torch.tensor([False] + [True] * responses)
            batches.append(PackedCollator.of(method)([sample]))
        losses = [torch.ones(3), torch.tensor([5.0])]
        sums = [float((choose(method, b, loss=x).weight_R * x).sum()) for b, x in zip(batches, losses, strict=True)]
        found[track] = sum(sums) / items(method, batches)
    assert found == pytest.approx({"corrected": 2.0, "as_published": 3.0})


def test_rel_sign():
    """History minus current: what the model has learnt most comes first; the other way round keeps the opposite."""
    rel = [1.0, -0.5, 3.0, 0.5, 0.5]
    method = load_method("self-modulated")
    choice = choose(method, batch_for(method, history_loss=HISTORY), loss=flat(CURRENT), mass_N=mass_of(MASS))
    assert choice.score_R[:5].tolist() == pytest.approx([(r + 0.5) / 3.5 for r in rel], abs=1e-6)
    assert choice.keep_R[:5].tolist() == [True, False, True, True, False]  # of two equal ones the earlier
    turned = choose(method, batch_for(method, history_loss=CURRENT), loss=flat(HISTORY), mass_N=mass_of(MASS))
    assert turned.keep_R[:5].tolist() == [False, True, False, True, True]


def test_chain():
    """Twelve samples in five parts of 2, 2, 3, 2 and 3; the first trains in full, the others by what the part before left."""
    data, method = ragged_tokens(12), load_method("tokencleaning-self-evolving")
    signals = {"base_loss": torch.arange(int(data.response_offset[-1]), dtype=torch.float32)}
    parts = [part_of(data, signals, method, part) for part in range(method.parts)]
    assert [len(part) for part, _ in parts] == [2, 2, 3, 2, 3]
    assert torch.cat([own["base_loss"] for _, own in parts]).equal(signals["base_loss"])
    first, second = method_of_part(method, 0), method_of_part(method, 1)
    assert (first.keep_ratio, type(first.scorer)) == (1.0, full.Config)
    assert (second.reference, second.keep_ratio) == ("previous", 0.6)


def test_batch(root, tmp_path):
    settings = grid_of(root).training
    assert (settings.micro_batch_size, settings.accumulation) == (3, 2)
    for processes in (1, 2):  # more devices share the same batch, they do not enlarge it
        arguments = training_arguments(settings, tmp_path, 0, "cpu", processes)
        assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * processes == 6


def test_runs(root):
    """Several seeds by default; what one run cannot show, the intervals, is tested in test_statistics.py by numbers."""
    for name in ("config", "paper"):
        assert len(load_config(root / "config" / f"{name}.yaml", instruct_data="rows")["seeds"]) >= 3


def test_rho1():
    stored = {"reference_loss": [[1.0, 1.0, 1.0, 1.0, 1.0], [1.0]], "base_loss": HISTORY}
    method = load_method("rho1")
    choice = choose(method, batch_for(method, **stored), loss=flat(CURRENT))
    assert choice.score_R.tolist() == pytest.approx([1.0, 1.5, 0.0, -0.5, 1.0, 0.5])  # current minus reference
    assert choice.keep_R.tolist() == [True, True, False, False, True, True]
    data = ragged_tokens(20)
    signals = {n: torch.rand(int(data.response_offset[-1])) for n in ("base_loss", "reference_loss")}
    masks = {
        (name, track): fixed_mask(load_method(name, track=track), SelectionDataset(data, signals))
        for name, track in [
            ("rho1", "as_published"),
            ("tokencleaning-fixed", "as_published"),
            ("rho1-static", "corrected"),
        ]
    }
    published, fixed, static = masks.values()
    assert torch.equal(published, fixed) and not torch.equal(static, fixed)


def test_rho1_ranking():
    """REL as excess loss: 1, 1.5, 0, -0.5, 1 and 0.5, of which the sample keeps 3 + 1, the micro-batch ceil(3.6)."""
    stored = {"reference_loss": [[1.0, 1.0, 1.0, 1.0, 1.0], [1.6]]}
    keeps = {}
    for name in ("rho1", "rho1-batch"):
        method = load_method(name)
        keeps[name] = choose(method, batch_for(method, **stored), loss=flat(CURRENT)).keep_R.tolist()
    assert keeps["rho1"] == [True, True, False, False, True, True]
    assert keeps["rho1-batch"] == [True, True, True, False, True, False]  # -0.1 is the fifth


def test_random():
    data = ragged_tokens(20)
    draws = {
        (track, seed): known_signals(data, load_method("random", track=track), seed, "here")["uniform"]
        for track in ("corrected", "as_published")
        for seed in (1, 42)
    }
    assert torch.equal(draws["as_published", 1], draws["as_published", 42])
    assert torch.equal(draws["as_published", 1], draws["corrected", 42])
    assert not torch.equal(draws["corrected", 1], draws["corrected", 42])


def test_prompt():
    """Two turns: U U | A A A | U | A A.  Three positions are not response, so the release ranks the last five: A A U A A.

    Kept are ceil(0.6 · 5) = 3 of them.  The prompt U between them has REL 0 and takes part in min-max and ranking.
    """
    mask = [False, False, True, True, True, False, True, True]
    history, current = [9.0, 3.0, 1.0, 2.0, 4.0], [1.0, 1.0, 2.0, 2.5, 1.0]
    sample = {"input_ids": torch.arange(8), "response_mask": torch.tensor(mask), "position": 20_000}
    sample |= {"history_loss": torch.tensor(history)}
    masses = torch.tensor([9.0, 9.0, 0.7, 0.1, 0.3, 0.95, 0.2, 0.6])
    keeps, scores = {}, {}
    for track in ("corrected", "as_published"):
        method = load_method("sstoken", track=track)
        batch = PackedCollator.of(method)([sample])
        assert batch["prompt_N"].tolist() == (
            [not m for m in mask] if track == "corrected" else [True] * 3 + [False] * 5
        )
        choice = choose(method, batch, loss=torch.tensor(current), mass_N=masses)
        keeps[track], scores[track] = choice.keep_R.tolist(), choice.score_R.tolist()
    # corrected: REL 8 2 -1 -0.5 3 over all five response tokens
    own = [0.5 * (r + 1) / 9 + 0.5 * m for r, m in zip([8, 2, -1, -0.5, 3], [0.7, 0.1, 0.3, 0.2, 0.6], strict=True)]
    assert scores["corrected"] == pytest.approx(own, abs=1e-6)
    assert keeps["corrected"] == [True, True, False, False, True]
    # as published: REL of A A U A A is 2 -1 0 -0.5 3; the first response token is kept unranked, U takes one of three places
    own = [0.5 * (r + 1) / 4 + 0.5 * m for r, m in zip([2, -1, 0, -0.5, 3], [0.1, 0.3, 0.95, 0.2, 0.6], strict=True)]
    assert [scores["as_published"][i] for i in (1, 2, 3, 4)] == pytest.approx([own[i] for i in (0, 1, 3, 4)], abs=1e-6)
    assert sorted(range(5), key=lambda i: -own[i])[:3] == [4, 2, 0]
    assert keeps["as_published"] == [True, True, False, False, True]
    assert scores["as_published"][0] == math.inf


def test_clipping(root, tmp_path):
    found = {track: grid_of(root, track=track).training for track in ("corrected", "as_published")}
    assert {track: training_arguments(s, tmp_path, 0, "cpu").max_grad_norm for track, s in found.items()} == {
        "corrected": 1.0, "as_published": 0,
    }  # fmt: skip
    steps = {}
    for norm in (0.0, 0.001):  # the first step of plain gradient descent is as long as the gradient, or as the bound
        options = {"max_steps": 1, "learning_rate": 1.0, "optim": "sgd", "max_grad_norm": norm}
        trainer = trainer_for("full", ragged_tokens(8), tmp_path, args=options)
        before = adapter_of(trainer)
        trainer.train()
        after = adapter_of(trainer)
        steps[norm] = sum(float(((after[name] - before[name]) ** 2).sum()) for name in before) ** 0.5
    assert steps[0.001] == pytest.approx(0.001, rel=1e-3) and steps[0.0] > 0.01
    own = grid_of(root, track="as_published", training={"max_grad_norm": 0.5})
    assert own.training.max_grad_norm == 0.5  # what the configuration says stands
    assert grid_of(root, track="as_published").training_section["max_grad_norm"] == 0


def test_attention():
    """Two heads, one prompt position, one response token: softmax([0, 1]) and softmax([0, 0]) on the prompt."""
    query = torch.tensor([[[[0.0], [1.0]], [[0.0], [0.0]]]])
    key = torch.tensor([[[[0.0], [1.0]]]])
    mass = attention_mass(query, key, torch.tensor([[True, False]]), scale=1.0)
    assert mass[0, 1].item() == pytest.approx((1 / (1 + math.e) + 0.5) / 2)


def test_history():
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(1.0)
    ema = History(replace(load_method("self-modulated"), history="ema", history_decay=0.9), module)
    module.weight.data.fill_(2.0)
    ema.follow(module, 1)
    assert ema.weights["weight"].item() == pytest.approx(0.9 * 1 + 0.1 * 2)
    assert not History(load_method("self-modulated"), module)  # frozen by default


def test_evaluation(root):
    found = {track: grid_of(root, track=track).evaluation for track in ("corrected", "as_published")}
    assert (found["corrected"]["add_bos"], found["corrected"]["limit_fraction"]) == (None, None)
    assert (found["as_published"]["add_bos"], found["as_published"]["limit_fraction"]) == (False, 0.99)


def test_tydiqa(root):
    """Nine languages, one shot, instructions of our own wording: said, because a score can not show it."""
    languages = [p for p in (root / "sstoken" / "tasks" / "tydiqa").glob("*.yaml") if p.name != "tydiqa.yaml"]
    assert len(languages) == 9
    assert "of our own wording" in deviations()["tydiqa"]["here"]


def test_tydiqa_stop(root):
    task = (root / "sstoken" / "tasks" / "tydiqa" / "_language").read_text()
    assert 'until: ["\\n"]' in task
    assert PASSAGE_TOKENS == 512


def test_evaluation_precision(root):
    for track in ("corrected", "as_published"):
        evaluation = grid_of(root, track=track).evaluation
        assert (evaluation["dtype"], evaluation["batch_size"]) == ("bfloat16", 8)


def test_rows(root):
    for track in ("corrected", "as_published"):
        config = load_config(root / "config" / "paper.yaml", track=track)
        data = config["data"]
        assert data["train"]["limit"] == 49_500 and data["heldout"]["skip"] == 49_500
        assert (data["reference"]["limit"], data["reference"]["shuffle_seed"]) == (10_000, 42)
        assert config["text"]["on_bad_row"] == "drop"


def test_turn_newline():
    """Turns end in ``</s>`` and a new line: what is trained on ends with the first."""
    tokenizer = byte_tokenizer(pad_token="</s>")
    tokenizer.chat_template = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{{ '\\n' }}{% endfor %}"
    turns = [{"role": role, "content": text} for role, text in [("user", "q"), ("assistant", "a")] * 2]
    data = token_data([{"messages": turns}], tokenizer, max_length=1000)
    assert tokenizer.decode(data.input_ids[data.response_mask]) == "a</s>a</s>"


def test_rotary(tmp_path):
    """Weights are loaded in bfloat16; frequencies are not rounded with them."""
    tiny_model().save_pretrained(tmp_path)
    loaded = Weights(tmp_path).load(dtype="bfloat16")
    assert loaded.lm_head.weight.dtype == torch.bfloat16
    assert loaded.model.rotary_emb.inv_freq.dtype == torch.float32


def test_last_steps():
    even = EvenDataset(SelectionDataset(ragged_tokens(5)), 4)
    assert [even[row]["position"] for row in range(len(even))] == [0, 1, 2, 3, 4, -1, -1, -1]
    assert not any(even[row]["response_mask"].any() for row in (5, 6, 7))


def test_baselines():
    """A mask alone: nothing of ssToken's is measured for them."""
    for name in ("random", "tokencleaning-fixed"):
        assert not {"loss", "history_loss", "attention_mass"} & set(load_method(name, track="as_published").needs)


def test_seed(root):
    grid = Grid(load_config(root / "config" / "paper.yaml"))
    assert grid.seeds == [0, 1, 2]
    assert {grid.reference_seed(seed) for seed in grid.seeds} == {0}


def test_precision():
    """Near 16, bfloat16's steps are 0.125: two tokens 0.02 apart rank by their order in the row, not by their losses."""
    from sstoken.selection import token_loss

    hidden = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.bfloat16)
    projection = torch.tensor([[-16.0, -0.02], [0.0, 0.0]], dtype=torch.bfloat16)
    loss = token_loss(hidden, projection, torch.tensor([0, 0]))
    assert (loss[1] - loss[0]).item() == pytest.approx(0.02, abs=1e-3)
    rounded = (hidden @ projection.T).float().log_softmax(-1)[:, 0].neg()
    assert rounded[0] == rounded[1]
    both = torch.ones(1, 2, dtype=torch.bool)
    assert keep_top(loss[None], both, 0.5).tolist() == [[False, True]]
    assert keep_top(rounded[None], both, 0.5).tolist() == [[True, False]]
