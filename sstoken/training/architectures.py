"""The table of architectures: what each family's tiny random model is taken for, and how far that is from plain Hugging Face.

``python -m sstoken.training.architectures [family …]`` prints it; ``docs/architectures.md`` is what it prints for all.
The plain side is the model's own forward with eager attention, one sample at a time: logits, cross-entropy, backward.

Shapes: T tokens of a sample, N tokens of all samples, R response tokens.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
import yaml
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from sstoken.models.anatomy import attend_by, set_attention, text_config
from sstoken.selection import token_loss
from sstoken.training.packing import forward, packed_attention
from sstoken.training.segments import Segments
from sstoken.training.selftest import route_of

FAMILIES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
LENGTHS, PROMPTS = (12, 29, 7, 18), (3, 9, 1, 6)
"""The second is longer than every window and chunk of the families, the first three are not."""


@dataclass(frozen=True)
class Row:
    """route: packed, packed up to a length, padded, or refused. loss, gradient, mass: largest differences from plain
    Hugging Face (nats; relative to the largest entry of a parameter's gradient; share); None where there is none.
    layers: whose mass can be had, of how many. why: what stands against packing, or the refusal."""

    family: str
    route: str
    loss: float | None = None
    gradient: float | None = None
    mass: float | None = None
    layers: str = ""
    why: str = ""


def tiny_model(family: str, seed: int = 0) -> PreTrainedModel:
    """The family's model with random weights, float32, in evaluation mode."""
    kind = family.partition(",")[0]
    config_class, own = CONFIG_MAPPING[kind], FAMILIES["families"].get(family, {})
    known = {name for cls in config_class.__mro__ for name in getattr(cls, "__annotations__", {})}
    known |= set(config_class.attribute_map)
    common = {} if "text_config" in own else {n: v for n, v in FAMILIES["common"].items() if n in known}
    config: PreTrainedConfig = config_class(**{**common, **own})
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(seed)
    return auto.from_config(config).float().eval()


@dataclass(frozen=True)
class Sample:
    """ids_T: int64. prompt: tokens before the response."""

    ids_T: torch.Tensor
    prompt: int


def samples_of(vocabulary: int) -> list[Sample]:
    generator = torch.Generator().manual_seed(1)
    draws = [torch.randint(3, vocabulary - 5, (length,), generator=generator) for length in LENGTHS]
    return [Sample(*pair) for pair in zip(draws, PROMPTS, strict=True)]


def plain(model: PreTrainedModel, samples: list[Sample], **options) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """loss_R of one sample at a time, and the gradient of their mean."""
    losses = []
    for sample in samples:
        logits = model(input_ids=sample.ids_T[None], **options).logits[0]
        losses.append(
            cross_entropy(logits[sample.prompt - 1 : -1].float(), sample.ids_T[sample.prompt :], reduction="none")
        )
    loss_R = torch.cat(losses)
    return loss_R.detach(), _gradients(model, loss_R)


@torch.no_grad()
def plain_masses(model: PreTrainedModel, samples: list[Sample], layers: list[int]) -> dict[int, torch.Tensor]:
    """mass_N of these layers from eager attention weights; of a hybrid only the layers that attend give any."""
    masses = {layer: [] for layer in layers}
    for sample in samples:
        attentions = model(input_ids=sample.ids_T[None], output_attentions=True).attentions if layers else ()
        for place, layer in enumerate(layers):
            weights_HTT = attentions[place if len(attentions) == len(layers) else layer][0]
            masses[layer].append(weights_HTT.float().mean(0)[:, : sample.prompt].sum(-1))
    return {layer: torch.cat(parts) for layer, parts in masses.items()}


def by_route(model, samples: list[Sample], layer: int | None = None) -> tuple[torch.Tensor, dict, torch.Tensor | None]:
    """The same by the route that was chosen for the model: loss_R, gradients, mass_N."""
    lengths = tuple(len(sample.ids_T) for sample in samples)
    start, places, prompts = 0, [], []
    for sample, length in zip(samples, lengths, strict=True):
        places.append(torch.arange(start + sample.prompt - 1, start + length - 1))
        prompts.append(torch.arange(length) < sample.prompt)
        start += length
    segments = Segments(lengths, torch.cat(places), layer, torch.cat(prompts))
    ids_N, position_N = torch.cat([s.ids_T for s in samples]), torch.cat([torch.arange(n) for n in lengths])
    target_R = ids_N[segments.position_R + 1]
    with packed_attention(model):
        project = lambda hidden, weight, bias: token_loss(hidden, weight, target_R, bias)  # noqa: E731
        loss_R = forward(model, ids_N, position_N, segments, project)
        return loss_R.detach(), _gradients(model, loss_R) if layer is None else {}, segments.mass_N


def _gradients(model, loss_R: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss_R.mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def row_of(family: str) -> Row:
    """One family's row."""
    model = tiny_model(family)
    config = text_config(model.config)
    everything = samples_of(config.vocab_size)
    try:
        route = route_of(model)
        by_route(model, everything)
    except NotImplementedError as error:
        return Row(family, "refused", why=str(error))
    loss, gradient, mass = 0.0, 0.0, []
    options = {"use_cache": False} if "use_cache" in route.options else {}
    short = [sample for sample in everything if route.packs((len(sample.ids_T),))]
    for samples in [everything] if len(short) in (0, len(everything)) else [everything, short]:
        found_R, gradients, _ = by_route(model, samples)
        with attend_by(model, None):
            set_attention(model, "eager")
            expected_R, expected = plain(model, samples, **options)
            masses = plain_masses(model, samples, sorted(route.mass_layers))
        assert gradients.keys() == expected.keys(), f"{family}: {sorted(gradients.keys() ^ expected.keys())}"
        loss = max(loss, float((found_R - expected_R).abs().max()))
        scale = max(float(g.abs().max()) for g in expected.values())
        gradient = max(gradient, *(float((gradients[n] - g).abs().max()) / scale for n, g in expected.items()))
        with torch.no_grad():
            mass += [float((by_route(model, samples, i)[2] - mass_N).abs().max()) for i, mass_N in masses.items()]
    name = "padded" if not route.packed else "packed" if route.reach is None else f"packed up to {route.reach} tokens"
    layers = f"{len(route.mass_layers)} of {config.num_hidden_layers}"
    return Row(family, name, loss, gradient, max(mass, default=None), layers, route.why)


def render(rows: list[Row]) -> str:
    """The table as Markdown; differences to one digit upward, so that other machines' rounding leaves it as it is."""
    kinds = [sum(row.route.startswith(kind) for row in rows) for kind in ("packed", "padded", "refused")]
    lines = [
        "# Architectures\n",
        "What becomes of each family that transformers ships, tried on tiny random models: four samples of 7 to 29 tokens "
        "against each alone in the model's own forward with eager attention. Windows and chunks are of 16 tokens.",
        f"{kinds[0]} are packed without padding, {kinds[1]} run padded, {kinds[2]} are refused with the sentence that "
        "stands here. The choice is made by a trial when a run begins, on the model at hand: no list of names.\n",
        "Loss: largest difference of a token, nats. Gradient: largest difference over all parameters, relative to the "
        "largest entry. Mass: largest difference of the attention mass, over the layers that have one. Each bound holds.\n",
        "Made by `python -m sstoken.training.architectures`.\n",
        "| family | samples are | loss | gradient | mass | layers with mass | why not packed |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        numbers = " | ".join(_bound(value) for value in (row.loss, row.gradient, row.mass))
        why = row.why.replace("|", "/").partition("\n")[0]
        lines.append(f"| {row.family} | {row.route} | {numbers} | {row.layers} | {why} |")
    return "\n".join(lines) + "\n"


def _bound(value: float | None) -> str:
    if value is None:
        return ""
    return next((f"< {bound:.0e}" for bound in (1e-5, 1e-4, 1e-3, 1e-2) if value < bound), f"**{value:.2g}**")


def main(families: list[str]) -> None:
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    print(render([row_of(family) for family in families or FAMILIES["families"]]), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
