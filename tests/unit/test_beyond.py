"""Methods beyond the papers: each against its naive oracle, and the equalities that hold between them."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import TrainerCallback

from sstoken.selection import Signals, anchor_divergence, token_loss
from sstoken.selection.methods import load_method, scorers
from tests.conftest import ragged_tokens, tiny_adapter, tiny_model
from tests.oracles import methods as oracle
from tests.trainers import signals_for, trainer_for

NAMES = [
    "dft", "beyond-log", "deft", "eaft", "talr", "iw-sft", "infosft", "same-mean-weight", "profit", "stm", "t3s",
    "forgetting", "toss", "toss-mined", "ifd", "middle-perplexity", "easiest", "hardest", "first-k-dropped",
    "sample-oracle",
]  # fmt: skip


def sharp_model():
    """Predictions that are worth telling apart: a random head of large weights."""
    model = tiny_model()
    model.lm_head.weight.data.mul_(40)
    return tiny_adapter(model)


def with_(name, **options):
    """The method with other parameters."""
    method = load_method(name)
    return replace(method, scorer=replace(method.scorer, **options), name="mine")


def gradient_and_trainer(method, data, folder, *, model=None, micro=8, progress=0.0):
    """Gradients of every trained parameter after one step over all samples at once, from the state that it started in."""
    model = model or sharp_model()
    found = {}
    settings = {"max_steps": 1, "learning_rate": 1e-30, "max_grad_norm": 0}
    trainer = trainer_for(method, data, folder, model=model, micro=micro, accumulation=8 // micro, args=settings)

    class Grab(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            state.max_steps, state.global_step = 100, round(progress * 100)

        def on_pre_optimizer_step(self, args, state, control, model=None, **_):
            found.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
            state.max_steps, state.global_step = 1, 0

    trainer.add_callback(Grab())
    trainer.train()
    return found, trainer


def samples_of(model, data):
    """What the oracles read, and each sample's differentiable losses."""
    signals, found, losses = signals_for(data), [], []
    names = {
        "base_loss": "base", "reference_loss": "reference", "reference_loss:harmful": "harmful",
        "reference_loss:utility": "utility", "unconditional_loss": "unconditional", "truth": "truth",
    }  # fmt: skip
    for index in range(len(data)):
        ids, mask = data.sample(index)["input_ids"].long(), data.sample(index)["response_mask"]
        logits = model(input_ids=ids[None]).logits[0, :-1][mask[1:]].double()
        target = ids[1:][mask[1:]]
        losses.append(-logits.log_softmax(-1).gather(1, target[:, None])[:, 0])
        place = slice(int(data.response_offset[index]), int(data.response_offset[index + 1]))
        stored = {short: signals[name][place].tolist() for name, short in names.items()}
        found.append({"logits": logits.detach(), "target": target.tolist()} | stored)
    return found, losses


def naive_gradient(weights, data, model=None):
    model = model or sharp_model()
    samples, losses = samples_of(model, data)
    weighted = weights(samples)
    sum(
        (torch.tensor(w, dtype=torch.float64) * loss).sum() for w, loss in zip(weighted, losses, strict=True)
    ).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def close(one, two, share=1e-3):
    """Alike to a share of the largest gradient."""
    assert one.keys() == two.keys()
    largest = max(gradient.abs().max() for gradient in two.values())
    assert largest > 1e-12
    assert max((gradient - two[name]).abs().max() for name, gradient in one.items()) <= share * largest


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_the_oracles(name, tmp_path):
    data = ragged_tokens(8, response=(1, 3) if name == "sample-oracle" else (1, 14))
    found, _ = gradient_and_trainer(load_method(name), data, tmp_path, progress=0.5)
    expected = naive_gradient(lambda s: getattr(oracle, name.replace("-", "_"))(s, progress=0.5), data)
    close(found, expected)


@pytest.mark.parametrize("name", [n for n in NAMES if load_method(n).scorer.weighs and not load_method(n).pools])
def test_weights_over_micro_batches_are_those_of_one_batch(name, tmp_path):
    data = ragged_tokens(8)
    whole, _ = gradient_and_trainer(load_method(name), data, tmp_path)
    for micro in (1, 4):
        close(gradient_and_trainer(load_method(name), data, tmp_path, micro=micro)[0], whole, share=1e-5)


def test_variants_too(tmp_path):
    data = ragged_tokens(8)
    for method, weights in {
        with_("beyond-log", alpha=0.5, least=1e-4, most=0.5): lambda s: oracle.beyond_log(s, 0.5, 1e-4, 0.5),
        with_("deft", exponent="cayley"): oracle.deft_cayley,
        with_("iw-sft", form="token"): lambda s: oracle.iw_sft(s, "token"),
        with_("talr", temperature=2.0): lambda s: oracle.talr(s, temperature=2.0),
    }.items():
        close(gradient_and_trainer(method, data, tmp_path)[0], naive_gradient(weights, data))


def signals(loss, **more):
    loss = torch.tensor(loss, dtype=torch.float32)
    return Signals(mask_BR=torch.ones_like(loss, dtype=torch.bool), loss=loss, probability=(-loss).exp(), **more)


LOSSES = [[0.01, 0.4, 1.2, 3.0, 9.0], [0.2, 0.7, 0.0, 50.0, 2.0]]


def weight(scorer, given):
    return scorer.weigh(given, given.mask_BR)


def config(name, **options):
    return scorers()[name](**options)


def test_dft_is_beyond_log_with_alpha_1_and_talr_with_tau_1():
    given = signals(LOSSES)
    dft = weight(config("dft"), given)
    assert torch.equal(weight(config("beyond_log", alpha=1.0), given), dft)
    torch.testing.assert_close(weight(config("talr", temperature=1.0, least=0.0), given), dft)


def test_the_weight_is_the_gradient_of_what_it_names():
    """(1 - p^α)/α, and -p, have the gradients of p^α L and p L."""
    logits = torch.randn(6, 11, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 11, (6,))
    p = logits.softmax(-1).gather(1, target[:, None])[:, 0]
    for alpha in (0.5, 1.0, 3.0):
        (expected,) = torch.autograd.grad(((1 - p**alpha) / alpha).sum(), logits, retain_graph=True)
        (found,) = torch.autograd.grad((p.detach() ** alpha * -p.log()).sum(), logits, retain_graph=True)
        torch.testing.assert_close(found, expected)


def test_nothing_to_tell_apart_is_full_data_training():
    given, ones = signals(LOSSES), torch.ones(2, 5)
    assert torch.equal(weight(config("beyond_log", alpha=0.0), given), ones)
    assert torch.equal(weight(config("deft"), signals(LOSSES, collision=torch.zeros(2, 5))), ones)
    for form in ("sample", "token"):
        same = signals(LOSSES, reference_loss=torch.tensor(LOSSES))
        assert torch.equal(weight(config("iw_sft", form=form), same), ones)
    profit, stm = config("profit", least=0.0), config("stm", perplexity=math.inf)
    assert (profit.score(given) >= profit.keep_above).all()
    assert (stm.score(signals(LOSSES, base_loss=torch.tensor(LOSSES))) >= stm.keep_above).all()


@pytest.mark.parametrize(
    ("name", "options"), [("profit", {"least": 0.0}), ("stm", {"perplexity": math.inf}), ("beyond-log", {"alpha": 0.0})]
)
def test_full_data_training_to_the_gradient(name, options, tmp_path):
    data = ragged_tokens(8)
    full, _ = gradient_and_trainer(load_method("full"), data, tmp_path)
    close(gradient_and_trainer(with_(name, **options), data, tmp_path)[0], full, share=1e-5)


def test_entropy_of_uniform_and_of_certain_logits():
    measure = {"entropy": torch.empty(2), "collision": torch.empty(2)}
    hidden, projection = torch.tensor([[0.0], [1.0]]), torch.zeros(50, 1)
    projection[7] = 200.0
    token_loss(hidden, projection, torch.tensor([3, 7]), measure=measure)
    given = signals([[1.0, 1.0]], entropy=measure["entropy"][None])
    torch.testing.assert_close(weight(config("eaft"), given), torch.tensor([[math.log(20) / 3, 0.0]]))
    assert math.log(20) / 3 == pytest.approx(0.99858, abs=5e-6)
    torch.testing.assert_close(measure["collision"], torch.tensor([1 / 50, 1.0]))


@pytest.mark.parametrize(("vocabulary", "dtype"), [(97, torch.float32), (7, torch.float32), (300, torch.bfloat16)])
@pytest.mark.parametrize("gradient_first", [False, True])
def test_measures_are_the_naive_ones(vocabulary, dtype, gradient_first):
    torch.manual_seed(0)
    hidden, projection = torch.randn(23, 16).to(dtype), torch.randn(vocabulary, 16).to(dtype)
    target = torch.randint(0, vocabulary, (23,))
    measure = {"entropy": torch.empty(23), "collision": torch.empty(23)}
    hidden.requires_grad_()
    loss = token_loss(hidden, projection, target, chunk_size=5, measure=measure, gradient_first=gradient_first)
    sample = {"logits": hidden.detach().double() @ projection.double().T, "target": target.tolist()}
    torch.testing.assert_close(measure["entropy"], torch.tensor(oracle.entropy_of(sample)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(measure["collision"], torch.tensor(oracle.collision_of(sample)), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(loss.detach(), torch.tensor(oracle.loss_of(sample)), atol=1e-5, rtol=1e-5)


def test_forgetting_begins_as_tokencleaning_and_then_unlearns_the_rest(tmp_path):
    data = ragged_tokens(8)
    cleaning = replace(load_method("tokencleaning-fixed"), keep_ratio=0.7, normalisation="micro-batch")
    expected, one = gradient_and_trainer(cleaning, data, tmp_path)
    found, two = gradient_and_trainer(load_method("forgetting"), data, tmp_path)
    assert torch.equal(one.record["keep"], two.record["keep"])
    close(found, expected, share=1e-5)
    later, _ = gradient_and_trainer(load_method("forgetting"), data, tmp_path, progress=0.9)
    assert any((later[name] - expected[name]).abs().max() > 1e-4 for name in later)


def test_swapped_references_drop_the_opposite_end(tmp_path):
    harmful, utility = torch.rand(1, 20), torch.rand(1, 20)
    score, mask = config("toss").score, torch.ones(1, 20, dtype=torch.bool)
    one = score(Signals(mask_BR=mask, references={"harmful": harmful, "utility": utility}))
    two = score(Signals(mask_BR=mask, references={"harmful": utility, "utility": harmful}))
    assert torch.equal(one.argsort(), two.argsort(descending=True))


def test_infosft_is_finite_at_both_ends():
    found = weight(config("infosft"), signals([[0.0, 1e-9, 0.0725, 200.0, 1000.0]]))
    assert found.isfinite().all()
    assert found[0, :2].tolist() == [0, 0] and found[0, 3:].max() < 1e-30


def test_negative_weights_that_carry_a_run_away_end_it(tmp_path):
    data = ragged_tokens(16)
    method = with_("forgetting", most=1000.0)
    with pytest.raises(FloatingPointError, match="negative weights"):
        trainer_for(method, data, tmp_path, model=sharp_model(), args={"max_steps": 60, "learning_rate": 0.1}).train()


def test_the_log_says_what_weights_do(tmp_path):
    data = ragged_tokens(16)
    trainer = trainer_for("forgetting", data, tmp_path, args={"max_steps": 3})
    trainer.train()
    rows = [row for row in trainer.state.log_history if "weight_response" in row]
    assert "loss_negative" not in rows[0] and rows[0]["weight_response"] == pytest.approx(rows[0]["kept_share"])
    assert rows[2]["loss_negative"] > 0 and rows[2]["weight_response"] < rows[2]["kept_share"]
    dft = trainer_for("dft", data, tmp_path, args={"max_steps": 1})
    dft.train()
    assert 0 < dft.state.log_history[0]["weight_response"] < 0.1  # about 1 / vocabulary


@pytest.mark.parametrize("normalisation", ["tokens", "samples", "response", "micro-batch"])
def test_dropped_samples_and_micro_batches_count_nothing(normalisation, tmp_path):
    """Half of the samples, and with them whole micro-batches, keep nothing: a step like any other, without NaN."""
    data = ragged_tokens(8)
    keep = torch.repeat_interleave(torch.arange(8) < 4, data.response_offset.diff())
    method = replace(load_method("stm"), normalisation=normalisation, scorer=config("stm", perplexity=2.0))
    losses = {"base_loss": torch.where(keep, 0.1, 5.0)}
    trainer = trainer_for(method, data, tmp_path, micro=2, accumulation=4, signals=losses, args={"max_steps": 2})
    trainer.train()
    assert torch.equal(trainer.record["keep"], keep)
    assert all(math.isfinite(v) for row in trainer.state.log_history for v in row.values() if isinstance(v, float))
    nothing = trainer_for(method, data, tmp_path, signals={"base_loss": torch.full_like(losses["base_loss"], 5.0)})
    before = {n: p.clone() for n, p in nothing.model.named_parameters() if p.requires_grad}
    nothing.train()
    assert all(torch.equal(p, before[n]) for n, p in nothing.model.named_parameters() if n in before)


@pytest.mark.parametrize("track", ["corrected", "as_published"])  # one micro-batch: both divide by all its tokens
def test_asft_is_dft_and_the_divergence_from_the_base(track, tmp_path):
    data = ragged_tokens(8, response=(1, 14))
    found, trainer = gradient_and_trainer(load_method("asft", track=track), data, tmp_path)
    model = sharp_model()
    samples, losses = samples_of(model, data)
    with torch.no_grad(), model.disable_adapter():
        base, _ = samples_of(model, data)
    total, far = int(data.response_offset[-1]), []
    objective = sum(
        (torch.tensor(w, dtype=torch.float64) * loss).sum() for w, loss in zip(oracle.dft(samples), losses, strict=True)
    )
    for index in range(len(data)):
        ids, mask = data.sample(index)["input_ids"].long(), data.sample(index)["response_mask"]
        own = model(input_ids=ids[None]).logits[0, :-1][mask[1:]].double().log_softmax(-1)
        other = base[index]["logits"].log_softmax(-1)
        far.append((other.exp() * (other - own)).sum())
    (objective + 0.1 * sum(far) / total).backward()
    close(found, {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    row = trainer.state.log_history[0]
    assert row["anchor_kept"] == pytest.approx(float(sum(far)) / total, rel=1e-3)


def test_asft_begins_as_dft(tmp_path):
    """Under a fresh adapter the model is its base: divergence and its gradient are 0."""
    data = ragged_tokens(8)

    def fresh():
        return tiny_adapter(tiny_model(), random=False)

    one, trainer = gradient_and_trainer(load_method("asft"), data, tmp_path, model=fresh())
    two, _ = gradient_and_trainer(load_method("dft"), data, tmp_path, model=fresh())
    close(one, two, share=1e-6)
    assert trainer.state.log_history[0]["anchor_kept"] == 0


def test_asft_needs_an_adapter_and_its_normalisation(tmp_path):
    with pytest.raises(ValueError, match="only under an adapter"):
        trainer_for("asft", ragged_tokens(4), tmp_path, model=tiny_model())
    with pytest.raises(ValueError, match="normalisation 'response'"):
        replace(load_method("asft"), normalisation="tokens")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_divergence_and_its_gradient(dtype):
    torch.manual_seed(0)
    hidden, base = torch.randn(23, 8).to(dtype).requires_grad_(), torch.randn(23, 8).to(dtype)
    weight, bias, upstream = torch.randn(31, 8).to(dtype), torch.randn(31).to(dtype), torch.rand(23)
    found = anchor_divergence(hidden, base, weight, bias, chunk_size=5)
    (gradient,) = torch.autograd.grad((found * upstream).sum(), hidden)
    own, other = ((x.double() @ weight.double().T + bias.double()).log_softmax(-1) for x in (hidden, base))
    expected = (other.exp() * (other - own)).sum(-1)
    (naive,) = torch.autograd.grad((expected * upstream).sum(), hidden)
    tolerance = {"atol": 1e-4, "rtol": 1e-4} if dtype != torch.bfloat16 else {"atol": 0.05, "rtol": 0.05}
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradient, naive, **tolerance)


def test_a_trained_projection_gets_weighted_gradients_too(tmp_path):
    """Its gradient sums over tokens, so the weight has to come before, not after."""
    data = ragged_tokens(8)

    def whole():
        model = tiny_model()
        model.lm_head.weight.data.mul_(40)
        return model.train()

    found, _ = gradient_and_trainer(load_method("dft"), data, tmp_path, model=whole())
    expected = naive_gradient(oracle.dft, data, whole())
    assert "lm_head.weight" in found
    close(found, expected)
