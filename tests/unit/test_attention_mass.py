"""attention_mass: the mass of a softmax written out, without a [T, T] tensor."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from sstoken.selection import attention_mass
from tests.oracles import selection as oracle

TOLERANCE = {"atol": 1e-5, "rtol": 0.0}


class Operations(TorchDispatchMode):
    """Names of the operations run, and the elements of the largest tensor that any of them gave out."""

    def __init__(self):
        super().__init__()
        self.names, self.elements = set(), 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        self.names.add(function.__name__)
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return result


def turns(lengths, total):
    """bool [total]: prompt and response by turns, of the given lengths, then padding (which is no prompt)."""
    mask = [turn % 2 == 0 for turn, length in enumerate(lengths) for _ in range(length)]
    return torch.tensor((mask + [False] * total)[:total], dtype=torch.bool)


def draw(batch, heads, groups, length, size, *, seed=0, dtype=torch.float32, device="cpu"):
    """(query [B, H, T, K], key [B, G, T, K], prompt mask [B, T]) of one to four turns and some padding a sample."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads, length, size, generator=generator)
    key = torch.randn(batch, groups, length, size, generator=generator)
    rows = []
    for _ in range(batch):
        count = int(torch.randint(1, 5, (), generator=generator))
        rows.append(turns(torch.randint(0, length // 2 + 2, (count,), generator=generator).tolist(), length))
    return query.to(device, dtype), key.to(device, dtype), torch.stack(rows).to(device)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 3),
    queries_a_group=st.integers(1, 3),
    length=st.integers(1, 19),
    size=st.integers(1, 17),
    scale=st.sampled_from([None, 0.01, 0.3, 5.0]),
    seed=st.integers(0, 2**31),
)
def test_mass_is_that_of_a_softmax_written_out(batch, groups, queries_a_group, length, size, scale, seed):
    query, key, prompt = draw(batch, groups * queries_a_group, groups, length, size, seed=seed)
    mass = attention_mass(query, key, prompt, scale=scale)
    assert mass.dtype is torch.float32
    assert ((mass >= 0) & (mass <= 1)).all()
    torch.testing.assert_close(mass.double(), oracle.attention_mass(query, key, prompt, scale=scale), **TOLERANCE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [16, 13])
def test_mass_is_that_of_a_softmax_written_out_on_cuda(dtype, size):
    query, key, prompt = draw(3, 6, 2, 33, size, dtype=dtype, device="cuda")
    mass = attention_mass(query, key, prompt)
    assert mass.dtype is torch.float32
    torch.testing.assert_close(
        mass.cpu().double(), oracle.attention_mass(query.cpu(), key.cpu(), prompt.cpu()), **TOLERANCE
    )


def test_bfloat16_states_give_float32_masses_as_exact_as_float32_ones():
    query, key, prompt = draw(2, 6, 2, 21, 16, dtype=torch.bfloat16)
    expected = oracle.attention_mass(query, key, prompt)
    for autocast in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            mass = attention_mass(query, key, prompt)
        assert mass.dtype is torch.float32
        torch.testing.assert_close(mass.double(), expected, **TOLERANCE)


def test_no_prompt_gives_nothing_and_all_prompt_everything():
    query, key, _ = draw(1, 4, 2, 15, 8)
    assert not attention_mass(query, key, torch.zeros(1, 15, dtype=torch.bool)).any()
    everything = attention_mass(query * 30, key, torch.ones(1, 15, dtype=torch.bool))
    torch.testing.assert_close(everything, torch.ones(1, 15), **TOLERANCE)
    assert everything.max() <= 1


def test_every_prompt_turn_before_the_query_counts_and_none_after_it():
    """With equal keys the mass is the share of prompt tokens up to the query: prompt, response, prompt, response."""
    prompt = turns([3, 2, 4, 3], 12)[None]
    query, key = torch.randn(1, 2, 12, 4, generator=torch.Generator().manual_seed(0)), torch.ones(1, 1, 12, 4)
    expected = prompt.cumsum(-1) / torch.arange(1, 13)
    torch.testing.assert_close(attention_mass(query, key, prompt), expected, **TOLERANCE)


def test_padding_on_the_right_does_no_harm_whatever_it_holds():
    query, key, prompt = draw(1, 4, 2, 13, 8)
    garbage = torch.full((1, 4, 9, 8), 1e4)
    padded = [torch.cat([query, garbage], 2), torch.cat([key, garbage[:, :2]], 2)]
    mask = torch.cat([prompt, torch.zeros(1, 9, dtype=torch.bool)], 1)
    torch.testing.assert_close(attention_mass(*padded, mask)[:, :13], attention_mass(query, key, prompt), **TOLERANCE)


def test_default_scale_is_one_over_the_root_of_the_head_size():
    query, key, prompt = draw(2, 4, 4, 11, 9)
    assert torch.equal(attention_mass(query, key, prompt), attention_mass(query, key, prompt, scale=1 / 3))
    assert not torch.allclose(attention_mass(query, key, prompt), attention_mass(query, key, prompt, scale=1.0))


def test_sharp_attention_lands_wholly_on_one_token():
    """Token 3's query equals token 1's key alone: all mass on token 1, at dot products in the tens of thousands."""
    key = torch.eye(5)[None, None] * 300.0
    query = key.roll(2, dims=2)
    for position, expected in [(1, 1.0), (0, 0.0), (2, 0.0), (3, 0.0)]:
        prompt = torch.zeros(1, 5, dtype=torch.bool)
        prompt[0, position] = True
        assert attention_mass(query, key, prompt)[0, 3].item() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 2])
def test_no_tensor_holds_a_row_of_scores_for_each_position(dtype, groups):
    heads, length, size = 2, 640, 16
    query, key, prompt = draw(1, heads, groups, length, size, dtype=dtype)
    with Operations() as operations:
        attention_mass(query, key, prompt)
    assert any("scaled_dot_product_flash" in name or "efficient_attention" in name for name in operations.names)
    assert operations.elements <= heads * length * size < length * length
    with Operations() as dense:
        (query @ key.repeat_interleave(heads // groups, 1).mT).softmax(-1)
    assert dense.elements == heads * length * length


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_memory_on_cuda_grows_with_length_and_not_its_square(dtype):
    length = 8192
    query, key, prompt = draw(1, 9, 3, length, 64, dtype=dtype, device="cuda")
    attention_mass(query[:, :, :64], key[:, :, :64], prompt[:, :64])
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        attention_mass(query, key, prompt)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.max_memory_allocated() - before < 4 * length * length


def test_strides_do_not_matter():
    query, key, prompt = draw(2, 4, 2, 11, 8)
    strided = (query.transpose(1, 2).contiguous().transpose(1, 2), key.mT.contiguous().mT, prompt.T.contiguous().T)
    assert not any(tensor.is_contiguous() for tensor in strided)
    torch.testing.assert_close(attention_mass(*strided), attention_mass(query, key, prompt), **TOLERANCE)


def test_a_mass_carries_no_gradient():
    query, key, prompt = draw(1, 2, 2, 5, 4)
    assert not attention_mass(query.requires_grad_(), key.requires_grad_(), prompt).requires_grad


@pytest.mark.parametrize(("batch", "length"), [(2, 0), (0, 5)])
def test_nothing_in_nothing_out(batch, length):
    query, key = torch.zeros(batch, 4, length, 8), torch.zeros(batch, 2, length, 8)
    mass = attention_mass(query, key, torch.zeros(batch, length, dtype=torch.bool))
    assert mass.shape == (batch, length)
    assert mass.dtype is torch.float32


@pytest.mark.parametrize(("heads", "groups", "columns"), [(4, 3, 5), (4, 2, 6)])
def test_shapes_that_do_not_belong_together_are_an_error(heads, groups, columns):
    query, key = torch.zeros(1, heads, 5, 8), torch.zeros(1, groups, 5, 8)
    with pytest.raises(ValueError, match="attention_mass needs"):
        attention_mass(query, key, torch.zeros(1, columns, dtype=torch.bool))
