"""What tests share: real data when it is at hand, and tiny models and data that need nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from sstoken.data import TokenData
from tests.flow import Workflow

ROOT = Path(__file__).parents[1]
VOCABULARY = 97
LONG = re.compile(
    r"Trainer\b|tests\.(trainers|ranks|flow|simulation|hub)|lm_eval|harness|pretrain|figures import|generate\(|subprocess"
)

# a busy machine is not a wrong result
settings.register_profile("sstoken", deadline=None)
settings.load_profile("sstoken")


if "PYTEST_XDIST_WORKER" in os.environ:  # a thread a process
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_xdist_auto_num_workers():
    """A process a core, and one for the core of whoever waits: for SLURM, a browser, a server. None: as pytest-xdist says."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else min((os.cpu_count() or 1) + 1, 9)


def pytest_collection_modifyitems(items):
    """What runs the workflow, trains, generates a world's weights or starts lm-eval is no part of `make check`.

    With several processes the longest start first.
    """
    slow = {path for path in {item.path for item in items} if LONG.search(path.read_text())}
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if item.path in slow or {"ci", "workflow"} & fixtures:
            item.add_marker("trains")
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: (item.path.parent.name == "unit", item.path not in slow))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real instruction data and benchmark samples; tests that want them are skipped where there are none."""
    folder = Path(os.environ.get("SSTOKEN_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data here (SSTOKEN_SHARED_DATA names its folder)")
    return folder


@pytest.fixture(scope="session")
def benchmark_rows(shared_data, tmp_path_factory) -> Path:
    """Real rows of every benchmark, laid out as benchmarks.tsv says; of ASDiv, which the samples lack, some in its form."""
    if not (shared_data / "benchmarks").is_dir():
        pytest.skip("the shared data hold no benchmarks")
    folder = tmp_path_factory.mktemp("data") / "benchmarks"
    folder.mkdir()
    (folder.parent / "instruct").symlink_to(shared_data / "instruct")
    for path in (shared_data / "benchmarks").iterdir():
        (folder / path.name).symlink_to(path)
    if not (folder / "asdiv").exists():
        (folder / "asdiv").mkdir()
        rows = [
            {
                "body": f"Ada has {n} pears and buys {n + 2}.",
                "question": "How many pears has she?",
                "solution_type": "Addition",
                "answer": f"{2 * n + 2} (pears)",
                "formula": f"{n}+{n + 2}={2 * n + 2}",
            }
            for n in range(1, 25)
        ]
        (folder / "asdiv" / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def ragged_tokens(samples: int = 12, seed: int = 0, *, prompt=(1, 20), response=(1, 30), turns: int = 1) -> TokenData:
    """Random samples of ``turns`` prompt-response pairs each."""
    generator = np.random.default_rng(seed)
    ids, mask, offset = [], [], [0]
    for _ in range(samples):
        for _ in range(turns):
            prompts, responses = int(generator.integers(*prompt)), int(generator.integers(*response))
            ids += generator.integers(0, VOCABULARY, prompts + responses).tolist()
            mask += [False] * prompts + [True] * responses
        offset.append(len(ids))
    names = tuple(f"sample-{number}" for number in range(samples))
    return TokenData(torch.tensor(ids, dtype=torch.int32), torch.tensor(offset), torch.tensor(mask), names)


def tiny_model(family: str = "llama", seed: int = 0, layers: int = 3):
    """A random causal language model of a few thousand parameters, in float32 and evaluation mode."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    config, model = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}[family]
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    return model(config(vocab_size=VOCABULARY, num_hidden_layers=layers, **shape)).eval()


def tiny_adapter(model, dropout: float = 0.0, random: bool = True):
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "v_proj", "down_proj"]
    options = {"r": 4, "lora_alpha": 8, "lora_dropout": dropout, "init_lora_weights": not random}
    return get_peft_model(model, LoraConfig(target_modules=targets, task_type="CAUSAL_LM", **options))


@pytest.fixture
def workflow(tmp_path) -> Workflow:
    return Workflow(tmp_path)


@pytest.fixture(scope="session")
def ci(tmp_path_factory) -> Workflow:
    """ci.yaml from nothing to its table, once for all tests that look at what it left; each process has a copy of it."""
    folder = tmp_path_factory.mktemp("ci")
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return finished(folder)
    shared = tmp_path_factory.getbasetemp().parent / "ci"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            flow = finished(folder)
            shutil.copytree(folder, shared, symlinks=True)
            Path(f"{shared}.txt").write_text(flow.output)
            return flow
    folder.rmdir()
    shutil.copytree(shared, folder, symlinks=True)
    flow = Workflow(folder)
    flow.output = Path(f"{shared}.txt").read_text()
    return flow


def finished(folder: Path) -> Workflow:
    flow = Workflow(folder)
    flow.output = flow.run("config/ci.yaml")
    return flow
