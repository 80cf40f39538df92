"""Selection scored against the truth: against a count of pairs one by one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sstoken.data import TokenData
from sstoken.report.audit import audit_rows
from sstoken.report.selection_files import Selection, read_parts
from sstoken.report.selection_scores import selection_scores, wins_within_samples


def pairs_by_hand(score, sample, clean, same_sample=True):
    wins = pairs = 0
    for i in np.flatnonzero(clean):
        for j in np.flatnonzero(~clean):
            if not same_sample or sample[i] == sample[j]:
                pairs += 1
                wins += (score[i] > score[j]) + 0.5 * (score[i] == score[j])
    return wins, pairs


def auc_by_hand(score, sample, clean):
    """Each sample's pairs one by one; a sample with N tokens weighs 1 / (N + 1)."""
    wins = pairs = 0.0
    for index in np.unique(sample):
        mine = sample == index
        own_wins, own_pairs = pairs_by_hand(score[mine], sample[mine], clean[mine])
        wins, pairs = wins + own_wins / (mine.sum() + 1), pairs + own_pairs / (mine.sum() + 1)
    return wins / pairs


def test_a_long_sample_counts_by_its_tokens_and_not_by_its_pairs():
    """Thirty samples of 4 tokens, scored right, and one of 120 tokens, scored the wrong way round."""
    lengths = [4] * 30 + [120]
    truth = torch.tensor([code for n in lengths for code in (0, *[0] * (n // 2), *[1] * (n // 2))], dtype=torch.uint8)
    mask = torch.tensor([code for n in lengths for code in (False, *[True] * n)])
    offset = torch.tensor([0, *np.cumsum([n + 1 for n in lengths])])
    ids = torch.zeros(len(mask), dtype=torch.int32)
    data = TokenData(ids, offset, mask, tuple(map(str, range(31))), truth, ("wrong",))
    found = truth[mask].numpy() == 0
    found[-120:] = ~found[-120:]
    record = Selection(found.astype(np.float32), found, np.arange(31, dtype=np.int32))
    rows = selection_scores(record, data).set_index(["phase", "kind"])
    # by pairs: 30 * 4 of 30 * 4 + 3600, so 0.03
    assert rows.loc[("all", "all"), "auc"] == pytest.approx((30 * 4 / 5) / (30 * 4 / 5 + 3600 / 121))
    audited = audit_rows({"score": record.score, "keep": record.keep}, record.step, data).set_index(["phase", "kind"])
    assert audited["auc"][("all", "all")] == pytest.approx(rows.loc[("all", "all"), "auc"])


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_wins_are_those_counted_pair_by_pair(data):
    count = data.draw(st.integers(0, 30))
    score = np.array(data.draw(st.lists(st.integers(0, 4), min_size=count, max_size=count)), dtype=float)
    sample = np.array(data.draw(st.lists(st.integers(0, 4), min_size=count, max_size=count)), dtype=int)
    clean = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=bool)
    wins, pairs = wins_within_samples(score, sample, clean, 5)
    for index in range(5):
        mine = sample == index
        assert (wins[index], pairs[index]) == pairs_by_hand(score[mine], sample[mine], clean[mine])


def noisy_data(samples=20, seed=0) -> TokenData:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(2, 9, samples)
    mask = np.concatenate([[False, *[True] * (n - 1)] for n in lengths])
    truth = np.where(mask, draw.integers(0, 3, len(mask)), 0)
    offset = torch.tensor([0, *lengths.cumsum()])
    names = tuple(map(str, range(samples)))
    ids = torch.zeros(len(mask), dtype=torch.int32)
    return TokenData(ids, offset, torch.tensor(mask), names, torch.tensor(truth, dtype=torch.uint8), ("wrong", "odd"))


def test_rows_by_phase_and_kind():
    data, draw = noisy_data(60), np.random.default_rng(1)
    total = int(data.response_offset[-1])
    step = np.array([*np.repeat(np.arange(9), 6), *[-1] * 6], dtype=np.int32)
    record = Selection(draw.integers(0, 5, total).astype(np.float32), draw.random(total) < 0.5, step)
    rows = selection_scores(record, data).set_index(["phase", "kind"])
    assert len(rows) == 6 * 3
    audited = audit_rows({"score": record.score, "keep": record.keep}, step, data).set_index(["phase", "kind"])
    assert np.allclose(audited["auc"][rows.index], rows["auc"], equal_nan=True)
    truth = data.truth[data.response_mask].numpy()
    sample = np.repeat(np.arange(60), data.response_offset.diff().numpy())
    for phase, kind in rows.index:
        steps = record.step[sample]
        within = steps >= 0 if phase == "all" else (steps >= 0) & (steps * 5 // 9 + 1 == phase)
        noise = truth > 0 if kind == "all" else truth == data.kinds.index(kind) + 1
        chosen = within & (noise | (truth == 0))
        row = rows.loc[(phase, kind)]
        assert row["auc"] == pytest.approx(auc_by_hand(record.score[chosen], sample[chosen], truth[chosen] == 0))
        wins, pairs = pairs_by_hand(record.score[chosen], sample[chosen], truth[chosen] == 0, same_sample=False)
        assert row["auc_pooled"] == pytest.approx(wins / pairs)
        assert row["tokens"] == (noise & within).sum()
        assert row["kept"] == pytest.approx(record.keep[noise & within].mean())
        if kind == "all":
            assert row["precision"] == pytest.approx((truth == 0)[record.keep & within].mean())
            assert row["recall"] == pytest.approx(record.keep[(truth == 0) & within].mean())


def record_of(data: TokenData, seed: int = 1) -> Selection:
    draw, total = np.random.default_rng(seed), int(data.response_offset[-1])
    step = np.arange(len(data), dtype=np.int32) // 3
    return Selection(draw.integers(0, 9, total).astype(np.float32), draw.random(total) < 0.5, step)


def test_tokens_that_are_always_clean_do_not_flatter_the_score():
    """A score that knows nothing but the last token of each sample, where no noise can be."""
    data = noisy_data(80)
    last = torch.zeros_like(data.response_mask)
    last[data.offset[1:] - 1] = True
    truth = data.truth.masked_fill(last, 0)
    data = TokenData(data.input_ids, data.offset, data.response_mask, data.ids, truth, data.kinds)
    record = replace(record_of(data), score=last[data.response_mask].numpy().astype(np.float32))
    rows = selection_scores(record, data := replace(data, always_clean=last)).set_index(["phase", "kind"])
    assert rows.loc[("all", "all")]["auc"] > 0.6
    assert rows.loc[("all", "all")]["auc_open"] == 0.5 and rows.loc[("all", "all")]["auc_kinds"] == 0.5
    chosen = data.response_mask.numpy() & ~last.numpy()
    sample = np.repeat(np.arange(80), data.lengths.numpy())[chosen]
    score = record_of(data).score
    rows = selection_scores(record_of(data), data).set_index(["phase", "kind"])
    expected = auc_by_hand(score[chosen[data.response_mask.numpy()]], sample, truth.numpy()[chosen] == 0)
    assert rows.loc[("all", "all")]["auc_open"] == pytest.approx(expected)


def test_a_frequent_harmless_kind_does_not_drown_a_rare_harmful_one():
    """Ten tokens of boilerplate that are kept, one wrong answer that is found: 0.49-like over tokens, 0.5 over kinds."""
    length, samples = 14, 30
    truth = torch.tensor([0, 0, 0, 1, *[2] * 10] * samples, dtype=torch.uint8)
    mask = torch.tensor([False, *[True] * 13] * samples)
    offset = torch.arange(samples + 1) * length
    names = tuple(map(str, range(samples)))
    data = TokenData(torch.zeros(len(mask), dtype=torch.int32), offset, mask, names, truth, ("wrong", "boilerplate"))
    score = np.array([1, 1, 0, *[2] * 10] * samples, dtype=np.float32)
    record = Selection(score, score > 0, np.arange(samples, dtype=np.int32))
    row = selection_scores(record, data).set_index(["phase", "kind"]).loc[("all", "all")]
    assert row["auc"] == pytest.approx(1 / 11) and row["auc_kinds"] == 0.5


def test_teaching_tokens_are_counted_in_all_samples_and_in_those_of_a_kind():
    data = noisy_data(60)
    teaches = torch.tensor(np.random.default_rng(5).random(len(data.input_ids)) < 0.4)
    record = record_of(data)
    rows = selection_scores(record, replace(data, teaches=teaches)).set_index(["phase", "kind"])
    mask, truth = data.response_mask.numpy(), data.truth.numpy()
    sample = np.repeat(np.arange(60), data.lengths.numpy())
    phase = np.minimum(record.step * 5 // (record.step.max() + 1) + 1, 5)
    for (which, kind), row in rows.iterrows():
        chosen = mask & teaches.numpy() & (truth == 0)
        if which != "all":
            chosen &= phase[sample] == which
        if kind != "all":
            code = data.kinds.index(kind) + 1
            chosen &= np.isin(sample, sample[mask & (truth == code)])
        assert row["teaching_tokens"] == chosen.sum()
        assert row["teaching_kept"] == pytest.approx(record.keep[chosen[mask]].mean())


def test_without_these_labels_their_columns_are_empty():
    rows = selection_scores(record_of(noisy_data(30)), noisy_data(30))
    assert rows["auc_open"].isna().all() and rows["teaching_kept"].isna().all() and (rows["teaching_tokens"] == 0).all()
    whole = rows[rows["kind"] != "all"].groupby("phase", sort=False)["auc"].mean()
    every = rows[rows["kind"] == "all"].set_index("phase")["auc_kinds"]
    assert every.loc[whole.index].tolist() == pytest.approx(whole.tolist())


def test_the_parts_of_a_chain_are_one_run(tmp_path):
    from safetensors.numpy import save_file

    for part in range(2):
        (tmp_path / str(part)).mkdir()
        record = {"score": np.full(3, part, np.float32), "keep": np.array([True] * 3), "step": np.array([0, 1, 1])}
        save_file(record, tmp_path / str(part) / "selection.safetensors")
    record = read_parts([tmp_path / "0", tmp_path / "1"])
    assert record.step.tolist() == [0, 1, 1, 2, 3, 3]
    assert record.score.tolist() == [0, 0, 0, 1, 1, 1]
