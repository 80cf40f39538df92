"""An audit: full-data training that writes down what every method would have scored, and what is said of that."""

import json
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Gemma2Config, Gemma2ForCausalLM

from sstoken.data import TokenData
from sstoken.experiment.audited import auditable
from sstoken.jobs.explain import explain
from sstoken.records.documents import ConfigError
from sstoken.report.audit import agreement, audit_rows, clustered_auc, directions, dropped_tokens
from sstoken.selection import Scorer
from sstoken.selection.methods import load_methods
from sstoken.training.audit import Auditor, Compass, look
from sstoken.training.collate import PackedCollator
from sstoken.training.dataset import SelectionDataset
from sstoken.training.packing import packed_attention
from tests.conftest import VOCABULARY, ragged_tokens, tiny_adapter, tiny_model
from tests.scorers import MINE
from tests.trainers import adapter_of, largest_difference, signals_for, trainer_for

NAMES = [
    "random",
    "rho1",
    "rho1-static",
    "tokencleaning-fixed",
    "self-modulated",
    "semantic-aware",
    "sstoken",
    "oracle",
    "middle-perplexity",
    "toss",
    "profit",
    "hardest",
]


def audited(data, tmp_path, names=NAMES, **options):
    methods = load_methods()
    dataset = SelectionDataset(data, signals_for(data))
    auditor = Auditor.of([methods[name] for name in names], dataset)
    trainer = trainer_for(auditor.method, data, tmp_path / "audit", **options)
    return auditor, trainer, dataset


def test_the_audit_trains_as_full_data_training_does(tmp_path):
    data = ragged_tokens(24)
    _, trainer, dataset = audited(data, tmp_path)
    trainer.add_callback(
        Compass(trainer.method.scorer, dataset, ragged_tokens(8, seed=5), steps=2, batches=2, batch_size=2)
    )
    trainer.train()
    full = trainer_for(
        replace(load_methods()["full"], normalisation=trainer.method.normalisation), data, tmp_path / "full"
    )
    full.train()
    assert largest_difference(adapter_of(trainer), adapter_of(full)) == 0


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_that_the_methods_own_run_records_at_the_same_weights(tmp_path, name):
    data = ragged_tokens(8, turns=2)
    auditor, trainer, _ = audited(data, tmp_path, args={"max_steps": 1})
    trainer.train()
    own = trainer_for(name, data, tmp_path / name, args={"max_steps": 1})
    own.train()
    for key in ("score", "keep"):
        assert torch.equal(auditor.record[name][key].float(), own.record[key].float()), key


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_at_weights_that_stay_every_step_of_every_method_is_its_own_runs(tmp_path, dropout):
    """With a learning rate of 0 all steps have the same weights, dropout's draws and the compass's looks included."""
    data, args = ragged_tokens(16, turns=2), {"learning_rate": 0.0, "max_steps": 4}

    def model():
        torch.manual_seed(3)
        return tiny_adapter(tiny_model(), dropout=dropout)

    auditor, trainer, dataset = audited(data, tmp_path, args=args, model=model(), micro=2)
    compass = Compass(trainer.method.scorer, dataset, ragged_tokens(8, seed=5), steps=2, batches=2, batch_size=2)
    trainer.add_callback(compass)
    torch.manual_seed(4)
    trainer.train()
    assert len({d.step for d in compass.found}) == 2 and (trainer.record["step"] >= 0).all()
    for name in NAMES:
        own = trainer_for(name, data, tmp_path / name, args=args, model=model(), micro=2)
        torch.manual_seed(4)
        own.train()
        for key in ("score", "keep"):
            assert torch.equal(auditor.record[name][key].float(), own.record[key].float()), (name, key)


def test_static_methods_score_the_same_all_along(tmp_path):
    data = ragged_tokens(24)
    auditor, trainer, _ = audited(data, tmp_path)
    trainer.train()
    for name in ("random", "rho1-static", "tokencleaning-fixed", "oracle"):
        own = trainer_for(name, data, tmp_path / name)
        own.train()
        assert torch.equal(auditor.record[name]["score"], own.record["score"])
        assert torch.equal(auditor.record[name]["keep"], own.record["keep"])


def test_what_one_run_cannot_score_is_named_with_its_reason():
    methods = load_methods()
    asked = [methods[n] for n in ("base", "full", "clean", "sstoken", "tokencleaning-self-evolving")]
    asked += [replace(methods["sstoken"], name="ema", history="ema")]
    asked += [replace(methods["sstoken"], name="early", attention_layer="shallow")]
    asked += [replace(methods["self-modulated"], name="other", history="reference")]
    taken, refused = auditable(asked)
    assert [m.name for m in taken] == ["sstoken"]
    assert set(refused) == {"base", "full", "clean", "tokencleaning-self-evolving", "ema", "early", "other"}
    assert "own chain" in refused["tokencleaning-self-evolving"] and "shallow" in refused["early"]


def capped():
    """Scores are capped after the output projection, and samples lie padded."""
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    torch.manual_seed(0)
    return tiny_adapter(Gemma2ForCausalLM(Gemma2Config(**shape, num_hidden_layers=2, vocab_size=VOCABULARY)).eval())


def adapted_head():
    options = {"target_modules": ["q_proj", "lm_head"], "r": 4, "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    return get_peft_model(tiny_model(), LoraConfig(**options))


@pytest.mark.parametrize("build", [lambda: tiny_adapter(tiny_model()), tiny_model, adapted_head, capped])
def test_the_compass_is_the_cosine_of_two_gradients_taken_by_hand(tmp_path, build):
    """Trained are adapters below the output projection, every weight, adapters of the projection too."""
    data, heldout = ragged_tokens(6), ragged_tokens(4, seed=9)
    model = build()
    auditor, _, dataset = audited(data, tmp_path, ["random", "oracle"], model=model)
    compass = Compass(auditor, dataset, heldout, steps=2, batches=2, batch_size=2)
    with packed_attention(model):
        compass.measure(model, 1, turn=0)
        compass.measure(model, 2, turn=1)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def gradient(samples, of, keep_R=None):
        """Of the mean loss over kept response tokens, sample by sample through the model's own logits."""
        losses = []
        for i in samples:
            sample = of.sample(i)
            ids = sample["input_ids"].long()
            at = sample["response_mask"].nonzero()[:, 0]
            logits = model(input_ids=ids[None]).logits[0, at - 1]
            loss = torch.nn.functional.cross_entropy(logits, ids[at], reduction="none")
            start, stop = of.response_offset[i : i + 2].tolist()
            losses.append(loss if keep_R is None else loss[keep_R[start:stop]])
        found = torch.autograd.grad(torch.cat(losses).mean(), parameters)
        return torch.cat([g.reshape(-1) for g in found])

    model.eval()
    clean = gradient(range(4), heldout)
    draw = torch.Generator().manual_seed(0)
    order = torch.randperm(6, generator=draw).tolist()
    truth = dataset.signals["truth"] == 0
    rows = {(1, 0): order[:2], (1, 1): order[2:4], (2, 0): order[4:], (2, 1): order[:2]}  # other rows at each step
    for (step, number), samples in rows.items():
        for name, keep_R in (("full", None), ("oracle", truth)):
            expected = torch.nn.functional.cosine_similarity(gradient(samples, data, keep_R), clean, dim=0)
            found = [d.cosine for d in compass.found if (d.method, d.step, d.batch) == (name, step, number)]
            assert found == [pytest.approx(float(expected), abs=1e-4)]


def test_the_interval_of_an_auc_holds_with_samples_as_clusters():
    """Coverage of the 95 % interval over draws whose tokens lean the same way within a sample."""
    rng, hits, draws = np.random.default_rng(0), 0, 400
    for _ in range(draws):
        lean = rng.normal(0, 1, 60)
        pairs = rng.integers(1, 30, 60).astype(float)
        chance = 1 / (1 + np.exp(-lean))
        wins = rng.binomial(pairs.astype(int), chance).astype(float)
        _, low, high = clustered_auc(wins, pairs)
        hits += low <= 0.5 <= high
    assert 0.915 <= hits / draws <= 0.98


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_interval_holds_for_a_mix_of_kinds_that_differ(spread):
    """Coverage where each kind has an AUC of its own, samples lean, and long samples have more pairs; some carry two kinds."""
    rng, hits, widths, plain, draws = np.random.default_rng(0), 0, [], [], 400
    level_K1 = np.array([[-1.5], [0.5], [2.0]])
    own_KS = rng.random((3, 90)) < 0.45  # the mix is fixed
    pairs_KS = rng.integers(1, 60, (3, 90)) ** 2 * own_KS
    truth = 0.0
    for _ in range(2000):
        chance = 1 / (1 + np.exp(-(level_K1 + spread * rng.normal(0, 1, 90))))
        truth += (chance * pairs_KS).sum() / pairs_KS.sum() / 2000
    for _ in range(draws):
        chance = 1 / (1 + np.exp(-(level_K1 + spread * rng.normal(0, 1, 90))))
        wins_KS = rng.binomial(pairs_KS, chance).astype(float)
        auc, low, high = clustered_auc(wins_KS, pairs_KS.astype(float))
        assert auc == pytest.approx(wins_KS.sum() / pairs_KS.sum())
        hits += low <= truth <= high
        widths.append(high - low)
        one = clustered_auc(wins_KS.sum(axis=0), pairs_KS.sum(axis=0).astype(float))
        plain.append(one[2] - one[1])
    assert hits / draws >= 0.92
    assert np.mean(widths) < 0.8 * np.mean(plain)


def test_rows_of_perfect_inverted_and_blind_scores():
    data = ragged_tokens(40, prompt=(2, 5), response=(6, 12))
    total = int(data.response_offset[-1])
    truth = torch.zeros(len(data.input_ids), dtype=torch.uint8)
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 3, total).astype(np.uint8)
    truth[data.response_mask] = torch.from_numpy(codes)
    data = TokenData(data.input_ids, data.offset, data.response_mask, data.ids, truth, ("wrong", "boilerplate"))
    step = np.arange(40) // 4
    for score, low, high in ((codes == 0, 1.0, 1.0), (codes > 0, 0.0, 0.0), (rng.random(total), 0.42, 0.58)):
        score = np.asarray(score, dtype=np.float32)
        frame = audit_rows({"score": score, "keep": score > 0.5}, step, data)
        whole = frame[frame["phase"] == "all"].set_index("kind")
        assert (whole["auc"].between(low, high)).all()
        assert set(whole.index) == {"all", "varying", "wrong", "boilerplate", "harm"}
        assert whole.loc["all", "n_tokens"] == (codes > 0).sum()
    assert whole.loc["wrong", "n_tokens"] == (codes == 1).sum()


def test_of_a_kind_in_one_sample_alone_no_interval_is_known_and_none_of_the_mean():
    data = ragged_tokens(30, prompt=(2, 4), response=(8, 9))
    codes = np.tile(np.array([0, 0, 0, 0, 0, 0, 1, 1], dtype=np.uint8), 30)
    codes[-1] = 2
    truth = torch.zeros(len(data.input_ids), dtype=torch.uint8)
    truth[data.response_mask] = torch.from_numpy(codes)
    data = TokenData(data.input_ids, data.offset, data.response_mask, data.ids, truth, ("wrong", "rare"))
    score = np.random.default_rng(0).random(len(codes)).astype(np.float32)
    frame = audit_rows({"score": score, "keep": score > 0.5}, np.zeros(30, dtype=np.int32), data)
    whole = frame[frame["phase"] == "all"].set_index("kind")
    assert whole.loc["wrong", ["low", "high"]].notna().all() and np.isfinite(whole.loc["harm", "auc"])
    assert whole.loc[["rare", "harm"], ["low", "high"]].isna().all(axis=None)


def test_rows_that_are_labelled_and_carry_no_noise_have_no_auc():
    data = ragged_tokens(10)
    truth = torch.zeros(len(data.input_ids), dtype=torch.uint8)
    data = TokenData(data.input_ids, data.offset, data.response_mask, data.ids, truth, ())
    score = np.arange(int(data.response_offset[-1]), dtype=np.float32)
    frame = audit_rows({"score": score, "keep": score > 3}, np.zeros(10, dtype=np.int32), data)
    assert set(frame["kind"]) == {"all", "varying"} and frame["auc"].isna().all() and (frame["n_tokens"] == 0).all()
    assert frame["precision"].dropna().eq(1).all()


def test_a_common_kind_does_not_drown_a_rare_one():
    """A score that finds boilerplate and keeps wrong answers: all noise looks well found, harm does not."""
    data = ragged_tokens(50, prompt=(2, 4), response=(10, 11))
    codes = np.tile(np.array([0, 0, 2, 2, 2, 2, 2, 2, 2, 1], dtype=np.uint8), 50)
    truth = torch.zeros(len(data.input_ids), dtype=torch.uint8)
    truth[data.response_mask] = torch.from_numpy(codes)
    data = TokenData(data.input_ids, data.offset, data.response_mask, data.ids, truth, ("wrong", "boilerplate"))
    score = np.where(codes == 2, 0.0, np.where(codes == 1, 2.0, 1.0)).astype(np.float32)
    frame = audit_rows({"score": score, "keep": score > 0}, np.zeros(50, dtype=np.int32), data)
    whole = frame[frame["phase"] == "all"].set_index("kind")["auc"]
    assert whole["all"] == pytest.approx(7 / 8) and whole["harm"] == pytest.approx(0.5)


def test_methods_that_rank_alike_agree():
    score, sample = np.arange(12.0), np.repeat([0, 1, 2], 4)
    keep = score % 2 == 0
    found = agreement(
        {
            "a": {"score": score, "keep": keep},
            "b": {"score": -score, "keep": ~keep},
            "c": {"score": score**3, "keep": keep},
        },
        sample,
    ).set_index(["method", "other"])
    assert found.loc[("a", "c"), "spearman"] == pytest.approx(1) and found.loc[("a", "c"), "overlap"] == 1
    assert found.loc[("a", "b"), "spearman"] == pytest.approx(-1) and found.loc[("a", "b"), "overlap"] == 0


@dataclass(frozen=True)
class Seen(Scorer):
    """Writes down what it is shown."""

    seen: list = field(default_factory=list)

    @property
    def needs(self):
        return frozenset({"loss", "progress", "entropy", "collision"})

    def score(self, signals):
        self.seen.append(signals)
        return signals.loss


class Watched(Compass):
    def measure(self, *given):
        seen = self.auditor.methods[0].scorer.seen
        before = len(seen)
        super().measure(*given)
        self.progress = [*getattr(self, "progress", []), *(signals.progress for signals in seen[before:])]


def test_the_compass_is_told_how_far_training_is(tmp_path):
    data = ragged_tokens(24)
    dataset = SelectionDataset(data, signals_for(data))
    auditor = Auditor.of([replace(load_methods()["hardest"], scorer=Seen())], dataset)
    trainer = trainer_for(auditor.method, data, tmp_path)
    compass = Watched(auditor, dataset, ragged_tokens(8, seed=5), steps=2, batches=2, batch_size=2)
    trainer.add_callback(compass)
    trainer.train()
    assert compass.progress == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])


def test_a_look_measures_of_the_logits_what_they_say():
    data, model = ragged_tokens(1), tiny_adapter(tiny_model()).eval()
    dataset = SelectionDataset(data, signals_for(data))
    auditor = Auditor.of([replace(load_methods()["hardest"], scorer=Seen())], dataset)
    with packed_attention(model), torch.no_grad():
        _, signals = look(model, PackedCollator()([dataset[0]]), auditor, 8)
    ids, at = data.input_ids.long(), data.response_mask.nonzero()[:, 0]
    logits = model(input_ids=ids[None]).logits[0, at - 1].float()
    top = logits.topk(20).values.softmax(-1)
    for found, expected in (
        (signals.collision, logits.softmax(-1).square().sum(-1)),
        (signals.entropy, -(top * top.log()).sum(-1)),
        (signals.loss, torch.nn.functional.cross_entropy(logits, ids[at], reduction="none")),
    ):
        assert torch.allclose(found[0], expected, atol=1e-5)


def test_directions_are_paired_with_full_by_batch():
    rows = [(m, s, b, c + 0.1 * b) for m, c in (("full", 0.1), ("good", 0.3)) for s in (1, 2) for b in range(4)]
    table = directions(pd.DataFrame(rows, columns=["method", "step", "batch", "cosine"]))
    good = table[(table["method"] == "good") & (table["step"] == "all")].iloc[0]
    assert good["minus_full"] == pytest.approx(0.2)
    assert good["minus_full_high"] - good["minus_full_low"] == pytest.approx(0, abs=1e-9)
    assert good["high"] - good["low"] > 0.1


def test_tokens_seen_too_seldom_are_not_ranked():
    token = np.array(["the"] * 30 + ["rare"] * 3)
    table = dropped_tokens(np.arange(33) % 3 == 0, token)
    assert list(table["token"]) == ["the"] and table["dropped"].iloc[0] == pytest.approx(2 / 3)


@pytest.fixture
def rows(tmp_path):
    turns = [
        {"role": "user", "content": "Where is <b>Adam</b>?"},
        {"role": "assistant", "content": "In \x1b[31mthe</script> town."},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"messages": turns, "id": str(n)}) for n in range(3)))
    return path


def test_explain_shows_what_each_method_would_drop_without_training(rows, tmp_path):
    page = tmp_path / "page.html"
    methods = ["random", "semantic-aware", "sstoken", "rho1", "oracle"]
    text = explain([str(rows)], model="tiny-llama", methods=methods[:4], reference="tiny-qwen2", out=page, limit=2)
    assert text.count("semantic-aware") == 2 and "[-" in text and "REL" in text
    assert text.startswith("[-token-]: dropped\n")
    assert "\x1b" not in text  # a row cannot steer the terminal
    html = page.read_text()
    assert "<del" in html and "&lt;b&gt;" in html.replace(" ", "") and "<b>" not in html


def test_explain_takes_the_file_of_a_scorer_beside_names(rows, tmp_path):
    (tmp_path / "my_idea.py").write_text(MINE)
    text = explain([str(rows)], model="tiny-llama", methods=["random", str(tmp_path / "my_idea.py")], limit=2)
    assert text.count("my-idea") == text.count("random") == 2
    with pytest.raises(ConfigError, match=r"nowhere\.py: no such file"):
        explain([str(rows)], model="tiny-llama", methods=["nowhere.py"])
    (tmp_path / "my_idea.py").write_text(MINE.replace("signals.loss\n", "signals.loss[:1]\n"))
    with pytest.raises(ConfigError, match=r"method my-idea: .*my_idea\.py"):
        explain([str(rows)], model="tiny-llama", methods=[str(tmp_path / "my_idea.py")])


def test_explain_makes_every_signal_that_a_model_and_rows_give_and_refuses_the_others(rows, tmp_path):
    file = tmp_path / "asks.py"

    def asks(signal, read="signals.loss"):
        file.write_text(MINE.replace('{"loss"}', f'{{"loss", "{signal}"}}').replace("signals.loss", read))
        return explain([str(rows)], model="tiny-llama", methods=["random", str(file)], limit=1)

    for signal in ("entropy", "collision", "probability", "base_loss", "base_rank", "history_loss", "attention_mass"):
        text = asks(signal, f"signals.{signal}")
        assert "asks" in text and "not shown" not in text
    assert "not shown" not in asks("progress", "signals.loss * signals.progress")
    assert "not shown: asks, since these rows do not say which tokens are noise" in asks(
        "truth", "-signals.truth.float()"
    )
    assert "not shown: asks, since it needs unconditional_loss" in asks(
        "unconditional_loss", "signals.unconditional_loss"
    )
    text = explain([str(rows)], model="tiny-llama", methods=["random", "toss"], reference="tiny-llama", limit=1)
    assert "not shown: toss, since it needs reference_loss:harmful" in text


def test_explain_takes_no_scorer_of_ones_own_for_one_of_ours(rows, tmp_path):
    (tmp_path / "sstoken.py").write_text(MINE)
    with pytest.raises(ConfigError, match=r"sstoken\.py: there is a method sstoken already; rename the file"):
        explain([str(rows)], model="tiny-llama", methods=[str(tmp_path / "sstoken.py")])


def test_explain_refuses_by_name_what_it_cannot_show(rows):
    text = explain([str(rows)], model="tiny-llama", methods=["random", "rho1"], limit=1)
    assert "not shown: rho1, since it needs a reference model" in text
    with pytest.raises(ConfigError, match="nothing to explain: rho1: it needs a reference model"):
        explain([str(rows)], model="tiny-llama", methods=["rho1"], limit=1)
    with pytest.raises(ConfigError, match="neither a folder with a config"):
        explain([str(rows)], model="nowhere", methods=["random"])
    with pytest.raises(ConfigError, match="Did you mean 'random'"):
        explain([str(rows)], model="tiny-llama", methods=["randm"])


def test_what_is_written_down_belongs_to_its_sample_whatever_the_order(tmp_path):
    data = ragged_tokens(12)
    auditor, trainer, _ = audited(data, tmp_path, args={"max_steps": 3, "train_sampling_strategy": "random"})
    trainer.train()
    assert torch.equal(auditor.record["random"]["score"], trainer.train_dataset.signals["uniform"])
