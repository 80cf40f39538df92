"""Configuration: closed schemas, defaults filled in, errors that name the key and the file.

The schemas beside this file are the one home of keys, types, defaults and their descriptions; ``config/README.md`` is
made from them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sstoken.experiment.settings import merged, settings_of
from sstoken.records.documents import read_yaml, schema, validate

__all__ = [
    "AdapterSettings",
    "Parallel",
    "TrainingSettings",
    "check_config",
    "load_config",
    "read_config",
    "settings_of",
]


@dataclass(frozen=True)
class AdapterSettings:
    """LoRA (see sstoken/experiment/schemas/config.schema.yaml for every key)."""

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...] | str


@dataclass(frozen=True)
class Parallel:
    """gpus: processes of one run. strategy: "ddp" (the model on each) or "fsdp" (a shard of it on each)."""

    gpus: int = 1
    strategy: str = "ddp"


@dataclass(frozen=True)
class TrainingSettings:
    """The recipe (see sstoken/experiment/schemas/config.schema.yaml for every key)."""

    adapter: AdapterSettings | None
    learning_rate: float
    schedule: str
    warmup_share: float
    weight_decay: float
    epochs: float
    max_steps: int
    micro_batch_size: int
    accumulation: int
    shuffle: bool
    dtype: str
    max_grad_norm: float
    gradient_checkpointing: bool
    checkpoint_every: int
    chunk_size: int
    dropped_loss_every: int

    @classmethod
    def of(cls, section: dict) -> TrainingSettings:
        adapter = section["adapter"]
        if adapter is not None:
            targets = adapter["targets"]
            adapter = AdapterSettings(**{**adapter, "targets": targets if isinstance(targets, str) else tuple(targets)})
        return cls(**{**section, "adapter": adapter})


def load_config(path: str | Path, **settings) -> dict:
    """Read one configuration file, lay ``settings`` over it, check it and fill in defaults.

    ``settings`` change what they name and nothing else (``sstoken.experiment.settings.merged``).
    """
    return check_config(merged(read_yaml(path), settings), [path])


def read_config(files: Sequence[str | Path], words: list[str]) -> dict:
    """The checked configuration of several files, each laid over those before it, and of ``key=value`` words over all."""
    config: dict = {}
    for path in files:
        config = merged(config, read_yaml(path))
    return check_config(merged(config, settings_of(words)), files)


def check_config(config: dict, files) -> dict:
    """The configuration with every default filled in; ``{instruct_data}`` and ``{world}`` stay for the grid to resolve.

    Raises:
        ConfigError: lists every violation, a line each.
    """
    rules = schema("config")
    validate(config, rules, " + ".join(map(str, files)) or "configuration")
    return _filled(copy.deepcopy(dict(config)), rules, rules)


def _filled(value, rules: dict, root: dict):
    if "$ref" in rules:
        return _filled(value, root["$defs"][rules["$ref"].rsplit("/", 1)[1]], root)
    if isinstance(value, dict):
        for name, sub in rules.get("properties", {}).items():
            if name not in value and "default" in sub:
                value[name] = copy.deepcopy(sub["default"])
            if name in value:
                value[name] = _filled(value[name], sub, root)
    return value
