"""Split fine-tuning: two halves are the whole model, what is merged is the weighted mean, and the band is shared best."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sstoken.records.documents import ConfigError
from sstoken.split.experiment import read, run
from sstoken.split.forward import SplitModel, choose, retention
from sstoken.split.uplink import decibel, efficiency, payload_bytes, rate, share_band
from tests.conftest import tiny_model

CHANNEL = {"power_w": 0.2, "noise_w_hz": decibel(-174) / 1000}


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("cut", [1, 2])
def test_two_halves_with_everything_sent_are_the_whole_model(family, cut):
    model = tiny_model(family)
    split, rows = SplitModel(model, cut), [torch.arange(3, 3 + n) for n in (12, 7)]
    sent = []
    for ids in rows:
        states, importance = split.lower(ids, prompt=5)
        sent.append(choose(states, importance, 4, "importance", torch.Generator()))
    logits = split.upper(sent)
    for ids, found in zip(rows, logits, strict=True):
        assert torch.allclose(found[: len(ids)], model(input_ids=ids[None]).logits[0], atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_importance_is_the_models_own_attention_without_the_anchor(family):
    model = tiny_model(family)
    model.set_attn_implementation("eager")
    ids = torch.arange(3, 15)
    _, importance = SplitModel(model, 2).lower(ids, prompt=8)
    # renormalised per head: the model's own row also attends to the anchor itself
    row = model(input_ids=ids[None], output_attentions=True).attentions[1][0, :, 7, :7]
    assert torch.allclose(importance, (row / row.sum(-1, keepdim=True)).mean(0), atol=1e-6)
    assert float(importance.sum()) == pytest.approx(1, abs=1e-6)


@given(st.integers(2, 30), st.integers(0, 32), st.sampled_from(["importance", "random", "uniform"]), st.integers(0, 99))
def test_what_is_sent(before, keep, choice, seed):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(before + 1 + 6, 3, generator=generator)
    importance = torch.rand(before, generator=generator).softmax(0)
    sent = choose(states, importance, keep, choice, generator)
    if keep >= before:
        assert sent.states_SD.equal(states) and sent.prompt == before + 1
        return
    assert len(sent.states_SD) == len(sent.position_S) == keep + 2 + 6 and sent.prompt == keep + 2
    assert (sent.position_S.diff() >= 0).all()
    assert sent.states_SD[keep + 1 :].equal(states[before:])  # the anchor and the response, as they were
    whole = {tuple(row.tolist()): i for i, row in enumerate(states[:before])}
    places = [whole.get(tuple(row.tolist())) for row in sent.states_SD[: keep + 1]]
    kept = [place for place in places if place is not None]
    if keep == before - 1:  # a single state "merged" is itself
        return
    assert len(kept) == keep
    dropped = [i for i in range(before) if i not in kept]
    mean = sum(importance[i] * states[i] for i in dropped) / sum(importance[i] for i in dropped)
    assert torch.allclose(sent.states_SD[places.index(None)], mean, atol=1e-5)
    if choice == "importance" and kept:
        assert min(importance[i] for i in kept) >= max(importance[i] for i in dropped)


def test_retention_is_the_largest_importances_sum():
    assert retention([torch.tensor([0.5, 0.2, 0.3]), torch.tensor([0.6, 0.4])], 1) == pytest.approx(0.55)
    assert retention([torch.tensor([0.5, 0.2, 0.3])], 3) == pytest.approx(1)


def test_the_papers_payload():
    """3/16 MiB a token and 36.75 MiB for 196 patches, of a batch of 64."""
    assert 64 * payload_bytes(1, 768, 32) == 3 / 16 * 2**20 and 64 * payload_bytes(196, 768, 32) == 36.75 * 2**20


@given(st.lists(st.tuples(st.floats(1e4, 1e8), st.floats(-130, -80)), min_size=1, max_size=6))
def test_the_band_is_shared_so_that_all_are_done_at_once_and_no_share_is_quicker(clients):
    bits, gain = np.array([c[0] for c in clients]), decibel(np.array([c[1] for c in clients]))
    band = share_band(bits, gain, band_hz=50e6, **CHANNEL)
    seconds = bits / rate(band, gain=gain, **CHANNEL)
    assert band.sum() == pytest.approx(50e6) and seconds.max() == pytest.approx(seconds.min(), rel=1e-5)
    for _ in range(20):
        other = np.random.default_rng(len(clients)).dirichlet(np.ones(len(bits))) * 50e6
        assert (bits / rate(other, gain=gain, **CHANNEL)).max() >= seconds.max() * (1 - 1e-6)


def test_rate_and_efficiency_by_hand():
    assert float(rate(1e6, power_w=1, gain=3e-6, noise_w_hz=1e-12)) == pytest.approx(1e6 * math.log2(4))
    assert float(rate(0.0, power_w=1, gain=1, noise_w_hz=1)) == 0
    assert efficiency(np.array([0.5, 1.0]), np.array([2.0, 3.0])) == pytest.approx(0.5)


def test_another_family_or_a_cut_that_leaves_nothing_is_refused():
    from transformers import GPT2Config, GPT2LMHeadModel

    with pytest.raises(ValueError, match="gpt2 cannot be split"):
        SplitModel(GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=9)), 1)
    for cut in (0, 3):
        with pytest.raises(ValueError, match="cut must be 1 to 2"):
            SplitModel(tiny_model(), cut)


def test_the_experiment_runs_and_says_the_same_twice(root, tmp_path):
    config = read(root / "config" / "split.yaml")
    config |= {
        "keep": [0, 3],
        "choices": ["importance", "random"],
        "seeds": [0],
        "rows": 60,
        "steps": 2,
        "batch_size": 8,
    }
    first, second = run(config, tmp_path / "a"), run(config, tmp_path / "b")
    pd.testing.assert_frame_equal(first, second)
    assert list(zip(first["keep"], first["choice"], strict=True)) == [
        (-1, "none"), (0, "importance"), (3, "importance"), (3, "random"), (10**6, "all"),
    ]  # fmt: skip
    sent = first["bytes"].tolist()
    assert sent[1] < sent[2] == sent[3] < sent[4] == sent[0]  # untrained, everything is sent too
    report = tmp_path / "a" / "report"
    lines = (report / "tables" / "split.md").read_text().splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == ["untrained", "0", "3", "3", "all"]
    assert (report / "figures" / "split.svg").stat().st_size > 1000


def test_a_wrong_key_is_named(root, tmp_path):
    document = yaml.safe_load((root / "config" / "split.yaml").read_text())
    for change, said in (({"kep": [1]}, "kep"), ({"keep": [4, 2]}, "keep must rise")):
        path = tmp_path / "split.yaml"
        path.write_text(yaml.safe_dump(document | change))
        with pytest.raises(ConfigError, match=said):
            read(path)
