"""Folders in the layout of the hub's cache, filled with tiny models and real rows: the hub, as far as a job can see."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
ROPE = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
LLAMA = LlamaConfig(
    vocab_size=128256, max_position_embeddings=131072, num_key_value_heads=2, rope_parameters=ROPE, **SIZE
)
QWEN = Qwen2Config(vocab_size=152064, num_key_value_heads=2, **SIZE)
FAMILIES = {
    # family -> (class, config, eos of the base models, whose tokenizers here are those of the instruct models)
    "llama3_1": (LlamaForCausalLM, LLAMA, "<|end_of_text|>"),
    "qwen2_5": (Qwen2ForCausalLM, QWEN, "<|endoftext|>"),
}


class HubCache:
    """The cache below ``home`` (what HF_HOME names)."""

    def __init__(self, home: Path):
        self.home, self.hub = home, home / "hub"

    def add(self, repo: str, kind: str, commit: str, files: dict[str, Path], branch: str | None = None) -> Path:
        """Store files of a commit as the hub library does: blobs by content, links to them by name."""
        root = self.hub / f"{kind}s--{repo.replace('/', '--')}"
        for name, path in files.items():
            blob = root / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, blob)
            link = root / "snapshots" / commit / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(blob)
        if branch:
            ref = root / "refs" / branch
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(commit)
        return root / "snapshots" / commit

    def add_revision(self, repo: str, kind: str, revision: str, files: dict[str, Path]) -> Path:
        """At a pinned commit, or at a made-up one that the branch ``revision`` stands for."""
        pinned = len(revision) == 40
        commit = revision if pinned else hashlib.sha1(revision.encode()).hexdigest()
        return self.add(repo, kind, commit, files, None if pinned else revision)


def write_model(family: str, tokenizers: Path, folder: Path) -> dict[str, Path]:
    """A model of random weights with the family's real tokenizer; its files."""
    model_class, config, eos = FAMILIES[family]
    torch.manual_seed(0)
    model = model_class(config)
    source = tokenizers / family
    settings = json.loads((source / "tokenizer_config.json").read_text()) | {"eos_token": eos}
    token = json.loads((source / "tokenizer.json").read_text())
    (number,) = (entry["id"] for entry in token["added_tokens"] if entry["content"] == eos)
    model.config.eos_token_id = model.generation_config.eos_token_id = number
    model.save_pretrained(folder)
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return {path.name: path for path in sorted(folder.iterdir())}


def write_parquet(rows: list[dict], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def write_card(configs: dict[str, dict[str, str]], path: Path) -> Path:
    """A data set's card: configuration -> split -> pattern."""
    listed = [
        {"config_name": name, "data_files": [{"split": s, "path": p} for s, p in splits.items()]}
        for name, splits in configs.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n\n# A data set\n")
    return path


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def add_benchmarks(cache: HubCache, benchmarks, pins: dict[str, str], rows: Path, scratch: Path) -> None:
    """Every data set of the benchmarks, cut to the rows of ``rows`` (laid out as benchmarks.tsv says)."""
    from sstoken.evaluation import hub_splits

    cards: dict[str, dict] = {}
    for split in (split for benchmark in benchmarks for split in hub_splits(benchmark)):
        folder = split.config or "data"
        name = split.data_files or f"{folder}/{split.split}-00000-of-00001.parquet"
        path = write_parquet(read_lines(rows / split.path), scratch / split.repo / name)
        files = {name: path}
        if split.data_files is None:
            pattern = f"{folder}/{split.split}-*"
            cards.setdefault(split.repo, {}).setdefault(split.config or "default", {})[split.split] = pattern
            files["README.md"] = write_card(cards[split.repo], scratch / split.repo / "README.md")
        cache.add_revision(split.repo, "dataset", pins[split.repo], files)
