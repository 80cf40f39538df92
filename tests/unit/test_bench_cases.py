"""Cases of the step benchmark that need more than the lock file: what is said of them, and that they train the same loss."""

import importlib.util
import tomllib

import pytest
import torch
from transformers import LlamaConfig, Qwen2Config, TrainerCallback
from transformers.models.llama import modeling_llama
from transformers.models.qwen2 import modeling_qwen2

from benchmarks.cases import EXTRAS, NEEDS_CUDA, build, check_names, left_out, synthetic_data

FAMILIES = {"llama": LlamaConfig, "qwen2": Qwen2Config}


def test_extras_are_those_of_the_project(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    pins = {f"{name}=={pin}" for case in EXTRAS.values() for name, pin in case.items()}
    assert pins == set(project["optional-dependencies"]["bench"])


def test_a_case_that_cannot_run_here_says_what_is_missing():
    reasons = left_out(cpu=True)
    assert reasons.keys() >= NEEDS_CUDA and reasons.items() >= left_out().items()
    for case, reason in reasons.items():
        if all(importlib.util.find_spec(name.replace("-", "_")) for name in EXTRAS[case]):
            assert "CUDA" in reason
        else:
            pins = " ".join(f"{name}=={pin}" for name, pin in EXTRAS[case].items())
            assert f"pip install --no-deps {pins})" in reason


def test_all_cases_are_those_that_can_run():
    names = check_names(["all"], cpu=True)
    assert names[0] == "hf-full" and "sstoken" in names and not NEEDS_CUDA & set(names)
    for case, reason in left_out(cpu=True).items():
        with pytest.raises(SystemExit) as stop:
            check_names(["hf-full", case], cpu=True)
        assert case in str(stop.value) and reason in str(stop.value)
    with pytest.raises(SystemExit, match="Did you mean 'hf-full'"):
        check_names(["hf-ful"])


def test_the_projection_of_uds_is_made_for_the_longest_row(tmp_path):
    LlamaConfig(
        vocab_size=60, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, architectures=["LlamaForCausalLM"],
    ).save_pretrained(tmp_path)  # fmt: skip
    data = synthetic_data([(300, 300), (3, 4)], 1, tmp_path, seed=0)
    trainer = build("uds", tmp_path, data, str(tmp_path / "out"), batch_size=2, cpu=True, random=True)
    assert trainer.train().global_step == 1


@pytest.fixture
def unpatched():
    """Liger replaces names in the module of a model's family, for the whole process: they are put back."""
    modules = (modeling_llama, modeling_qwen2)
    before = [dict(vars(module)) for module in modules]
    yield
    for module, names in zip(modules, before, strict=True):
        vars(module).update(names)


def one_step(case, folder, *, exact=False):
    """-> (loss, gradient of every adapter weight) of a training step on three ragged samples; exact: in float32"""
    data = synthetic_data([(5, 9), (3, 14), (8, 2)], 1, folder, seed=0)
    trainer = build(case, folder, data, str(folder / "out"), batch_size=3, cpu=False, random=True)
    if exact:
        trainer.model.float()
    torch.manual_seed(1)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:  # zero at first, and then the gradient of every A is
            weight.data.normal_(0, 0.1)
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    gradients = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model, **_):
            weights = model.named_parameters()
            gradients.update({name: w.grad.double().cpu() for name, w in weights if w.grad is not None})

    trainer.add_callback(Keep())
    return trainer.train().training_loss, gradients


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", sorted(NEEDS_CUDA))
def test_fused_kernels_train_the_loss_of_plain_hugging_face(case, family, tmp_path, unpatched):
    """In bfloat16 as near to the float32 step as plain Hugging Face in bfloat16 is, within a factor of two."""
    if case in left_out():
        pytest.skip(left_out()[case])
    FAMILIES[family](  # a vocabulary of many blocks: they add to one gradient at a time
        vocab_size=2000, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.1, architectures=[f"{family.title()}ForCausalLM"],
    ).save_pretrained(tmp_path)  # fmt: skip
    exact_loss, exact = one_step("hf-full", tmp_path, exact=True)
    plain_loss, plain = one_step("hf-full", tmp_path)
    loss, gradients = one_step(case, tmp_path)
    assert loss == pytest.approx(exact_loss, rel=2e-3) and plain_loss == pytest.approx(exact_loss, rel=2e-3)
    assert gradients.keys() == exact.keys() and len(exact) == 2 * 2 * 7
    for name, expected in exact.items():
        error, allowed = ((found[name] - expected).norm() for found in (gradients, plain))
        assert expected.norm() > 0 and error < 2 * allowed, name
