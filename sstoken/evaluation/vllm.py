"""lm-eval's vLLM backend: faster on a GPU; its scores are near those of ``hf``, not the same, and are marked as its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sstoken.evaluation.benchmarks import EvaluationError, EvaluationSettings


def check_installed() -> None:
    """Raise EvaluationError, saying what to install, where vLLM is not there."""
    if importlib.util.find_spec("vllm") is None:
        raise EvaluationError(
            "evaluation.backend is vllm, which is not installed here: pip install vllm (Linux with CUDA; it pins a torch "
            "of its own, so give it an environment of its own), or set evaluation.backend: hf, the papers' backend"
        )


@contextmanager
def vllm_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: EvaluationSettings) -> Iterator:
    """lm-eval's model over vLLM, which reads weights from a folder and wants the GPU for itself."""
    check_installed()
    from lm_eval.models.vllm_causallms import VLLM

    with TemporaryDirectory(prefix="sstoken-vllm-") as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model.to("cpu")
        torch.cuda.empty_cache()
        yield VLLM(
            pretrained=folder,
            dtype=settings.dtype,
            batch_size="auto",
            max_model_len=settings.max_length,
            add_bos_token=settings.add_bos,
            seed=settings.seed,
        )
