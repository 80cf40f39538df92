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
        lm = VLLM(
            pretrained=folder,
            dtype=settings.dtype,
            batch_size="auto",
            max_model_len=settings.max_length,
            add_bos_token=settings.add_bos,
            seed=settings.seed,
        )
        lm.model = Counting(lm.model, model)
        yield lm


class Counting:
    """vLLM's engine, which tells ``model.tokens_elsewhere`` how many tokens it read and wrote: no hook of torch sees them."""

    def __init__(self, engine, model):
        self._engine, self._model = engine, model
        model.tokens_elsewhere = 0

    def __getattr__(self, name: str):
        return getattr(self._engine, name)

    def generate(self, *args, **options):
        outputs = self._engine.generate(*args, **options)
        for output in outputs:
            # of several samples, the prompt is read once; the first token comes out of that pass
            written = sum(max(len(sample.token_ids) - 1, 0) for sample in output.outputs)
            self._model.tokens_elsewhere += len(output.prompt_token_ids) + written
        return outputs
