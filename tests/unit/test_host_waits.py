"""A step never waits for the device: no operation in it brings a number, or a shape, from there to the host."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sstoken.selection.methods import load_method
from sstoken.training import trainer as module
from sstoken.training.objective import choose
from tests.conftest import ragged_tokens, tiny_adapter, tiny_model
from tests.trainers import trainer_for

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2", "bincount", "is_nonzero"}


class NoWait(TorchDispatchMode):
    """On a GPU each of these copies to the host; so does indexing by a mask, whose shape depends on its content."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_", "_unsafe_index") and any(
            isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1] if i is not None
        )
        if name in WAITS or masks:
            raise AssertionError(f"{operation} waits for the device")
        return operation(*args, **(kwargs or {}))


def watched(trainer):
    """The trainer with every micro-batch but the first of a run, whose scorer is tried out, under watch."""
    step, seen = trainer.training_step, []

    def training_step(*args, **options):
        seen.append(True)
        if len(seen) == 1:
            return step(*args, **options)
        with NoWait():
            return step(*args, **options)

    trainer.training_step = training_step
    return trainer


CASES = {
    "sstoken": {},
    "sstoken, EMA": {"history": "ema"},
    "sstoken, by samples": {"normalisation": "samples"},
    "rho1, by batch": {"scope": "batch"},
    "semantic-aware, by micro-batch": {"normalisation": "micro-batch"},
    "random": {},
}


@pytest.mark.parametrize("every", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_no_step_waits_for_the_device(case, every, tmp_path):
    method = replace(load_method(case.split(",")[0]), **CASES[case])
    model = tiny_adapter(tiny_model(), dropout=0.1)
    trainer = trainer_for(
        method, ragged_tokens(16), tmp_path, model=model, dropped_loss_every=every, args={"max_steps": 2}
    )
    watched(trainer).train()
    assert trainer.state.global_step == 2


def test_a_wait_is_seen(tmp_path, monkeypatch):
    trainer = trainer_for("sstoken", ragged_tokens(16), tmp_path, args={"max_steps": 2})
    monkeypatch.setattr(
        module, "choose", lambda *args, **known: (float(known["loss"].sum()), choose(*args, **known))[1]
    )
    with pytest.raises(AssertionError, match="_local_scalar_dense"):
        watched(trainer).train()
    mask = torch.ones(3, dtype=torch.bool)
    with pytest.raises(AssertionError, match="index"), NoWait():
        torch.arange(3)[mask]
