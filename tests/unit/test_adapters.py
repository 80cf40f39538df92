"""Adapters on every linear projection, by any family's names; and what is named but not there stops the run."""

from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy

from sstoken.experiment.config import AdapterSettings, Parallel, TrainingSettings, load_config
from sstoken.models.flops import Shape
from sstoken.models.load import Weights
from sstoken.models.projections import ALL_LINEAR, projections, targets_of
from sstoken.models.sizes import sizes_of
from sstoken.models.table import ModelEntry
from sstoken.records.documents import ConfigError
from sstoken.training.adapters import adapted
from sstoken.training.architectures import by_route, plain, samples_of, tiny_model
from sstoken.training.setup import trainable, training_arguments
from tests.conftest import ragged_tokens
from tests.trainers import trainer_for

RECIPE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SETTINGS = AdapterSettings(rank=4, alpha=8, dropout=0.0, targets=ALL_LINEAR)


# with shared experts or dense layers beside the arrays of experts' weights: PEFT renames targets of theirs
MIXTURES = ["qwen2_moe", "deepseek_v3", "glm4_moe", "ernie4_5_moe", "qwen3_next", "afmoe"]


def randomised(model):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    return model


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
def test_of_the_papers_families_every_linear_projection_is_the_recipes_seven(family):
    every, named = (
        adapted(tiny_model(family), replace(SETTINGS, targets=targets)).targeted_module_names
        for targets in (ALL_LINEAR, RECIPE)
    )
    assert every == named and len(named) == 7 * 3


@pytest.mark.parametrize(
    "family", ["phi3", "mixtral", "granitemoe", "gpt2", "olmoe", "jamba", "lfm2_moe", "falcon", "ctrl", *MIXTURES]
)
def test_every_linear_weight_of_the_layers_gets_an_adapter_that_learns_and_merges(family, tmp_path):
    model = tiny_model(family)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.dim() > 1}
    modules, arrays = projections(model)
    covered = {f"{name}.weight" for name in modules} | set(arrays)
    left = {name for name in set(sizes) - covered if not any(part in name for part in ("embed", "head", "wte", "wpe"))}
    # routers, convolutions, a recurrence's own, what fused kernels read past an adapter
    assert not [
        n
        for n in left
        if not any(p in n for p in (".gate.", "router", "conv", "A_log", "dt_proj", "x_proj", "out_proj", ".w."))
    ]
    wrapped, samples = randomised(adapted(model, SETTINGS)).eval(), samples_of(97)
    found_R, gradients, _ = by_route(wrapped, samples)
    expected_R, expected = plain(wrapped, samples, use_cache=False)
    wrapped.save_pretrained(tmp_path)
    stored = PeftModel.from_pretrained(tiny_model(family), tmp_path, is_trainable=True).eval()
    torch.testing.assert_close(plain(stored, samples, use_cache=False)[0], expected_R, atol=1e-5, rtol=0)
    torch.testing.assert_close(found_R, expected_R, atol=1e-5, rtol=0)
    assert set(gradients) == set(expected) == {name for name, p in wrapped.named_parameters() if p.requires_grad}
    merged = wrapped.merge_and_unload()
    with torch.no_grad():
        logits = merged(input_ids=samples[1].ids_T[None], use_cache=False).logits[0]
        start = len(samples[0].ids_T) - samples[0].prompt
        loss_T = cross_entropy(
            logits[samples[1].prompt - 1 : -1], samples[1].ids_T[samples[1].prompt :], reduction="none"
        )
    torch.testing.assert_close(loss_T, expected_R[start : start + len(loss_T)], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (
            "phi3",
            "Phi3ForCausalLM has no q_proj, k_proj, v_proj, gate_proj, up_proj; it has down_proj, .*qkv_proj",
        ),
        ("mixtral", "MixtralForCausalLM has no gate_proj, up_proj; it has k_proj, mlp.experts.down_proj"),
        ("granitemoe", "has no gate_proj, up_proj; it has block_sparse_moe.experts.down_proj"),
        ("gpt2", "has no q_proj"),
    ],
)
def test_targets_that_a_model_does_not_have_are_named(family, message):
    with pytest.raises(ValueError, match=message):
        adapted(tiny_model(family), replace(SETTINGS, targets=RECIPE))


@pytest.mark.parametrize("family", ["qwen2_moe", "deepseek_v3"])
def test_targets_that_reach_the_shared_experts_alone_are_refused(family):
    with pytest.raises(ValueError, match=r"shared experts of .* lie in mlp\.experts\.gate_up_proj"):
        adapted(tiny_model(family), replace(SETTINGS, targets=("o_proj", "gate_proj", "up_proj", "down_proj")))
    named = replace(SETTINGS, targets=("o_proj", "gate_proj", "up_proj", "down_proj", "gate_up_proj"))
    assert adapted(tiny_model(family), named).targeted_module_names
    assert adapted(tiny_model(family), replace(SETTINGS, targets=("o_proj",))).targeted_module_names


def test_a_name_of_an_array_of_experts_is_a_target_too():
    modules, arrays = targets_of(tiny_model("olmoe"), ("q_proj", "down_proj"))
    assert len(modules) == len(arrays) == 3


@pytest.mark.parametrize("family", ["olmoe", "qwen3_moe"])
def test_dropout_on_fused_experts_is_refused_in_one_sentence(family):
    with pytest.raises(ValueError, match=r"training.adapter.dropout must be 0 for .*experts\.down_proj"):
        adapted(tiny_model(family), replace(SETTINGS, dropout=0.1))


def test_adapters_that_the_model_computes_without_are_named():
    with pytest.raises(ValueError, match=r"BartForCausalLM computes without the adapters on encoder_attn.k_proj"):
        adapted(tiny_model("bart"), SETTINGS)
    targets = ("self_attn.q_proj", "fc1")
    assert len(adapted(tiny_model("bart"), replace(SETTINGS, targets=targets)).targeted_module_names) == 6


def test_parts_that_do_not_read_text_get_none():
    names = adapted(tiny_model("gemma3"), SETTINGS).targeted_module_names
    assert names and not [name for name in names if "vision" in name]


def test_adapting_draws_what_peft_draws():
    models = []
    for build in (lambda m: adapted(m, SETTINGS), lambda m: adapted(m, replace(SETTINGS, targets=RECIPE))):
        model = tiny_model("llama")
        torch.manual_seed(3)
        models.append(build(model).state_dict())
    assert all(torch.equal(models[0][name], value) for name, value in models[1].items())


def test_without_an_adapter_bfloat16_trains_float32_masters(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "base")
    settings = replace(TrainingSettings.of(load_config("config/ci.yaml")["training"]), adapter=None, dtype="bfloat16")
    model = trainable(Weights(tmp_path / "base"), settings, device="cpu", parallel=Parallel())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    seen = set()
    model.model.layers[0].mlp.down_proj.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    options = {"bf16": training_arguments(settings, tmp_path, 0, "cpu").bf16, "max_steps": 5, "learning_rate": 1e-5}
    trainer_for("full", ragged_tokens(16), tmp_path, model=model, args=options).train()
    assert torch.bfloat16 in seen
    moved = [float((parameter != before[name]).float().mean()) for name, parameter in model.named_parameters()]
    assert min(moved) > 0.9
    rounded = [
        float((p.bfloat16() != before[n].bfloat16()).float().mean()) for n, p in model.named_parameters() if p.dim() > 1
    ]
    assert min(rounded) < 0.5  # what weights in bfloat16 would have kept of it


@pytest.mark.parametrize("family", ["llama", "gemma3", "mixtral", "gpt2", "falcon"])
def test_shapes_count_the_matrices_that_a_token_passes(family):
    model = tiny_model(family)
    shape, (modules, arrays) = Shape.of(model), projections(model)
    dense = sum(model.get_parameter(f"{name}.weight").numel() for name in modules)
    active = sum(model.get_parameter(name).numel() for name in arrays) // 2  # two of four experts
    assert dense + active <= shape.layer_parameters <= 1.2 * (dense + active) + 500
    assert (shape.hidden, shape.vocabulary, shape.layers) == (32, 97, 3)


def test_recomputation_is_a_forward_pass_without_the_projection():
    shape = Shape.of(tiny_model("gpt2"))
    assert shape.recomputed(10, 100, 4) == shape.forward(10, 100, 0) < shape.forward(10, 100, 4)


def test_sizes_of_adapters_are_those_of_the_model(tmp_path):
    for family in ("llama", "olmoe", "gemma3"):
        model = tiny_model(family)
        model.save_pretrained(tmp_path / family)
        entry = ModelEntry(family, family, "tiny", f"local:{tmp_path / family}")
        sizes = sizes_of(entry, tmp_path / family, rank=4, targets=ALL_LINEAR)
        trained = sum(p.numel() for p in adapted(model, SETTINGS).parameters() if p.requires_grad)
        assert sizes.shape.trained_parameters == trained
        with pytest.raises(ConfigError, match=f"{family}: training.adapter.targets: .* has no c_attn"):
            sizes_of(entry, tmp_path / family, rank=4, targets=("c_attn",))
