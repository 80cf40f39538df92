"""Selection scored against the truth: against a count of pairs one by one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sstoken.data import TokenData
from sstoken.report.selection_scores import run_record, selection_scores, wins_within_samples


def pairs_by_hand(score, sample, clean, same_sample=True):
    wins = pairs = 0
    for i in np.flatnonzero(clean):
        for j in np.flatnonzero(~clean):
            if not same_sample or sample[i] == sample[j]:
                pairs += 1
                wins += (score[i] > score[j]) + 0.5 * (score[i] == score[j])
    return wins, pairs


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
    record = {
        "score": draw.integers(0, 5, total).astype(np.float32),
        "keep": draw.random(total) < 0.5,
        "step": np.array([*np.repeat(np.arange(9), 6), *[-1] * 6], dtype=np.int32),
    }
    rows = selection_scores(record, data).set_index(["phase", "kind"])
    assert len(rows) == 6 * 3
    truth = data.truth[data.response_mask].numpy()
    sample = np.repeat(np.arange(60), data.response_offset.diff().numpy())
    for phase, kind in rows.index:
        steps = record["step"][sample]
        within = steps >= 0 if phase == "all" else (steps >= 0) & (steps * 5 // 9 + 1 == phase)
        noise = truth > 0 if kind == "all" else truth == data.kinds.index(kind) + 1
        chosen = within & (noise | (truth == 0))
        row = rows.loc[(phase, kind)]
        wins, pairs = pairs_by_hand(record["score"][chosen], sample[chosen], truth[chosen] == 0)
        assert row["auc"] == pytest.approx(wins / pairs)
        wins, pairs = pairs_by_hand(record["score"][chosen], sample[chosen], truth[chosen] == 0, same_sample=False)
        assert row["auc_pooled"] == pytest.approx(wins / pairs)
        assert row["tokens"] == (noise & within).sum()
        assert row["kept"] == pytest.approx(record["keep"][noise & within].mean())
        if kind == "all":
            assert row["precision"] == pytest.approx((truth == 0)[record["keep"] & within].mean())
            assert row["recall"] == pytest.approx(record["keep"][(truth == 0) & within].mean())


def test_the_parts_of_a_chain_are_one_run(tmp_path):
    from safetensors.numpy import save_file

    for part in range(2):
        (tmp_path / str(part)).mkdir()
        record = {"score": np.full(3, part, np.float32), "keep": np.array([True] * 3), "step": np.array([0, 1, 1])}
        save_file(record, tmp_path / str(part) / "selection.safetensors")
    record = run_record([tmp_path / "0", tmp_path / "1"])
    assert record["step"].tolist() == [0, 1, 1, 2, 3, 3]
    assert record["score"].tolist() == [0, 0, 0, 1, 1, 1]
