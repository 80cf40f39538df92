"""A scorer that breaks its contract is refused at the first step, by file and reason; none of ours is."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sstoken.experiment.own import own_scorers
from sstoken.selection import Scorer, Signals, minmax
from sstoken.selection.methods import build_method, load_method, load_methods
from sstoken.training.scorer_check import ContractError, check_scorer
from sstoken.training.scorer_trial import faults_of
from tests.conftest import ragged_tokens
from tests.trainers import trainer_for

BROKEN = {
    # ranks against what padding holds
    "padding": (lambda s: s.loss - torch.quantile(s.loss, 0.4, dim=-1, keepdim=True), "what stands in the padding"),
    "booleans": (
        lambda s: s.loss > torch.quantile(s.loss, 0.4, dim=-1, keepdim=True),
        "floating-point numbers, not torch.bool",
    ),
    "whole numbers": (lambda s: s.loss.long(), r"floating-point numbers, not torch\.int64"),
    "mean of the row": (lambda s: s.loss / s.loss.mean(-1, keepdim=True), "what stands in the padding"),
    "mean of the batch": (
        lambda s: s.loss - (s.loss * s.mask_BR).sum() / s.mask_BR.sum(),
        "what else is in the batch",
    ),
    "largest of the batch": (lambda s: s.loss / s.loss.masked_fill(~s.mask_BR, 0).amax(), "what else is in the batch"),
    "number in the batch": (lambda s: s.loss * (1 + torch.arange(len(s.loss)))[:, None], "what else is in the batch"),
    "length of the grid": (lambda s: s.loss / s.loss.shape[1] * 10, "what stands in the padding"),
    "per sample": (lambda s: s.loss.mean(-1), "shape of mask_BR"),
    "not a tensor": (lambda s: s.loss.tolist(), "shape of mask_BR"),
    "not finite": (lambda s: (s.loss - 4).log(), "not finite"),
    "gradient": (lambda s: s.loss * torch.nn.Parameter(torch.ones(())), "gradient"),
}


@dataclass(frozen=True)
class Broken(Scorer):
    how: str = ""

    @property
    def needs(self):
        return frozenset({"loss"})

    def score(self, signals):
        return BROKEN[self.how][0](signals)


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_scorer_is_refused_at_the_first_step_by_its_file(how, tmp_path):
    method = replace(load_method("full"), scorer=Broken(how), keep_ratio=0.6)
    trainer = trainer_for(method, ragged_tokens(24), tmp_path)
    with pytest.raises(ContractError, match=f"(?s)^[^\n]*test_scorer_check.py: [^\n]*{BROKEN[how][1]}[^\n]*$"):
        trainer.train()
    assert trainer.state.global_step == 0


@dataclass(frozen=True)
class Static(Scorer):
    @property
    def needs(self):
        return frozenset({"base_loss"})

    def score(self, signals):
        return signals.base_loss - signals.base_loss.mean()


def test_a_broken_scorer_of_stored_signals_is_refused_before_the_first_step(tmp_path):
    method = replace(load_method("tokencleaning-fixed"), scorer=Static())
    with pytest.raises(ContractError, match=r"test_scorer_check\.py"):
        trainer_for(method, ragged_tokens(24), tmp_path)


def signals(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    mask_BR = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    shape = mask_BR.shape
    names = ("loss", "base_loss", "reference_loss", "history_loss", "attention_mass", "uniform")
    grids = {name: torch.rand(shape, generator=generator).masked_fill(~mask_BR, 0) for name in names}
    truth = torch.randint(0, 3, shape, generator=generator).to(torch.uint8).masked_fill(~mask_BR, 0)
    return Signals(mask_BR=mask_BR, position_B=torch.arange(len(lengths)), truth=truth, **grids)


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any),
    seed=st.integers(0, 999),
    tied=st.booleans(),
)
def test_no_scorer_of_ours_is_refused(lengths, seed, tied):
    given_signals = signals(lengths, seed)
    if tied:  # the first step of self-modulation: the model is its own history
        given_signals = replace(given_signals, history_loss=given_signals.loss)
    for method in load_methods().values():
        known = {name for name in method.needs if getattr(given_signals, name, None) is not None}
        if method.trains and known == method.needs:
            check_scorer(method.scorer, given_signals, method.scorer.score(given_signals))


def test_scores_that_tie_may_be_ranked_in_any_order():
    @dataclass(frozen=True)
    class Ranks(Scorer):
        def score(self, signals):
            loss_BR = (signals.history_loss - signals.loss).masked_fill(~signals.mask_BR, float("-inf"))
            return loss_BR.argsort(-1).argsort(-1).float() - (~signals.mask_BR).sum(-1, keepdim=True)

    first = signals([7, 3, 9], 0)
    first = replace(first, history_loss=first.loss)
    check_scorer(Ranks(), first, Ranks().score(first))


def test_the_check_moves_no_random_number_and_runs_once(tmp_path):
    calls = []

    @dataclass(frozen=True)
    class Counts(Scorer):
        needs = frozenset({"loss"})

        def score(self, signals):
            calls.append(torch.get_rng_state().sum().item())
            return minmax(signals.loss, signals.mask_BR)

    method = replace(load_method("full"), scorer=Counts(), keep_ratio=0.6)
    trainer_for(method, ragged_tokens(24), tmp_path, micro=4, accumulation=2).train()
    first, later = calls[: len(calls) - 5], calls[-5:]
    assert len(first) == 1 + 3 + 4 and len(set(first)) == 1 and len(later) == 5


def scorer_of(tmp_path, body, needs='{"loss"}'):
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\nfrom dataclasses import dataclass\nfrom sstoken.selection import Scorer\n\n\n@dataclass(frozen=True)\n"
        f"class Config(Scorer):\n    @property\n    def needs(self):\n        return frozenset({needs})\n\n"
        f"    def score(self, signals):\n        {body}\n"
    )
    return build_method("mine", {"scorer": str(path), "keep_ratio": 0.6})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return signals.entropy", "mine.py: entropy is read but was not asked for: add 'entropy' to needs"),
        ("return signals.loss.foo", "mine.py:13: AttributeError: 'Tensor' object has no attribute 'foo'"),
        ("return signals.loss / signals.loss.mean(-1, keepdim=True)", "what stands in the padding (use mask_BR)"),
        ("return signals.loss > 1", "floating-point numbers, not torch.bool"),
    ],
)
def test_a_scorer_of_ones_own_is_tried_before_anything_is_trained(tmp_path, body, message):
    (fault,) = faults_of([scorer_of(tmp_path, body)])
    assert fault.startswith("method mine: ") and fault.count("mine.py") == 1 and message in fault


def test_every_shipped_scorer_passes_the_trial():
    methods = [method for method in load_methods().values() if method.scorer]
    assert faults_of(methods) == []
    assert not own_scorers(methods)


def test_a_wrong_scorer_of_ones_own_stops_the_workflow_before_its_first_job(workflow):
    scorer_of(workflow.folder, "return signals.entropy")
    own = {"mine": {"scorer": str(workflow.folder / "mine.py"), "keep_ratio": 0.6}}
    text = workflow.run(workflow.configuration("wrong", own_methods=own, methods=["full", "mine"]), ok=False)
    assert "method mine: " in text and "add 'entropy' to needs" in text and "Traceback" not in text
    assert not workflow.results("wrong").exists()
