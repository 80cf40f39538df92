"""Every family of the table is what docs/architectures.md says, and its losses are plain Hugging Face's."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback

from sstoken.selection import anchor_divergence, token_loss
from sstoken.selection.methods import load_method
from sstoken.training import architectures, selftest
from sstoken.training.architectures import FAMILIES, by_route, plain, row_of, samples_of, tiny_model
from sstoken.training.packing import forward, on_route, packed_attention
from sstoken.training.reference_losses import compute_losses
from sstoken.training.segments import Segments
from sstoken.training.selftest import check_supported, route_of
from tests.conftest import ragged_tokens
from tests.trainers import trainer_for


@pytest.fixture(scope="module")
def documented(root):
    lines = (root / "docs" / "architectures.md").read_text().splitlines()
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}


@pytest.mark.parametrize("family", FAMILIES["families"])
def test_the_table_of_architectures_has_no_wrong_number(family, documented):
    row = row_of(family)
    cells = documented[family].split(" | ")
    assert (row.route, row.layers) == (cells[1], cells[5].strip())
    if row.route == "refused":
        assert row.why.partition(":")[0] in documented[family]
        return
    assert row.loss < 1e-5
    assert row.gradient < 1e-5
    assert row.mass is None or row.mass < 1e-5


def test_the_document_has_every_family_and_no_other(documented):
    assert set(documented) - {"family", "|---|---|--:|--:|--:|--:|---|"} >= set(FAMILIES["families"])
    assert len(FAMILIES["families"]) >= 30


def packed_by_force(model):
    """The route that was taken for every architecture before there was a trial."""
    return replace(route_of(model), packed=True, reach=None, limit=None, linear_head=True, attention="function")


@pytest.mark.parametrize("family", ["lfm2", "jamba", "mamba", "falcon_h1", "qwen2_moe, use_sliding_window", "granite"])
def test_what_the_trial_keeps_from_packing_would_be_wrong(family):
    model = tiny_model(family)
    samples = samples_of(97)
    route = packed_by_force(model)
    expected_R, _ = plain(model, samples, use_cache=False)
    right_R = by_route(model, samples)[0]
    selftest._routes.update({key: route for key, value in selftest._routes.items() if value == route_of(model)})
    try:
        wrong_R = by_route(model, samples)[0]
    finally:
        selftest._routes.clear()
    assert (right_R - expected_R).abs().max() < 1e-5
    assert (wrong_R - expected_R).abs().max() > 1e-3


def test_a_row_in_which_the_model_counts_places_by_itself_is_short():
    """Each of four samples is short enough to be packed; together they are not."""
    model, samples = tiny_model("llama4_text, scaled by place"), samples_of(97)
    route, lengths = route_of(model), tuple(len(sample.ids_T) for sample in samples)
    assert route.row == 39 and all(route.packs((length,)) for length in lengths) and not route.packs(lengths)
    assert route.packs(lengths[:1] + lengths[2:])
    for some in (samples, [samples[0], *samples[2:]]):
        expected_R, _ = plain(model, some)
        torch.testing.assert_close(by_route(model, some)[0], expected_R, atol=1e-5, rtol=0)
    anyhow = replace(route, row=None)
    selftest._routes.update({key: anyhow for key, value in selftest._routes.items() if value == route})
    try:
        assert (by_route(model, samples)[0] - plain(model, samples)[0]).abs().max() > 0.1
    finally:
        selftest._routes.clear()


def test_a_small_leak_is_seen_where_losses_hardly_tell():
    """With weights as small as a fresh model's, the state of another sample moves losses by 1e-5."""
    model = tiny_model("lfm2")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.1)
    selftest._routes.clear()
    assert not route_of(model).packed
    assert "tokens of another sample" in route_of(model).why


@pytest.mark.parametrize("family", ["llama", "lfm2", "gemma2", "falcon", "mixtral"])
def test_in_bfloat16_the_choice_is_the_same(family):
    wide = route_of(tiny_model(family))
    narrow = route_of(tiny_model(family).bfloat16())
    assert (narrow.packed, narrow.reach, narrow.linear_head) == (wide.packed, wide.reach, wide.linear_head)


@pytest.mark.parametrize(("family", "packed"), [("cohere", True), ("gemma2", False)])
def test_logits_that_a_model_changes_further_are_summed_in_float32(family, packed):
    """In bfloat16, a step near 16 is 0.125: a small loss difference would be nothing but rounding."""
    model = tiny_model(family).bfloat16()
    assert not route_of(model).linear_head and route_of(model).packed is packed
    seen = []

    def project(logits, weight, bias):
        seen.append(logits)
        return logits.sum(-1)

    ids = torch.arange(12) + 3
    segments = Segments((12,), torch.arange(11))
    with torch.no_grad(), packed_attention(model):
        forward(model, ids, torch.arange(12), segments, project)
    (logits,) = seen
    assert logits.dtype == torch.float32
    assert (logits.bfloat16().float() != logits).float().mean() > 0.5


def adapted(family, targets, **options):
    model = get_peft_model(
        tiny_model(family),
        LoraConfig(r=4, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM", **options),
    )
    return model.eval()


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("lfm2", ["q_proj", "in_proj", "w1", "w2", "w3"]),
        ("gemma2", ["q_proj", "down_proj"]),
        ("falcon", ["query_key_value"]),
        ("jamba", ["q_proj", "in_proj", "down_proj"]),
        ("llama", ["q_proj", "lm_head"]),
        ("granite", ["q_proj", "lm_head"]),
        ("gptj", ["q_proj", "lm_head"]),
    ],
)
def test_adapters_of_any_family_get_their_own_loss_and_gradient(family, targets):
    model, samples = adapted(family, targets), samples_of(97)
    found_R, gradients, _ = by_route(model, samples)
    expected_R, expected = plain(model, samples, use_cache=False)
    torch.testing.assert_close(found_R, expected_R, atol=1e-5, rtol=0)
    assert gradients.keys() == expected.keys() and len(gradients) >= 2 * len(targets)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-3)


def test_a_saved_head_is_the_one_that_is_used():
    model, samples = adapted("llama", ["q_proj"], modules_to_save=["lm_head"]), samples_of(97)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter))
    expected_R, expected = plain(model, samples)
    found_R, gradients, _ = by_route(model, samples)
    torch.testing.assert_close(found_R, expected_R, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == expected.keys()


def test_what_cannot_be_right_is_refused_in_one_sentence():
    prompt = get_peft_model(tiny_model("llama"), PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    for model, message in [
        (prompt, "PROMPT_TUNING puts tokens of its own"),
        (tiny_model("mixtral, output_router_logits"), "output_router_logits"),
        (tiny_model("t5"), "encoder-decoder"),
        (tiny_model("bert"), "not causal"),
    ]:
        with pytest.raises(NotImplementedError, match=message) as caught:
            check_supported(model)
        assert "\n" not in str(caught.value)
    with pytest.raises(NotImplementedError, match="from 16 tokens on"):
        by_route(tiny_model("llama, dynamic rotary scaling"), samples_of(97))


def test_a_layer_without_attention_mass_is_refused_and_those_with_are_named():
    with pytest.raises(NotImplementedError, match=r"layer 2 gives no attention mass.* attention_layer to one of 1"):
        check_supported(tiny_model("lfm2"), "deep")
    check_supported(tiny_model("lfm2"), 1)
    with pytest.raises(NotImplementedError, match="choose a method that needs none"):
        check_supported(tiny_model("mamba"), "middle")
    check_supported(tiny_model("mamba"))


def test_a_trial_leaves_no_trace(tmp_path):
    selftest._routes.clear()
    model = adapted("llama", ["q_proj"]).train()
    model.get_base_model().lm_head.eval()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    route_of(model)
    assert torch.equal(torch.rand(3), expected)
    assert model.training and not model.get_base_model().lm_head.training
    assert model.get_base_model().config._attn_implementation == "sdpa"
    assert not any("forward" in vars(module) for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_forward_outside_of_packed_attention_is_an_error():
    """The model would attend from one sample to the next."""
    with pytest.raises(RuntimeError, match="only within packed_attention"):
        forward(tiny_model("llama"), torch.arange(4), torch.arange(4), None, None)


def naive(model, data, keep_R):
    losses = []
    for index in range(len(data)):
        sample = data.sample(index)
        ids = sample["input_ids"].long()
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        losses.append(cross_entropy(logits, ids[1:], reduction="none")[sample["response_mask"][1:]])
    return (torch.cat(losses) * keep_R).sum() / keep_R.sum()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("family", "method"), [("lfm2", "rho1"), ("gemma2", "sstoken"), ("falcon", "tokencleaning-fixed")]
)
def test_padded_models_train_on_the_mean_over_kept_tokens(family, method, checkpointing, tmp_path):
    data, method = ragged_tokens(8), replace(load_method(method), normalisation="tokens")
    model, other = tiny_model(family), tiny_model(family)
    options = {"gradient_checkpointing": checkpointing, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    arguments = {"max_steps": 1, "learning_rate": 1e-30, "max_grad_norm": 0, **options}
    trainer = trainer_for(method, data, tmp_path, model=model, micro=8, accumulation=1, args=arguments)
    found = {}

    class Grab(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **_):
            found.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    trainer.add_callback(Grab())
    trainer.train()
    naive(other, data, trainer.record["keep"]).backward()
    expected = {n: p.grad for n, p in other.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, atol=1e-5, rtol=1e-3)


def test_samples_longer_than_a_window_and_shorter_ones_take_turns():
    """One model, batch by batch the one way or the other; the losses are those of each sample alone."""
    model, data = tiny_model("mistral"), ragged_tokens(16, prompt=(2, 8), response=(2, 30))
    assert (data.lengths > 16).any() and (data.lengths <= 16).any()
    found = [compute_losses(model, data, batch_tokens=size) for size in (1, 60, 10_000)]
    model.set_attn_implementation("eager")
    expected = []
    for index in range(len(data)):
        sample = data.sample(index)
        ids = sample["input_ids"].long()
        logits = model(input_ids=ids[None]).logits[0, :-1].detach()
        expected.append(cross_entropy(logits, ids[1:], reduction="none")[sample["response_mask"][1:]])
    for loss_R in found:
        torch.testing.assert_close(loss_R, torch.cat(expected), atol=1e-5, rtol=0)


def test_the_command_prints_the_table(capsys):
    architectures.main(["llama", "bert"])
    text = capsys.readouterr().out
    assert "| llama | packed | < 1e-05 | < 1e-05 | < 1e-05 | 3 of 3 |  |" in text
    assert "1 are packed without padding, 0 run padded, 1 are refused" in text


def test_on_route_puts_back_what_was_there():
    model = tiny_model("mistral")
    route = route_of(model)
    with on_route(model, route), packed_attention(tiny_model("llama")):
        pass
    assert model.config._attn_implementation == "sdpa"


def test_of_logits_losses_measures_and_divergences_are_those_of_states():
    """What a model with more than a projection gives, against the projection done here."""
    generator = torch.Generator().manual_seed(0)
    hidden_ND, base_ND, weight_VD = (torch.randn(n, 8, generator=generator) for n in (11, 11, 30))
    target_N = torch.randint(0, 30, (11,), generator=generator)
    target_N[3] = -100
    found, expected = ({name: torch.empty(11) for name in ("entropy", "collision")} for _ in range(2))
    logits_NV = hidden_ND @ weight_VD.T
    loss_N = token_loss(logits_NV, None, target_N, measure=found)
    torch.testing.assert_close(loss_N, token_loss(hidden_ND, weight_VD, target_N, measure=expected))
    torch.testing.assert_close(found, expected)
    far_N = anchor_divergence(logits_NV, base_ND @ weight_VD.T, None)
    torch.testing.assert_close(far_N, anchor_divergence(hidden_ND, base_ND, weight_VD), atol=1e-5, rtol=1e-5)
