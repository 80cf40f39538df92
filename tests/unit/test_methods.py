"""Entries, tracks, contract and the formulas of every method found."""

import dataclasses

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sstoken import load_method
from sstoken.records.documents import ConfigError, schema, validate
from sstoken.selection import SIGNALS, Chooser, Signals, minmax
from sstoken.selection.contract import kind_of
from sstoken.selection.methods import METHODS_FILE, TRACKS_FILE, MethodError, entries_of, load_methods, scorers

ENTRIES = {track: load_methods(track=track) for track in ("corrected", "as_published")}


def signals_like(seed=0, batch=3, width=11):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(width)[None] < torch.tensor([[width], [width // 2], [1]])[:batch]

    def draw():
        return torch.rand(batch, width, generator=generator) * 3 * mask

    return Signals(
        mask_BR=mask, loss=(loss := draw()), base_loss=draw(), reference_loss=draw(), history_loss=draw(),
        attention_mass=draw() / 3, uniform=draw() / 3, truth=(draw() > 2).to(torch.uint8), position_B=torch.arange(batch),
        probability=loss.neg().exp() * mask, entropy=draw() / 3, collision=draw() / 3, base_rank=draw() / 3,
        unconditional_loss=draw(), progress=0.25, references={name: draw() for name in ("harmful", "utility")},
    )  # fmt: skip


def only_what(scorer, signals):
    names = {name for name in scorer.needs if ":" not in name}
    references = {n: v for n, v in signals.references.items() if f"reference_loss:{n}" in scorer.needs}
    return {f: getattr(signals, f) for f in ("mask_BR", "position_B", *names)} | {"references": references}


@pytest.mark.parametrize("name", scorers())
def test_every_scorer_is_frozen_documented_and_keeps_the_contract(name):
    config = scorers()[name]
    assert dataclasses.is_dataclass(config)
    assert config.__dataclass_params__.frozen
    assert config.__doc__
    assert "score" in config.__doc__ or "weight" in config.__doc__
    scorer = config()
    if isinstance(scorer, Chooser):
        assert scorer.reads <= {"loss", "hidden"}
    assert {kind_of(name) for name in scorer.needs} <= SIGNALS.keys()
    signals = signals_like()
    wanted = only_what(scorer, signals)
    score = scorer.score(Signals(**wanted))  # only what it asked for is there
    assert score.shape == signals.mask_BR.shape
    assert score.is_floating_point()
    assert score.isfinite().all()
    assert all(part.shape == score.shape for part in scorer.parts(Signals(**wanted)).values())
    weight = scorer.weigh(Signals(**wanted), signals.mask_BR)
    assert weight.shape == score.shape
    assert weight.dtype == torch.float32
    assert weight[signals.mask_BR].isfinite().all()


@pytest.mark.parametrize("name", scorers())
@given(seed=st.integers(0, 10_000))
def test_scores_of_response_tokens_ignore_what_padding_holds(name, seed):
    signals, scorer = signals_like(seed), scorers()[name]()
    noisy = {
        f.name: torch.where(signals.mask_BR, v, torch.full_like(v, 99))
        for f in dataclasses.fields(signals)
        if isinstance(v := getattr(signals, f.name), torch.Tensor)
        and v.shape == signals.mask_BR.shape
        and f.name != "mask_BR"
    }
    references = {n: v.masked_fill(~signals.mask_BR, 99) for n, v in signals.references.items()}
    keep = signals.mask_BR & (signals.uniform < 0.7)
    noisy = dataclasses.replace(signals, **noisy, references=references)
    for one, two in (
        (scorer.score(signals), scorer.score(noisy)),
        (scorer.weigh(signals, keep), scorer.weigh(noisy, keep)),
    ):
        assert torch.equal(one[signals.mask_BR], two[signals.mask_BR])


def score_of(name, signals):
    return load_method(name).scorer.score(signals)


def test_the_formulas_and_their_signs():
    s = signals_like()
    rel = s.history_loss - s.loss
    expected = {
        "rho1": s.loss - s.reference_loss,
        "rho1-static": s.base_loss - s.reference_loss,
        "tokencleaning-fixed": s.base_loss - s.reference_loss,
        "self-modulated": minmax(rel, s.mask_BR),
        "semantic-aware": s.attention_mass,
        "sstoken": 0.5 * minmax(rel, s.mask_BR) + 0.5 * s.attention_mass,
        "random": s.uniform,
        "easiest": -s.loss,
        "hardest": s.loss,
        "middle-perplexity": -(s.base_rank - 0.5).abs(),
        "first-k-dropped": torch.arange(11).expand(3, 11) >= 5,
        "sample-oracle": ~(s.truth * s.mask_BR > 0).any(1, keepdim=True).expand(3, 11),
    }
    for name, score in expected.items():
        torch.testing.assert_close(score_of(name, s)[s.mask_BR], score[s.mask_BR].float(), msg=name)


def test_a_part_that_is_not_used_is_not_asked_for():
    assert load_method("semantic-aware").needs == {"attention_mass"}
    assert load_method("self-modulated").needs == {"history_loss", "loss"}
    assert load_method("sstoken").needs == {"history_loss", "loss", "attention_mass"}
    assert load_method("base").needs == frozenset()


TOSS = ("toss", "toss-mined", "toss-pro")


def test_tracks_are_sets_of_options():
    published = ENTRIES["as_published"]
    others = {n: m.normalisation for n, m in published.items() if m.trains and m.normalisation != "micro-batch"}
    groups = dict.fromkeys(("uds", "maxloss", "random-rows"), "samples")
    assert others == {"profit": "response"} | dict.fromkeys(TOSS, "samples") | groups  # what these releases do
    assert published["random"].random_seed == 42
    assert published["rho1"].static
    assert published["rho1"].scope == "dataset"
    assert published["sstoken"].scorer.attention_only_samples == 10_000
    assert published["semantic-aware"].prompt == "leading"
    per_sample = {n for n, m in ENTRIES["corrected"].items() if m.normalisation == "samples"}
    own = {*TOSS, "uds", "maxloss", "random-rows"}
    assert per_sample == {"sstoken", "self-modulated", "semantic-aware", "full-per-sample"} | own
    # in the release the static baseline ranks globally, which is fixed cleaning under another name
    same = {f.name: getattr(published["rho1"], f.name) for f in dataclasses.fields(published["rho1"])}
    fixed = {f.name: getattr(published["tokencleaning-fixed"], f.name) for f in dataclasses.fields(published["rho1"])}
    assert {k for k in same if same[k] != fixed[k]} <= {"name", "source"}


def write_methods(tmp_path, entry, name="mine"):
    document = yaml.safe_load(METHODS_FILE.read_text())
    document["methods"][name] = entry
    path = tmp_path / "methods.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"scorer": "sstokn"}, "unknown scorer 'sstokn'. Did you mean 'sstoken'"),
        ({"scorer": "sstoken", "parameters": {"gamma": 1}}, "unknown parameter gamma; known: loss_weight"),
        ({"scorer": "sstoken", "parameters": {"loss_weight": 2}}, "must lie in"),
        ({"scorer": "full", "keep": 1}, "unknown key 'keep'"),
        ({"extends": "sstokn"}, "unknown method 'sstokn'"),
        ({"scorer": "sstoken", "scope": "dataset"}, "known only at each step"),
        ({"scorer": "random", "keep_ratio": 1.5}, "keep_ratio"),
        ({"scorer": "tokencleaning", "reference": "previous"}, "set parts to 2"),
    ],
)
def test_a_wrong_entry_says_what_and_where(tmp_path, entry, message):
    with pytest.raises(MethodError, match=message):
        load_methods(write_methods(tmp_path, entry))


def test_a_variant_is_an_entry_and_follows_its_parent_onto_a_track(tmp_path):
    path = write_methods(tmp_path, {"extends": "sstoken", "parameters": {"loss_weight": 0.25}})
    assert load_method("mine", path).scorer.loss_weight == 0.25
    published = load_method("mine", path, "as_published")
    assert published.scorer.loss_weight == 0.25
    assert published.scorer.attention_only_samples == 10_000


def test_unknown_track_and_method_list_the_known_ones():
    with pytest.raises(MethodError, match="Known: corrected, as_published"):
        entries_of(yaml.safe_load(METHODS_FILE.read_text()), "published")
    with pytest.raises(MethodError, match="Did you mean 'sstoken'"):
        load_method("ssToken")


def test_tracks_lie_in_a_file_of_their_own_and_are_closed():
    """What is appended to methods.yaml is a method, whatever stood there last."""
    tracks = yaml.safe_load(TRACKS_FILE.read_text())
    validate(tracks, schema("tracks"), "tracks.yaml")
    for track in tracks.values():
        validate({"methods": track.get("methods", {})}, schema("methods"), "tracks.yaml")
    appended = METHODS_FILE.read_text() + "  mine: {scorer: random, keep_ratio: 0.5}\n"
    assert "mine" in entries_of(yaml.safe_load(appended))
    with pytest.raises(ConfigError, match="unknown key 'tracks'"):
        validate({"methods": {}, "tracks": {}}, schema("methods"), "methods.yaml")


def test_every_method_of_the_catalogue_is_there_and_of_its_kind():
    kinds = {
        "control": "base full random easiest hardest middle-perplexity first-k-dropped random-rows same-mean-weight "
        "half-steps tenth-rate sample-oracle reference train-and-reference toss-harmful toss-utility toss-mined",
        "bound": "oracle clean",
        "mask": "rho1 rho1-static tokencleaning-fixed tokencleaning-self-evolving self-modulated semantic-aware sstoken "
        "profit stm t3s ifd toss toss-pro",
        "weight": "dft beyond-log deft eaft talr iw-sft infosft asft forgetting",
        "rows": "uds maxloss",
    }
    found = {name: method.kind for name, method in ENTRIES["corrected"].items()}
    for kind, names in kinds.items():
        assert {found[name] for name in names.split()} == {kind}, kind


def test_every_entry_says_where_it_comes_from():
    assert all(method.source for method in ENTRIES["corrected"].values())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"scorer": "profit"}, "known only once they are scored"),
        ({"scorer": "toss"}, "needs weights for the references harmful, utility; `references` names none"),
        ({"scorer": "full", "references": {"x": "full"}}, "for the references none; `references` names x"),
        ({"scorer": "full", "prompt": "leading"}, "prompt 'leading' is ssToken's release"),
        ({"scorer": "full", "steps_factor": 0}, "steps_factor must lie in"),
        ({"scorer": "dft", "anchor": {"weights": "base", "weight": 0.1}}, "an anchor holds at every response token"),
        ({"scorer": "dft", "anchor": {"weights": "him", "weight": 0.1}}, "anchor must be"),
        ({"scorer": "uds", "parameters": {"take": 5}}, "take <= candidates must hold"),
        ({"scorer": "same_mean_weight", "parameters": {"of": "full"}}, "has none"),
        ({"scorer": "same_mean_weight", "parameters": {"of": "dtf"}}, "must name another scorer"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path, entry, message):
    with pytest.raises(MethodError, match=message):
        load_methods(write_methods(tmp_path, entry))
