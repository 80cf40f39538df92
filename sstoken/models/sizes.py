"""Sizes of models, from their config alone: on the meta device, no weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config

from sstoken.models.flops import Shape
from sstoken.models.projections import projections, targets_of
from sstoken.models.table import ModelEntry
from sstoken.records.documents import ConfigError, read_table

SHAPES = "sstoken/models/shapes.tsv"
FAMILIES = {"Llama": LlamaConfig, "Qwen2": Qwen2Config}


@dataclass(frozen=True)
class Sizes:
    """shape: of the model with its adapter. bare: without it, or with it merged. parameters: of the base, embeddings
    included. layer_width: numbers that a layer keeps of a token for its backward pass (inputs of its projections, the
    adapter's float32 copies of them counted double)."""

    shape: Shape
    bare: Shape
    parameters: int
    layer_width: int


def sizes_of(entry: ModelEntry, folder: Path, *, rank: int = 0, targets: tuple[str, ...] | str = ()) -> Sizes:
    """The model's sizes: of its folder where it has been brought in, else of the row of ``shapes.tsv``.

    Raises:
        ConfigError: neither is there, or the model has no such target.
    """
    model = _model(entry, folder)
    shape = bare = Shape.of(model)
    named = dict(model.named_modules())
    layers = [named[name].weight.shape for name in projections(model)[0]]
    # of a projection the last two sizes are its inputs and outputs, in an order that does not matter for the sum
    width = sum(sum(size) for size in layers) // shape.layers
    if rank:
        modules, arrays = _targets(model, entry, targets)
        weights = {n: named[n].weight.shape for n in modules} | {n: model.get_parameter(n).shape for n in arrays}
        sizes = {n: rank * sum(size[-2:]) * (size[0] if len(size) == 3 else 1) for n, size in weights.items()}
        trained, last = sum(sizes.values()), f".{shape.layers - 1}.mlp."
        inputs = [getattr(named[n], "in_features", named[n].weight.shape[0]) for n in modules]
        width += 2 * sum(inputs) // shape.layers
        shape = replace(
            shape,
            trained_parameters=trained,
            layer_parameters=shape.layer_parameters + trained,
            last_mlp=shape.last_mlp and shape.last_mlp + sum(size for n, size in sizes.items() if last in n),
        )
    return Sizes(shape, bare, sum(p.numel() for p in model.parameters()), width)


def _targets(model: PreTrainedModel, entry: ModelEntry, targets: tuple[str, ...] | str) -> tuple[list[str], list[str]]:
    try:
        return targets_of(model, targets)
    except ValueError as error:
        raise ConfigError(f"{entry.name}: {error}") from error


def _model(entry: ModelEntry, folder: Path) -> PreTrainedModel:
    kind, _, where = entry.source.partition(":")
    if kind == "random" and not (folder / "config.json").exists():
        from sstoken.world.tokenizer import build_model, build_tokenizer

        return build_model(where, entry.size, len(build_tokenizer()), 0)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(_config(entry, folder))


def _config(entry: ModelEntry, folder: Path):
    kind, _, where = entry.source.partition(":")
    folders = [folder, Path(where)] if kind == "local" else [folder]
    if kind == "world":
        from sstoken import world

        folders.append(Path(world.__file__).parent / "weights" / where)
    for candidate in folders:
        if (candidate / "config.json").exists():
            return AutoConfig.from_pretrained(candidate, local_files_only=True)
    rows = {row.pop("name"): row for row in read_table(SHAPES, "shapes")}
    if entry.name not in rows or entry.family not in FAMILIES:
        raise ConfigError(
            f"{SHAPES} has no row {entry.name!r}, and the model is not in {folder} yet: "
            "add its sizes (known families: " + ", ".join(FAMILIES) + "), or fetch it first"
        )
    row = rows[entry.name]
    tied = row.pop("tie_word_embeddings") == "true"
    return FAMILIES[entry.family](**{key: int(value) for key, value in row.items()}, tie_word_embeddings=tied)
