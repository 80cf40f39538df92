"""What a model cannot read is told before a run comes to it: tokens, lengths, weights."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers import Gemma3Config, LlamaConfig

from sstoken.data import TokenData
from sstoken.models.fits import check_fits, switching_position
from sstoken.models.sources import check_weights, materialise, weights_sha256
from sstoken.models.table import ModelEntry
from sstoken.records.documents import ConfigError
from sstoken.world.tokenizer import build_tokenizer
from tests.conftest import tiny_model


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def tokens(length, largest=5):
    ids = torch.ones(length + 3, dtype=torch.int32)
    ids[-1] = largest
    mask = torch.ones(length + 3, dtype=torch.bool)
    return TokenData(ids, torch.tensor([0, length, length + 3]), mask, ("long one", "short one"))


def test_what_fits_passes(tokenizer):
    check_fits(tokens(64, len(tokenizer) - 1), tokenizer, config(tokenizer), "m")


def config(tokenizer, **options):
    return LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **options)


def test_tokens_past_the_embedding_are_named(tokenizer):
    for smaller in (
        LlamaConfig(vocab_size=len(tokenizer) - 1),
        Gemma3Config(text_config={"vocab_size": len(tokenizer) - 1}),
    ):
        with pytest.raises(ConfigError, match=r"m: its tokenizer has 1 tokens past the .* rows of the embedding \('"):
            check_fits(tokens(9), tokenizer, smaller, "m")


def test_frequencies_that_change_with_the_batch_bound_the_length(tokenizer):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0, "original_max_position_embeddings": 32}
    changing = config(tokenizer, rope_parameters=rope)
    assert switching_position(changing) == 32
    with pytest.raises(
        ConfigError,
        match=r"other rotary frequencies from 32 tokens on.*sample long one has 40: set text.max_length to 32",
    ):
        check_fits(tokens(40), tokenizer, changing, "m")
    assert switching_position(config(tokenizer)) is None


def stored(folder, **changes):
    tiny_model().save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"m: its weights are quantised \(gptq\)"),
        ({"auto_map": {"AutoModelForCausalLM": "x.Y"}, "model_type": "theirs"}, "m: it comes with code of its own"),
    ],
)
def test_weights_that_are_not_read_as_they_are(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        check_weights("m", stored(tmp_path, **changes))


def test_pickles_are_not_read_and_the_command_that_converts_is_given(tmp_path):
    folder = stored(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"from_pretrained.*save_pretrained"):
        check_weights("m", folder)


def test_half_a_download_is_named(tmp_path):
    folder = stored(tmp_path)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match=r"model-00002-of-00002.safetensors not there"):
        check_weights("m", folder)
    (folder / "model.safetensors.index.json").unlink()
    check_weights("m", folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"model.safetensors is not whole"):
        check_weights("m", folder)


def test_a_source_that_changed_leaves_nothing_of_the_old_one(tmp_path):
    """An old single file beside a new index would be what is loaded."""
    one, two, folder = tmp_path / "one", tmp_path / "two", tmp_path / "models" / "m"
    tiny_model(seed=1).save_pretrained(one)
    tiny_model(seed=2).save_pretrained(two, max_shard_size="20KB")
    (one / "chat_template.jinja").write_text("old")
    materialise(ModelEntry("m", "Llama", "tiny", f"local:{one}"), folder)
    (folder / "model.json").write_text("{}")
    (folder / ".model.lock").write_text("")
    materialise(ModelEntry("m", "Llama", "tiny", f"local:{two}"), folder)
    assert {path.name for path in folder.iterdir()} == {path.name for path in two.iterdir()} | {".model.lock"}
    assert weights_sha256(folder) == weights_sha256(two)


def test_a_source_that_is_refused_leaves_the_old_one(tmp_path):
    one, folder = stored(tmp_path / "one"), tmp_path / "models" / "m"
    materialise(ModelEntry("m", "Llama", "tiny", f"local:{one}"), folder)
    two = shutil.copytree(one, tmp_path / "two")
    (two / "model.safetensors").unlink()
    save_file({"x": torch.zeros(1)}, two / "other.bin")
    with pytest.raises(ConfigError, match="no safetensors"):
        materialise(ModelEntry("m", "Llama", "tiny", f"local:{two}"), folder)
    assert weights_sha256(folder) == weights_sha256(one)
