"""Models: where they come from, what is loaded, and that nothing but safetensors is read."""

import json

import pytest
import torch

from sstoken.models.load import Weights, count_parameters, load_tokenizer
from sstoken.models.sources import materialise, weights_sha256
from sstoken.models.table import ModelEntry
from sstoken.records.documents import ConfigError
from tests.conftest import tiny_adapter, tiny_model


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_random_model_loads_with_the_tokenizer_that_it_was_stored_with(family, tmp_path):
    from sstoken.world.tokenizer import build_tokenizer

    materialise(ModelEntry("x", family, "tiny", f"random:{family}"), tmp_path, seed=3)
    text = "<|user|>\nWho lives there?\n<|assistant|>\n"
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer(text)["input_ids"] == build_tokenizer()(text)["input_ids"]
    model = Weights(tmp_path).load(dtype="float32")
    assert not model.training
    assert model.config.model_type == family
    assert model.config.vocab_size >= len(tokenizer)
    assert count_parameters(tmp_path) == sum(p.numel() for p in model.parameters())


def test_the_same_seed_gives_the_same_weights(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        materialise(ModelEntry("x", "Llama", "tiny", "random:llama"), tmp_path / name, seed=seed)
    one, same, other = (weights_sha256(tmp_path / name) for name in "abc")
    assert one == same != other


def test_an_adapter_is_merged_for_evaluation_and_kept_apart_for_training(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "base")
    adapted = tiny_adapter(tiny_model()).eval()
    adapted.save_pretrained(tmp_path / "run")
    ids = torch.arange(9)[None]
    weights = Weights(tmp_path / "base", tmp_path / "run")
    merged, apart = weights.load(dtype="float32"), weights.load(dtype="float32", merge=False)
    with torch.no_grad():
        expected = adapted(input_ids=ids).logits
        torch.testing.assert_close(merged(input_ids=ids).logits, expected)
        torch.testing.assert_close(apart.eval()(input_ids=ids).logits, expected)
    assert not hasattr(merged, "peft_config")
    assert any(p.requires_grad for p in apart.parameters())
    assert weights.sha256 != Weights(tmp_path / "base").sha256


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gguf:no_such_package/x.gguf", "package no_such_package .* is not installed"),
        ("local:/nowhere", "no config.json in /nowhere"),
        ("world:no-such-base", "no base named no-such-base"),
    ],
)
def test_a_source_that_is_not_there_is_named(source, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        materialise(ModelEntry("x", "Llama", "tiny", source), tmp_path)


def test_weights_in_another_format_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match="only safetensors"):
        weights_sha256(tmp_path)
