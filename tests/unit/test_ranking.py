"""minmax, kept_count and keep_top: exact counts, ties to the earlier token, nothing but response tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sstoken.selection import keep_top, kept_count, minmax
from tests.oracles import selection as oracle

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
SCOPES, ROUNDINGS = ["sample", "batch", "dataset"], ["ceil", "floor"]
NAN, INF = float("nan"), float("inf")
RATIOS = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    return request.param


def ragged(samples, length, seed, *, kind="gaussian", holes=False):
    """(score [B, T], response mask [B, T]): responses of 0 to ``length`` tokens, or any tokens at all with ``holes``.

    kind: "gaussian"; "ties", a handful of values; "infinite" and "nan", those with a third of such values.
    """
    generator = torch.Generator().manual_seed(seed)
    score = torch.randn(samples, length, generator=generator)
    if kind != "gaussian":
        score = torch.randint(-2, 3, (samples, length), generator=generator) / 2
    special = torch.rand(samples, length, generator=generator)
    if kind == "infinite":
        score[special < 0.25], score[special > 0.9] = -INF, INF
    if kind == "nan":
        score[special < 0.3] = NAN
    counts = torch.randint(0, length + 1, (samples, 1), generator=generator)
    mask = torch.arange(length) < counts
    return score, torch.rand(samples, length, generator=generator) < 0.5 if holes else mask


@settings(max_examples=2000, deadline=None, derandomize=True)
@given(
    samples=st.integers(0, 6),
    length=st.integers(0, 25),
    kind=st.sampled_from(["gaussian", "ties", "infinite", "nan"]),
    holes=st.booleans(),
    keep_ratio=RATIOS | st.integers(0, 1000).map(lambda share: share / 1000),
    scope=st.sampled_from(SCOPES),
    rounding=st.sampled_from(ROUNDINGS),
    seed=st.integers(0, 2**31),
)
def test_masks_equal_those_of_sorting_by_hand(samples, length, kind, holes, keep_ratio, scope, rounding, seed):
    score, mask = ragged(samples, length, seed, kind=kind, holes=holes)
    keep = keep_top(score, mask, keep_ratio, scope=scope, rounding=rounding)
    assert keep.dtype is torch.bool
    assert torch.equal(keep, oracle.keep_top(score, mask, keep_ratio, scope=scope, rounding=rounding))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", ["gaussian", "ties", "infinite", "nan"])
def test_masks_equal_those_of_sorting_by_hand_on_cuda(scope, kind):
    for seed in range(20):
        score, mask = ragged(5, 300, seed, kind=kind, holes=seed % 2 == 1)
        keep = keep_top(score.cuda(), mask.cuda(), 0.6, scope=scope)
        assert torch.equal(keep.cpu(), oracle.keep_top(score, mask, 0.6, scope=scope))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("scope", ["sample", "batch"])
def test_ranking_a_batch_on_cuda_makes_no_host_wait(scope):
    score, mask = (tensor.cuda() for tensor in ragged(5, 300, 0))
    keep_top(score, mask, 0.6, scope=scope)
    torch.cuda.set_sync_debug_mode("error")
    try:
        keep_top(minmax(score, mask), mask, 0.6, scope=scope)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("scope", SCOPES)
def test_scores_of_other_widths_are_ranked_as_they_are(dtype, scope, device):
    for seed in range(20):
        score, mask = ragged(4, 40, seed)
        score = score.to(device, dtype)
        keep = keep_top(score, mask.to(device), 0.6, scope=scope)
        assert torch.equal(keep.cpu(), oracle.keep_top(score, mask, 0.6, scope=scope))


@pytest.mark.parametrize("scope", SCOPES)
def test_ties_go_to_the_earlier_token(scope, device):
    score = torch.zeros(2, 700, device=device)
    mask = torch.arange(700, device=device).expand(2, 700) >= 100
    keep = keep_top(score, mask, 0.5, scope=scope)
    expected = torch.zeros_like(keep)
    if scope == "sample":
        expected[:, 100:400] = True
    else:
        expected[0, 100:] = True
    assert torch.equal(keep, expected)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("worst", [-INF, NAN, torch.finfo(torch.float32).min])
def test_the_worst_score_still_ranks_before_what_is_no_response(scope, worst):
    score = torch.tensor([[9.0, INF, worst, worst, 1.0, 9.0]])
    mask = torch.tensor([[False, False, True, True, True, False]])
    for ratio, expected in [(1.0, [2, 3, 4]), (0.6, [2, 4]), (0.3, [4]), (0.0, [])]:
        assert keep_top(score, mask, ratio, scope=scope)[0].nonzero()[:, 0].tolist() == expected


@pytest.mark.parametrize("scope", SCOPES)
def test_not_a_number_ranks_below_every_number(scope):
    score = torch.tensor([[NAN, 0.5, NAN, -1e30, 0.7]])
    keep = keep_top(score, torch.ones(1, 5, dtype=torch.bool), 0.6, scope=scope)
    assert keep[0].tolist() == [False, True, False, True, True]


@pytest.mark.parametrize("scope", SCOPES)
def test_not_a_number_ranks_below_minus_infinity(scope):
    score = torch.tensor([[NAN, -INF]])
    keep = keep_top(score, torch.ones(1, 2, dtype=torch.bool), 0.5, scope=scope)
    assert keep[0].tolist() == [False, True]


def test_a_batch_is_ranked_as_a_whole_and_samples_one_by_one():
    score, mask = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]), torch.ones(2, 4, dtype=torch.bool)
    assert keep_top(score, mask, 0.5).sum(-1).tolist() == [2, 2]
    for scope in ("batch", "dataset"):
        assert keep_top(score, mask, 0.5, scope=scope).sum(-1).tolist() == [0, 4]


@pytest.mark.parametrize("scope", SCOPES)
def test_the_mask_depends_on_neither_strides_nor_a_gradient_and_is_a_tensor_of_its_own(scope):
    score, mask = ragged(4, 9, 3)
    expected = keep_top(score, mask, 0.6, scope=scope)
    strided = score.T.contiguous().T.requires_grad_(), mask.T.contiguous().T
    assert torch.equal(keep_top(*strided, 0.6, scope=scope), expected)
    before = mask.clone()
    keep_top(score, mask, 0.6, scope=scope).logical_not_()
    assert torch.equal(mask, before)


@pytest.mark.parametrize(("scope", "ratio"), [("sample", 1.0), ("batch", 1.0), ("dataset", 1.0)])
def test_keeping_all_gives_a_mask_of_its_own(scope, ratio):
    score, mask = ragged(4, 9, 3)
    before = mask.clone()
    keep_top(score, mask, ratio, scope=scope).zero_()
    assert torch.equal(mask, before)


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(
    count=st.integers(0, 100_000),
    keep_ratio=st.integers(0, 10_000).map(lambda share: share / 10_000),
    rounding=st.sampled_from(ROUNDINGS),
)
def test_counts_are_exact_in_decimals_for_numbers_and_tensors_alike(count, keep_ratio, rounding):
    expected = oracle.kept_count(count, keep_ratio, rounding)
    found = kept_count(count, keep_ratio, rounding)
    assert type(found) is int
    assert found == expected
    assert kept_count(torch.tensor([[count]]), keep_ratio, rounding).tolist() == [[expected]]


@pytest.mark.parametrize(
    ("count", "keep_ratio", "rounding", "expected"),
    [(20, 0.55, "ceil", 11), (100, 0.29, "floor", 29), (10, 0.6, "ceil", 6), (5, 0.6, "floor", 3), (1, 0.6, "floor", 0),
     (1, 0.001, "ceil", 1), (7, 0.6, "ceil", 5), (7, 0.6, "floor", 4), (0, 0.6, "ceil", 0), (7, 0, "ceil", 0),
     (7, 1, "floor", 7)],
)  # fmt: skip
def test_counts_known_by_heart(count, keep_ratio, rounding, expected):
    assert kept_count(count, keep_ratio, rounding) == expected
    keep = keep_top(torch.zeros(1, count), torch.ones(1, count, dtype=torch.bool), keep_ratio, rounding=rounding)
    assert keep.sum() == expected


@pytest.mark.parametrize(("keep_ratio", "rounding"), [(1 - 1 / 3, "ceil"), (1 / 3, "floor")])
def test_a_ratio_of_all_digits_gives_numbers_and_tensors_the_same_count(keep_ratio, rounding):
    """The collator counts with numbers, the mask with tensors: they must never differ."""
    number = kept_count(3, keep_ratio, rounding)
    assert kept_count(torch.tensor(3), keep_ratio, rounding).item() == number


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    samples=st.integers(0, 5),
    length=st.integers(0, 20),
    kind=st.sampled_from(["gaussian", "ties"]),
    holes=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_minmax_is_that_of_each_sample_alone(samples, length, kind, holes, seed):
    value, mask = ragged(samples, length, seed, kind=kind, holes=holes)
    expected = oracle.minmax(value, mask)
    value[~mask] = NAN  # nothing outside the mask may count
    found = minmax(value, mask)
    assert found.dtype is torch.float32
    assert found.shape == value.shape
    assert ((found[mask] >= 0) & (found[mask] <= 1)).all()
    torch.testing.assert_close(found[mask].double(), expected[mask], atol=1e-5, rtol=0.0)
    assert not found[~mask].any()


def test_minmax_by_hand(device):
    value = torch.tensor(
        [[3.0, 5.0, 4.0, 99.0], [7.0, 7.0, 7.0, -1.0], [1.0, 2.0, 3.0, 4.0], [-6.0, 0, 0, 0]], device=device
    )
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.bool, device=device)
    expected = torch.tensor([[0.0, 1.0, 0.5, 0.0], [0.0] * 4, [0.0] * 4, [0.0] * 4], device=device)
    torch.testing.assert_close(minmax(value, mask), expected, atol=1e-6, rtol=0.0)


def test_minmax_eps_bounds_what_a_hair_of_difference_can_do():
    value, mask = torch.tensor([[0.0, 1e-9]]), torch.ones(1, 2, dtype=torch.bool)
    torch.testing.assert_close(minmax(value, mask), torch.tensor([[0.0, 1 / 11]]), atol=1e-6, rtol=0.0)
    torch.testing.assert_close(minmax(value, mask, eps=1e-9), torch.tensor([[0.0, 0.5]]), atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, NAN, INF])
def test_a_share_beyond_all_or_nothing_is_an_error(ratio):
    with pytest.raises((ValueError, OverflowError)):
        keep_top(torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), ratio)


def test_unknown_words_and_shapes_are_errors_that_name_the_known_ones():
    score, mask = torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="'sample', 'batch' or 'dataset', not 'row'"):
        keep_top(score, mask, 0.5, scope="row")
    with pytest.raises(ValueError, match="'ceil' or 'floor', not 'round'"):
        keep_top(score, mask, 0.5, rounding="round")
    with pytest.raises(ValueError, match=r"\(1, 3\), \(3,\)"):
        keep_top(score, mask[0], 0.5)
