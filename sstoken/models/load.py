"""The grid's models as they are loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from sstoken.models.sources import weights_sha256

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Weights:
    """Weights that can be loaded: a base folder, and optionally what a run made of it (an adapter or whole weights)."""

    base: Path
    run: Path | None = None

    @property
    def sha256(self) -> str:
        own = weights_sha256(self.run) if self.run else ""
        return hashlib.sha256(f"{weights_sha256(self.base)} {own}".encode()).hexdigest()

    def load(self, *, dtype: str, device: str | torch.device = "cpu", merge: bool = True) -> PreTrainedModel:
        """The model in evaluation mode; an adapter is merged (as before the paper's evaluation) unless ``merge`` is off."""
        adapter = self.run is not None and (self.run / "adapter_config.json").exists()
        folder = self.base if self.run is None or adapter else self.run
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=DTYPES[dtype], local_files_only=True, use_safetensors=True
        )
        model.to(device)
        if adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, self.run, is_trainable=not merge)
            model = model.merge_and_unload() if merge else model
        return model.eval() if merge else model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer, of the class that the folder itself names."""
    config = folder / "tokenizer_config.json"
    named = json.loads(config.read_text()).get("tokenizer_class") if config.exists() else None
    if named in ("PreTrainedTokenizerFast", "TokenizersBackend"):  # the same class, before and since transformers 5
        # by the model's type AutoTokenizer would take, e.g., Qwen2Tokenizer, which splits words another way
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def load_config(folder: Path) -> PreTrainedConfig:
    return AutoConfig.from_pretrained(folder, local_files_only=True)


def count_parameters(folder: Path) -> int:
    """Parameters of the architecture, from its config alone."""
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).parameters())
