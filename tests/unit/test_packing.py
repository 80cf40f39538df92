"""Samples without padding: the same losses and attention masses as one sample at a time, for each architecture."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from sstoken.models.anatomy import layer_index
from sstoken.models.flops import Shape
from sstoken.selection import token_loss
from sstoken.training.collate import PackedCollator, segments_of
from sstoken.training.packing import forward, packed_attention
from sstoken.training.reference_losses import compute_losses
from tests.conftest import ragged_tokens, tiny_adapter, tiny_model


def one_at_a_time(model, data, layer):
    """Losses and masses of response tokens the plain way: eager attention, full logits, a sample a pass."""
    model.set_attn_implementation("eager")
    losses, masses = [], []
    for index in range(len(data)):
        sample = data.sample(index)
        ids, mask = sample["input_ids"].long(), sample["response_mask"]
        output = model(input_ids=ids[None], output_attentions=True)
        loss = torch.cat([torch.zeros(1), cross_entropy(output.logits[0, :-1].float(), ids[1:], reduction="none")])
        losses.append(loss[mask])
        masses.append((output.attentions[layer][0].mean(0) * ~mask).sum(-1)[mask])
    model.set_attn_implementation("sdpa")
    return torch.cat(losses), torch.cat(masses)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("layer", ["shallow", "middle", "deep"])
@pytest.mark.parametrize("turns", [1, 3])
@pytest.mark.parametrize("known", [True, False])
def test_losses_and_masses_equal_one_sample_at_a_time(family, layer, turns, known, monkeypatch):
    if not known:  # an architecture whose last layer is not shortened
        monkeypatch.setattr("sstoken.models.anatomy.PRE_NORM", ())
    model, data = tiny_adapter(tiny_model(family)).eval(), ragged_tokens(turns=turns)
    index = layer_index(model, layer)
    with torch.no_grad():
        expected_loss, expected_mass = one_at_a_time(model.get_base_model(), data, index)
    batch = PackedCollator()([data.sample(i) for i in range(len(data))])
    segments = segments_of(batch, index)
    target = batch["input_ids"][batch["response_R"]]
    with packed_attention(model), torch.no_grad():
        loss = forward(
            model,
            batch["input_ids"],
            batch["position_ids"],
            segments,
            lambda hidden, weight, bias: token_loss(hidden, weight, target, bias, chunk_size=7),
        )
    torch.testing.assert_close(loss, expected_loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(segments.mass_N[batch["response_R"]], expected_mass, atol=1e-6, rtol=1e-5)


def test_what_follows_the_last_attention_runs_for_wanted_positions_alone(monkeypatch):
    """Operations counted by torch: less by those of the last MLP, and as many as ``Shape`` says."""
    model, data = tiny_adapter(tiny_model()).eval(), ragged_tokens(6)
    tokens, response = len(data.input_ids), int(data.response_offset[-1])

    def counted():
        with FlopCounterMode(display=False) as counter:
            compute_losses(model, data)
        return counter.get_total_flops(), Shape.of(model).forward(tokens, 0, response)

    short = counted()
    with monkeypatch.context() as patch:
        patch.setattr("sstoken.models.anatomy.PRE_NORM", ())
        whole = counted()
    last = model.get_base_model().model.layers[-1].mlp
    saved = 2 * sum(p.numel() for p in last.parameters()) * (tokens - response)
    assert whole[0] - short[0] == whole[1] - short[1] == saved > 0


def test_reference_losses_do_not_depend_on_how_samples_are_batched():
    model, data = tiny_model(), ragged_tokens(30)
    together, apart = (compute_losses(model, data, batch_tokens=size) for size in (10_000, 1))
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(together, one_at_a_time(model, data, 0)[0], atol=1e-5, rtol=1e-5)


def test_the_model_is_left_as_it_was_found():
    model = tiny_model().train()
    compute_losses(model, ragged_tokens(3))
    assert model.training
    assert model.config._attn_implementation == "sdpa"
    assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 97)


def test_packed_attention_outside_of_a_packed_pass_is_an_error():
    model = tiny_model()
    with packed_attention(model), pytest.raises(RuntimeError, match="sstoken_packed"):
        model(input_ids=torch.tensor([[1, 2, 3]]))


def test_an_unknown_layer_is_an_error_that_names_the_range():
    with pytest.raises(ValueError, match="0 to 2"):
        layer_index(tiny_model(), 3)


def test_collating_counts_what_is_kept_and_refuses_a_response_at_the_start():
    data = ragged_tokens(5)
    batch = PackedCollator(0.6)([data.sample(i) for i in range(5)])
    counts = data.response_offset.diff().tolist()
    assert batch["response_counts"] == tuple(counts)
    assert batch["kept_counts"] == tuple(-(-6 * n // 10) for n in counts)
    with pytest.raises(ValueError, match="first token"):
        PackedCollator()([{"input_ids": [1, 2], "response_mask": [True, True]}])


def test_leading_prompt_is_as_long_as_all_that_is_not_response():
    sample = {"input_ids": [1, 2, 3, 4, 5], "response_mask": [False, True, False, False, True]}
    every, leading = (PackedCollator(leading_prompt=flag)([sample]) for flag in (False, True))
    assert every["prompt_N"].tolist() == [True, False, True, True, False]
    assert "ranked_R" not in every
    assert leading["prompt_N"].tolist() == [True, True, True, False, False]
    assert leading["ranked_R"].tolist() == [3, 4]
    assert leading["ranked_as_R"].tolist() == [2, 1]  # position 3 is no response token, position 4 is the second
    assert leading["always_R"].tolist() == [True, False]
