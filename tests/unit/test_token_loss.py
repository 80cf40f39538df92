"""token_loss: the losses and gradients of the whole [tokens, vocabulary] matrix, without ever holding it."""

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from sstoken.selection import token_loss
from tests.oracles import selection as oracle

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    return request.param


class LargestTensor(TorchDispatchMode):
    """The elements of the largest tensor that any operation made, in forward and backward alike; views are not made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        given = {storage_of(value) for value in tree_leaves((arguments, options)) if isinstance(value, torch.Tensor)}
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and storage_of(value) not in given:
                self.elements = max(self.elements, value.numel())
        return result


def storage_of(tensor):
    return tensor.untyped_storage().data_ptr()


def draw(tokens, size, vocabulary, *, seed=0, dtype=torch.float32, ignored=0.0, bias=False, device="cpu"):
    """(hidden, weight, target, bias or None) with logits of order one; every tensor is a leaf without a gradient."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, size, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocabulary, size, generator=generator, dtype=torch.float64) / size**0.5
    target = torch.randint(0, vocabulary, (tokens,), generator=generator)
    target[torch.rand(tokens, generator=generator) < ignored] = -100
    bias = torch.randn(vocabulary, generator=generator, dtype=torch.float64).to(device, dtype) if bias else None
    return hidden.to(device, dtype), weight.to(device, dtype), target.to(device), bias


def upstream_for(tokens, kept, seed=0, device="cpu"):
    """Upstream gradient with exactly ``kept`` non-zero entries, of either sign."""
    generator = torch.Generator().manual_seed(seed + 1)
    value = torch.rand(tokens, generator=generator) + 0.1
    value *= torch.randint(0, 2, (tokens,), generator=generator) * 2 - 1
    value[torch.randperm(tokens, generator=generator)[kept:]] = 0.0
    return value.to(device)


def losses_and_gradients(function, hidden, weight, target, bias, upstream, **options):
    """(loss, gradients of hidden, weight and bias as far as there are any), in float64."""
    leaves = [None if leaf is None else leaf.detach().clone().requires_grad_() for leaf in (hidden, weight, bias)]
    loss = function(leaves[0], leaves[1], target, leaves[2], **options)
    if loss.requires_grad:  # the oracle's does not where every token is ignored
        loss.backward(upstream.to(loss.dtype))
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves if leaf is not None]
    return [loss.detach().double(), *(gradient.double() for gradient in gradients)]


def assert_equals_oracle(case, upstream, tolerance=TOLERANCE, **options):
    expected = losses_and_gradients(oracle.token_loss, *case, upstream)
    found = losses_and_gradients(token_loss, *case, upstream, **options)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(
    tokens=st.integers(1, 33),
    size=st.integers(1, 17),
    vocabulary=st.integers(1, 67),
    chunk=st.integers(1, 40),
    kept=st.integers(0, 33),
    slack=st.none() | st.integers(0, 12),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_losses_and_gradients_equal_the_whole_matrix(tokens, size, vocabulary, chunk, kept, slack, ignored, bias, seed):
    kept = min(kept, tokens)
    case = draw(tokens, size, vocabulary, seed=seed, ignored=ignored, bias=bias)
    bound = None if slack is None else kept + slack
    assert_equals_oracle(case, upstream_for(tokens, kept, seed), chunk_size=chunk, backward_tokens=bound)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("seed", range(20))
def test_losses_and_gradients_equal_the_whole_matrix_on_cuda(seed):
    case = draw(61 + seed, 33, 1031, seed=seed, ignored=0.2, bias=seed % 2 == 1, device="cuda")
    for bound in (None, 30):
        upstream = upstream_for(61 + seed, 30, seed, "cuda")
        assert_equals_oracle(case, upstream, chunk_size=7 + seed, backward_tokens=bound)


@pytest.mark.parametrize("seed", range(20))
def test_bfloat16_is_off_by_no_more_than_its_own_rounding(seed, device):
    """A bfloat16 logit is off by half a unit in the last place, 2^-9 of its size, and a loss is a difference of two.

    Gradients are rounded once more on the way out and in the matrix of slopes: 2 % of their largest entry bounds them.
    """
    case = draw(45, 64, 301, seed=seed, dtype=torch.bfloat16, ignored=0.1, bias=seed % 2 == 1, device=device)
    upstream = upstream_for(45, 27, seed, device)
    expected = losses_and_gradients(oracle.token_loss, *case, upstream)
    found = losses_and_gradients(token_loss, *case, upstream, chunk_size=16)
    largest_logit = (case[0].double() @ case[1].double().T).abs().max()
    assert (found[0] - expected[0]).abs().max() <= 2**-8 * largest_logit + 1e-5
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert (one - other).abs().max() <= 0.02 * other.abs().max()


def test_losses_are_float32_for_bfloat16_and_float64_for_float64():
    for dtype, expected in [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)]:
        hidden, weight, target, _ = draw(5, 4, 9, dtype=dtype)
        weight.requires_grad_()
        loss = token_loss(hidden.requires_grad_(), weight, target)
        loss.sum().backward()
        assert loss.dtype is expected
        assert hidden.grad.dtype is weight.grad.dtype is dtype


def test_an_ignored_token_has_no_loss_and_no_gradient():
    hidden, weight, target, _ = draw(12, 5, 23)
    target[3:7] = -100
    loss = token_loss(hidden.requires_grad_(), weight, target, chunk_size=5)
    loss.backward(torch.full((12,), 2.0))
    ignored = target == -100
    assert torch.equal(loss == 0, ignored)
    assert torch.equal((hidden.grad == 0).all(-1), ignored)


def backward_flops(kept, *, train_weight=False, train_hidden=True, bound=None, tokens=24, size=8, vocabulary=50):
    hidden, weight, target, _ = draw(tokens, size, vocabulary)
    loss = token_loss(
        hidden.requires_grad_(train_hidden),
        weight.requires_grad_(train_weight),
        target,
        chunk_size=5,
        backward_tokens=bound,
    )
    with FlopCounterMode(display=False) as counter:
        loss.backward(upstream_for(tokens, kept))
    assert (hidden.grad is not None) == train_hidden
    assert (weight.grad is not None) == train_weight
    return counter.get_total_flops() / (2 * size * vocabulary)


@pytest.mark.parametrize("kept", [0, 1, 7, 24])
@pytest.mark.parametrize("bounded", [False, True])
def test_backward_costs_only_the_kept_tokens(kept, bounded):
    """In passes of one token through the projection: the logits again, and one product for each gradient asked for."""
    bound = kept if bounded else None
    assert backward_flops(kept, bound=bound) == 2 * kept
    assert backward_flops(kept, train_weight=True, bound=bound) == 3 * kept
    assert backward_flops(kept, train_weight=True, train_hidden=False, bound=bound) == 2 * kept


@pytest.mark.parametrize("seed", range(12))
def test_a_gradient_taken_first_is_the_same_and_leaves_nothing_to_do(seed):
    hidden, weight, target, bias = draw(24, 8, 50, seed=seed, ignored=0.2, bias=seed % 2 == 1)
    upstream = upstream_for(24, 15, seed)
    found, expected = (hidden.clone().requires_grad_() for _ in range(2))
    oracle.token_loss(expected, weight, target, bias).backward(upstream.double())
    loss = token_loss(found, weight, target, bias, chunk_size=5 + seed, gradient_first=True)
    with FlopCounterMode(display=False) as counter:
        loss.backward(upstream)
    assert counter.get_total_flops() == 0
    torch.testing.assert_close(found.grad, expected.grad, **TOLERANCE)
    assert torch.equal((found.grad == 0).all(-1), (upstream == 0) | (target < 0))


def test_asking_for_the_gradient_first_changes_nothing_where_the_projection_is_trained():
    assert_equals_oracle(draw(24, 8, 50, bias=True), upstream_for(24, 9), chunk_size=7, gradient_first=True)


def test_a_chunk_on_a_cpu_is_no_larger_than_malloc_keeps(monkeypatch):
    monkeypatch.setattr(sys.modules[token_loss.__module__], "CPU_LOGITS", 150)
    case = draw(24, 8, 50)
    with LargestTensor() as recorder:
        token_loss(*case[:3]).sum()
    assert recorder.elements == 150


def test_an_ignored_token_costs_no_backward_work():
    hidden, weight, target, _ = draw(24, 8, 50)
    target[5:] = -100
    loss = token_loss(hidden.requires_grad_(), weight, target)
    with FlopCounterMode(display=False) as counter:
        loss.sum().backward()
    assert counter.get_total_flops() == 2 * 5 * (2 * 8 * 50)


@pytest.mark.parametrize("train_weight", [False, True])
def test_no_tensor_is_as_large_as_tokens_by_vocabulary(train_weight):
    """Nor, under a frozen projection, as large as the gradient that nobody asked for."""
    tokens, size, vocabulary, chunk = 90, 16, 400, 8
    case = draw(tokens, size, vocabulary, bias=True)

    def largest(function, **options):
        leaves = [case[0].clone().requires_grad_(), case[1].clone().requires_grad_(train_weight)]
        with LargestTensor() as recorder:
            function(*leaves, case[2], case[3], **options).sum().backward()
        return recorder.elements

    assert largest(oracle.token_loss) >= tokens * vocabulary
    assert largest(token_loss, chunk_size=chunk) <= (size if train_weight else chunk) * vocabulary


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_peak_memory_on_cuda_is_that_of_a_few_chunks():
    tokens, vocabulary, chunk = 8192, 32000, 256
    hidden, weight, target, _ = draw(tokens, 64, vocabulary, dtype=torch.bfloat16, device="cuda")
    hidden.requires_grad_()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    token_loss(hidden, weight, target, chunk_size=chunk).sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 5 * 4 * chunk * vocabulary


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_known_bound_spares_the_host_every_wait():
    hidden, weight, target, _ = draw(100, 16, 301, device="cuda")
    upstream = upstream_for(100, 60, device="cuda")
    loss = token_loss(hidden.requires_grad_(), weight, target, chunk_size=32, backward_tokens=60)
    loss.backward(upstream)  # libraries and allocator are warm now
    torch.cuda.set_sync_debug_mode("error")
    try:
        token_loss(hidden, weight, target, chunk_size=32, backward_tokens=60).backward(upstream)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_extreme_logits_neither_overflow_nor_give_nan():
    """Logits are exact here, so the answers are too: sure and right, sure and wrong, sure and half as wrong."""
    huge = 1e38
    weight = torch.tensor([[huge], [-huge], [0.0]])
    hidden = torch.ones(3, 1, requires_grad=True)
    loss = token_loss(hidden, weight, torch.tensor([0, 1, 2]), chunk_size=2)
    torch.testing.assert_close(loss.detach(), torch.tensor([0.0, 2 * huge, huge]))
    loss.sum().backward()
    torch.testing.assert_close(hidden.grad, torch.tensor([[0.0], [2 * huge], [huge]]))


@pytest.mark.parametrize("offset", [64.0, 4096.0])
def test_a_shift_of_all_logits_changes_nothing(offset):
    """Logits are multiples of 1/4 and exact in float32 with either offset."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randint(-8, 9, (30, 3), generator=generator) / 4
    weight = torch.randint(-2, 3, (17, 3), generator=generator).float()
    case = (hidden, weight, torch.randint(0, 17, (30,), generator=generator), torch.full((17,), offset))
    assert_equals_oracle(case, torch.ones(30))


def test_a_word_masked_by_its_bias_takes_no_part():
    case = draw(9, 5, 13, bias=True)
    case[2].clamp_(max=11)
    case[3][12] = float("-inf")
    assert_equals_oracle(case, upstream_for(9, 6), chunk_size=4)


def test_no_tokens():
    hidden, weight, target, bias = draw(0, 5, 13, bias=True)
    leaves = [hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    loss = token_loss(leaves[0], leaves[1], target, leaves[2])
    assert loss.shape == (0,)
    assert loss.dtype is torch.float32
    loss.sum().backward()
    assert leaves[0].grad.shape == (0, 5)
    assert not leaves[1].grad.any()
    assert not leaves[2].grad.any()


def test_strides_do_not_matter():
    hidden, weight, target, bias = draw(14, 6, 19, bias=True)
    wide = torch.zeros(28, 12)
    wide[::2, ::2] = hidden
    strided = (
        wide[::2, ::2],
        weight.T.contiguous().T,
        target.repeat_interleave(2)[::2],
        bias.repeat_interleave(3)[::3],
    )
    assert not any(tensor.is_contiguous() for tensor in strided)
    upstream = upstream_for(14, 8)
    expected = losses_and_gradients(token_loss, hidden, weight, target, bias, upstream)
    leaves = [tensor.detach().requires_grad_() for tensor in (strided[0], strided[1], strided[3])]
    loss = token_loss(leaves[0], leaves[1], strided[2], leaves[2], chunk_size=5)
    loss.backward(upstream.repeat_interleave(2)[::2])
    for found, wanted in zip([loss.detach(), *(leaf.grad for leaf in leaves)], expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, **TOLERANCE)


@pytest.mark.parametrize("bias", [False, True])
def test_gradients_are_the_derivative_of_the_loss(bias):
    hidden, weight, target, offset = draw(7, 4, 11, dtype=torch.float64, ignored=0.2, bias=bias)
    leaves = [tensor.requires_grad_() for tensor in (hidden, weight, offset) if tensor is not None]
    assert torch.autograd.gradcheck(lambda h, w, *b: token_loss(h, w, target, *b, chunk_size=3), leaves)


def test_autocast_means_the_losses_of_its_dtype():
    hidden, weight, target, _ = draw(9, 16, 31)
    expected = token_loss(hidden.bfloat16(), weight.bfloat16(), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = token_loss(hidden.requires_grad_(), weight, target)
    found.sum().backward()
    assert torch.equal(found, expected)
    assert hidden.grad.dtype is torch.float32


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(5, 4), torch.zeros(2).long()), {}, r"\(2, 3\) and \(5, 4\)"),
        ((torch.zeros(2, 3), torch.zeros(5, 3), torch.zeros(3).long()), {}, "a target a token"),
        ((torch.zeros(2, 3), torch.zeros(5, 3), torch.zeros(2).long(), torch.zeros(4)), {}, "bias"),
        ((torch.zeros(2, 3), torch.zeros(5, 3), torch.zeros(2).long()), {"chunk_size": 0}, "chunk_size"),
    ],
)
def test_what_does_not_fit_is_an_error(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        token_loss(*arguments, **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("widened", [2**26, 64])
def test_logits_of_narrow_inputs_are_summed_in_float32(dtype, widened, monkeypatch):
    """Losses near 16, where one step of bfloat16 is 0.125, are right to a hundred-thousandth."""
    monkeypatch.setattr(sys.modules["sstoken.selection.token_loss"], "WIDENED", widened)
    torch.manual_seed(0)
    hidden, weight = torch.randn(40, 16).to(dtype), (torch.randn(50, 16) * 4).to(dtype)
    target = torch.randint(0, 50, (40,))
    before = torch.backends.mkldnn.matmul.fp32_precision
    found = token_loss(hidden, weight, target, chunk_size=7)
    expected = oracle.token_loss(hidden, weight, target)
    assert expected.max() > 16
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    rounded = torch.nn.functional.cross_entropy((hidden @ weight.T).float(), target, reduction="none")
    assert (rounded - expected).abs().max() > 1e-3
