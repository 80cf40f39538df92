"""lean_adapters: PEFT's own values and gradients for the same dropout draws, in less memory."""

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Trainer

from sstoken.experiment.config import TrainingSettings, load_config
from sstoken.models.load import DTYPES
from sstoken.training import lora
from sstoken.training.lora import DRAWS, kept_inputs, kept_share, lean_adapters
from sstoken.training.setup import training_arguments
from tests.conftest import tiny_adapter, tiny_model

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture
def draws_of_peft(monkeypatch):
    """The draws of torch.nn.functional.dropout from the same seed: bernoulli_ has one stream for every dtype."""
    monkeypatch.setattr(
        lora, "kept_inputs", lambda like, share: torch.empty_like(like, dtype=torch.int8).bernoulli_(share)
    )
    monkeypatch.setattr(lora, "kept_share", lambda dropout: 1 - dropout)


def network(*, dtype=torch.float32, rank=8, dropout=0.1, bias=True, **options):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attention_bias=bias, mlp_bias=bias,
    )  # fmt: skip
    lora = LoraConfig(
        r=rank, lora_alpha=4, lora_dropout=dropout, target_modules=TARGETS, task_type="CAUSAL_LM", **options
    )
    model = get_peft_model(LlamaForCausalLM(config).to(dtype), lora).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "bias" in name:  # zeros at first, which would hide half of the equation
                parameter.normal_(std=0.2)
    return model


def loss_and_gradients(model, context, autocast=False):
    ids = torch.randint(0, 64, (3, 21), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(7)
    model.zero_grad()
    with context, torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def assert_equal(found, expected, tolerance):
    torch.testing.assert_close(found[0], expected[0], atol=tolerance, rtol=tolerance)
    assert found[1].keys() == expected[1].keys() and found[1]
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).abs().max() <= tolerance * gradient.abs().max(), name


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rank", [1, 8, 12])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_losses_and_gradients_are_those_of_peft(dropout, bias, rank, dtype, tolerance, draws_of_peft):
    model = network(dtype=dtype, rank=rank, dropout=dropout, bias=bias)
    assert_equal(loss_and_gradients(model, lean_adapters(model)), loss_and_gradients(model, nullcontext()), tolerance)


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_as_near_to_float32_as_peft_is(autocast, draws_of_peft):
    """Rounding differs, for better or worse: the whole gradient may be a quarter further off than PEFT's, no more."""
    model = network(dtype=torch.bfloat16)
    exact = loss_and_gradients(deepcopy(model).float(), nullcontext())

    def distance(context):
        found = loss_and_gradients(model, context, autocast)
        torch.testing.assert_close(found[0].float(), exact[0], atol=0.02, rtol=0.01)
        differences = [(found[1][name] - gradient).norm() for name, gradient in exact[1].items()]
        return float(torch.stack(differences).norm() / torch.stack([g.norm() for g in exact[1].values()]).norm())

    lean, peft = distance(lean_adapters(model)), distance(nullcontext())
    assert peft < 0.05
    assert lean <= 1.25 * peft


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_each_input_is_kept_by_a_draw_of_its_own(dropout):
    share = kept_share(dropout)
    assert share == pytest.approx(1 - dropout, abs=0.5 / DRAWS)
    torch.manual_seed(0)
    like = torch.empty(999, 1001)
    one, other = kept_inputs(like, share), kept_inputs(like, share)
    assert one.dtype is torch.int8 and set(one.unique().tolist()) == {0, 1}
    deviation = (share * (1 - share) / like.numel()) ** 0.5
    for mask, expected in [
        (one, share),
        (one & other, share**2),  # one call and the next
        (one[:, 1:] & one[:, :-1], share**2),  # the quarters of a number, and neighbours
        (one[1:] & one[:-1], share**2),
    ]:
        assert abs(float(mask.double().mean()) - expected) < 5 * max(deviation, (expected / like.numel()) ** 0.5)
    torch.manual_seed(0)
    assert torch.equal(kept_inputs(like, share), one)


def test_certainty_is_certain_and_near_certainty_is_not():
    assert kept_inputs(torch.empty(640, 651), kept_share(0.0)).all()
    assert 0 < kept_inputs(torch.empty(2000, 2000), kept_share(0.9999999)).sum() < 200


def test_a_training_step_saves_far_less():
    def saved(model, context):
        sizes = {}

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        ids = torch.zeros(4, 32, dtype=torch.long)
        with context, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(input_ids=ids, labels=ids).loss.backward()
        return sum(sizes.values())

    model = network(dtype=torch.bfloat16)
    assert saved(model, lean_adapters(model)) < 0.7 * saved(model, nullcontext())


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}])
def test_other_adapters_are_left_to_peft(options):
    model = network(**options)
    assert_equal(loss_and_gradients(model, lean_adapters(model)), loss_and_gradients(model, nullcontext()), 0.0)


def test_disabled_adapters_and_evaluation_are_the_models_own():
    model = network()
    ids = torch.arange(20)[None]
    with torch.no_grad(), model.disable_adapter():
        expected = model(input_ids=ids).logits
        with lean_adapters(model):
            assert torch.equal(model(input_ids=ids).logits, expected)
    model.eval()
    expected = model(input_ids=ids).logits
    with lean_adapters(model):
        torch.testing.assert_close(model(input_ids=ids).logits, expected)
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_layer_whose_weight_is_trained_is_left_to_peft():
    model = network()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.requires_grad_()
    assert_equal(loss_and_gradients(model, lean_adapters(model)), loss_and_gradients(model, nullcontext()), 0.0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_in_bfloat16_computes_its_adapters_in_bfloat16_and_keeps_them_in_float32(dtype, tmp_path):
    """The recipe's arguments on a Trainer of our own: what a layer's adapter puts out under them."""
    recipe = TrainingSettings.of(load_config("config/ci.yaml")["training"])
    settings = replace(recipe, dtype=dtype, max_grad_norm=1.0)
    model = tiny_adapter(tiny_model().to(DTYPES[dtype]))
    seen = set()
    factor = model.get_base_model().model.layers[0].self_attn.q_proj.lora_A["default"]
    factor.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    arguments = training_arguments(settings, tmp_path, 0, "cpu")
    data = [{"input_ids": torch.arange(9), "labels": torch.arange(9)}] * 8
    Trainer(model, arguments, train_dataset=data).train()
    assert seen == {DTYPES[dtype]}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
