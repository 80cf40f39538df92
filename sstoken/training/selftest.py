"""Which pass is right for a model: tried out on two short samples, before the first one is trained on.

A model's own forward, a sample at a time with eager attention, says what each loss and attention mass is.  The packed
pass is taken if it gives the same; else the padded one if that does; else the model is refused, with the numbers.
Whatever mixes samples shows: attention that does not go through transformers' interface, a state that runs on into the
next sample, a mask of the model's own.  What short samples cannot show is asked for: how far a mask reaches before it
says more than causality, and what the model does to its logits after the output projection.

All passes run in evaluation mode, without gradient, and draw no random number.  Under sharded weights every rank makes
them, in the same order.

Shapes: T tokens of a sample, R response tokens of both, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from inspect import Parameter, signature

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from sstoken.models.anatomy import attend_by, causal_lm, check_trainable, has_experts, layer_index, text_config
from sstoken.models.fits import switching_position
from sstoken.selection import token_loss
from sstoken.training.distributed import is_sharded
from sstoken.training.packing import forward, on_route
from sstoken.training.padding import replaced_forward
from sstoken.training.reach import reach_of, row_limit
from sstoken.training.segments import Route, Segments

LENGTHS, PROMPTS = (13, 9), (4, 3)
TOLERANCE = {torch.float64: 1e-7, torch.float32: 5e-5, torch.float16: 0.05, torch.bfloat16: 0.25}
"""Nats a token, by dtype: what rounding may make of the same equation."""
LEAK = {torch.float64: 1e-12, torch.float32: 5e-6, torch.float16: 0.01, torch.bfloat16: 0.05}
"""Nats a token: how far the loss of a mixture of experts may move with tokens that it must not see, since products are
grouped by expert.  Of all other models it must not move at all: shapes, and so rounding, stay."""
MASS = {torch.float64: 1e-7, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 0.02}

_routes: dict[tuple, Route | str] = {}


@dataclass
class Everything(Segments):
    """Segments of a pass that takes the mass of every layer: masses, layer -> mass_N."""

    masses: dict[int, torch.Tensor] = field(default_factory=dict, init=False)

    def wants(self, layer: int | None) -> bool:
        return self.mass_layer is not None and layer is not None

    def take(self, layer: int, mass_N: torch.Tensor) -> None:
        self.masses[layer] = self.mass_N = mass_N


def check_supported(model: torch.nn.Module, attention_layer: str | int | None = None) -> None:
    """Raise, in one sentence, where the model's losses cannot be found, or the attention mass of that layer.

    Raises:
        NotImplementedError: with the numbers of the trial.
    """
    route = route_of(model)
    if attention_layer is None:
        return
    layer, layers = layer_index(model, attention_layer), sorted(route.mass_layers)
    if layer not in layers:
        has = f"set attention_layer to one of {', '.join(map(str, layers))}, or" if layers else ""
        raise NotImplementedError(
            f"{type(causal_lm(model)).__name__}: layer {layer} gives no attention mass that equals its eager attention's; "
            f"{has} choose a method that needs none"
        )


def route_of(model: torch.nn.Module) -> Route:
    """How this model's losses are found: tried out once for each class, configuration, dtype, device and adapter.

    Raises:
        NotImplementedError: in no way.
    """
    check_trainable(model)
    lm = causal_lm(model)
    parameter = next(model.parameters())
    adapters = tuple(str(config) for config in getattr(model, "peft_config", {}).values())
    key = (type(lm), lm.config.to_json_string(), parameter.dtype, parameter.device.type, adapters)
    if key not in _routes:
        with _still(model), torch.no_grad():
            _routes[key] = _Trial(model).route()
    if isinstance(_routes[key], str):
        raise NotImplementedError(_routes[key])
    return _routes[key]


@contextmanager
def _still(model: torch.nn.Module) -> Iterator[None]:
    """In evaluation mode; afterwards each module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class _Trial:
    """The passes over two short samples, and what they show."""

    def __init__(self, model: torch.nn.Module):
        self.model, self.lm = model, causal_lm(model)
        self.name, self.config = type(self.lm).__name__, text_config(self.lm.config)
        embedding = self.lm.get_input_embeddings()
        self.device = embedding.weight.device
        self.dtype = next(p.dtype for p in self.lm.parameters() if p.is_floating_point())
        self.tolerance = TOLERANCE.get(self.dtype, 0.25)
        self.leak = LEAK.get(self.dtype, 0.05) if has_experts(self.lm) else 0.0
        self.vocabulary = vocabulary = min(self.config.vocab_size, embedding.weight.shape[0])
        numbers = [(7 * i * i + 31 * i + 3) % vocabulary for i in range(sum(LENGTHS))]
        self.samples = torch.tensor(numbers, device=self.device).split(LENGTHS)
        self.options = _options(self.lm)

    def route(self) -> Route | str:
        """The route, or a sentence that says why there is none."""
        own = "eager" if self.lm._can_set_attn_implementation() else None
        try:
            with attend_by(self.lm, own):
                alone, masses = zip(*map(self.alone, self.samples), strict=True)
                if moved := self.future():
                    return f"{self.name} is not causal: a loss moves by {moved:.2g} nats with tokens after it"
        except Exception as error:
            return f"{self.name}: its own forward fails on {LENGTHS[0]} tokens: {_line(error)}"
        self.expected_R = torch.cat([loss_T[prompt - 1 :] for loss_T, prompt in zip(alone, PROMPTS, strict=True)])
        self.expected = {}
        if all(mass is not None for mass in masses):
            both = zip(*masses, strict=True)
            self.expected = {i: torch.cat(pair) for i, pair in enumerate(both) if pair[0] is not None}
        self.told = len(masses[0] or ())
        none = frozenset()
        limit = switching_position(self.config)
        base = Route(False, None, limit, self.linear_head(), None, none, none, self.options)
        padded, reasons = None, []
        for attention in ("function", "eager", None) if own else ("eager", None):
            if attention == "eager" and not self.expected:
                continue
            padded, reason = self.tried(replace(base, attention=attention))
            if padded is not None:
                break
            reasons.append(reason)
        packed, reason = (None, "its attention does not go through transformers' AttentionInterface")
        if own:
            packed, reason = self.packed(padded or base)
        if packed is not None:
            if padded is None:  # nothing to fall back on
                packed = replace(packed, attention="function")
            return packed
        if padded is not None:
            return replace(padded, why=reason)
        return f"{self.name}: no pass gives its own losses (packed: {reason}; padded: {reasons[-1]})"

    def alone(self, ids_T: torch.Tensor) -> tuple[torch.Tensor, tuple | None]:
        """Losses [T-1] of the model's own forward, and each layer's attention mass [T], where it tells."""
        options = {"use_cache": False} if "use_cache" in self.options else {}
        output = self.model(input_ids=ids_T[None], **options)
        loss_T = cross_entropy(output.logits[0, :-1].float(), ids_T[1:], reduction="none")
        if "output_attentions" in self.options:
            try:
                output = self.model(input_ids=ids_T[None], output_attentions=True, **options)
            except Exception:  # then there are none
                return loss_T, None
            other_T = cross_entropy(output.logits[0, :-1].float(), ids_T[1:], reduction="none")
            if float((other_T - loss_T).abs().max()) > self.tolerance:  # some attend otherwise when asked to tell
                return loss_T, None
        found, attentions = None, getattr(output, "attentions", None)
        if attentions:
            prompt_T = self.prompt_mask(ids_T)
            square = (len(ids_T), len(ids_T))
            found = tuple(
                (w[0].float().mean(0) * prompt_T).sum(-1)
                if w is not None and w.dim() == 4 and w.shape[-2:] == square else None
                for w in attentions
            )  # fmt: skip
        return loss_T, found

    def prompt_mask(self, ids_T: torch.Tensor) -> torch.Tensor:
        prompt = PROMPTS[LENGTHS.index(len(ids_T))]
        return torch.arange(len(ids_T), device=self.device) < prompt

    def future(self) -> float:
        """By how much losses move with a token after them; 0.0 for no more than rounding."""
        ids_T = self.samples[0]
        other_T = ids_T.clone()
        other_T[-1] = self.samples[1][0]
        (one, _), (other, _) = self.alone(ids_T), self.alone(other_T)
        moved = float((one[:-1] - other[:-1]).abs().max())
        return moved if not moved <= self.leak else 0.0

    def linear_head(self) -> bool:
        """Whether logits leave the model as the output projection gives them: a ladder is put in and looked for."""
        head = self.lm.get_output_embeddings()
        if type(head).forward is not torch.nn.Linear.forward:  # an adapter on it, packed weights
            return False
        ladder_V = torch.linspace(-100.0, 100.0, head.weight.shape[0], device=self.device)
        options = {"use_cache": False} if "use_cache" in self.options else {}
        with replaced_forward(head, lambda hidden: ladder_V.expand(*hidden.shape[:-1], -1)):
            logits = self.model(input_ids=self.samples[0][None], **options).logits
        return logits.shape[-1] == len(ladder_V) and bool((logits == ladder_V).all())

    def segments(self, taking: bool) -> Segments:
        start, places, prompt = 0, [], []
        for ids_T, first in zip(self.samples, PROMPTS, strict=True):
            places.append(torch.arange(first - 1, len(ids_T) - 1, device=self.device) + start)
            prompt.append(self.prompt_mask(ids_T))
            start += len(ids_T)
        mask_N = torch.cat(prompt) if taking else None
        return Everything(LENGTHS, torch.cat(places), 0 if taking else None, mask_N)

    def losses(self, samples, taking: bool) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Losses [R] by the route that is on, and masses [N] by layer."""
        segments = self.segments(taking)
        ids_N = torch.cat(samples)
        target_R = ids_N[segments.position_R + 1]
        positions = torch.cat([torch.arange(len(ids), device=self.device) for ids in samples])
        project = lambda hidden, weight, bias: token_loss(hidden, weight, target_R, bias)  # noqa: E731
        return forward(self.model, ids_N, positions, segments, project).float(), segments.masses

    def tried(self, route: Route) -> tuple[Route | None, str]:
        """The route with its error and the layers whose mass it gives; or None and why not."""
        taking = bool(self.expected)
        found_R, masses = None, {}
        try:
            with on_route(self.model, route):
                if taking:
                    try:
                        found_R, masses = self.losses(self.samples, True)
                    except Exception:  # masses may be what it cannot
                        found_R = None
                if found_R is None:
                    found_R, masses = self.losses(self.samples, False)
                self.in_training()
                others = [(self.samples[0] + self.vocabulary // 2) % self.vocabulary, self.samples[1]]
                still_R, moved_R = (self.losses(samples, False)[0] for samples in (self.samples, others))
        except Exception as error:
            return None, _line(error)
        worst = float((found_R - self.expected_R).abs().max())
        if not worst <= self.tolerance:
            return None, f"losses differ by {worst:.2g} nats from those of each sample alone"
        second = LENGTHS[1] - PROMPTS[1]
        leak = float((moved_R - still_R)[-second:].abs().max())
        if not leak <= self.leak:
            return None, f"a loss moves by {leak:.2g} nats with the tokens of another sample"
        # of a hybrid only the layers that attend tell
        places = sorted(masses) if len(masses) == self.told else range(self.told)
        expected = {layer: self.expected[i] for i, layer in enumerate(places) if i in self.expected}
        right = frozenset(layer for layer, mass_N in masses.items() if self.is_mass(mass_N, expected.get(layer)))
        name = "packed_mass" if route.packed else "padded_mass"
        return replace(route, error=worst, **{name: right}), ""

    def is_mass(self, mass_N: torch.Tensor, expected_N: torch.Tensor | None) -> bool:
        close = MASS.get(self.dtype, 0.02)
        return expected_N is not None and bool(((mass_N - expected_N).abs() <= close).all())

    def in_training(self) -> None:
        """Some models ask for more inputs when they train, or have no backward pass."""
        devices = [self.device] if self.device.type == "cuda" else []
        trained = [p for p in self.model.parameters() if p.requires_grad]
        checkpointing = any(getattr(part, "gradient_checkpointing", False) for part in self.lm.modules())
        back = trained and not is_sharded(self.model) and not checkpointing
        with torch.random.fork_rng(devices), _still(self.model), torch.set_grad_enabled(bool(back)):
            self.model.train()
            loss_R, _ = self.losses(self.samples, False)
            if back:  # to the first parameter alone, so that no memory is taken for the others' gradients
                torch.autograd.grad(loss_R.mean(), trained[:1], allow_unused=True)

    def packed(self, base: Route) -> tuple[Route | None, str]:
        """The packed route, and how long a sample may be on it."""
        route, reason = self.tried(replace(base, packed=True, reach=None))
        if route is None:
            return None, reason
        with on_route(self.model, route):
            reach = reach_of(self.model, self.samples[0])
        if reach is not None and reach < max(LENGTHS):
            return None, f"attention reaches {reach} tokens back"
        return replace(route, reach=reach, row=row_limit(self.model)), ""


def _options(lm: PreTrainedModel) -> frozenset[str]:
    """Keyword arguments that the model's forward knows, of those that a pass would give it."""
    parameters = signature(lm.forward).parameters
    anything = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
    names = {name for name in ("attention_mask", "use_cache") if name in parameters}
    if "output_attentions" in parameters or anything:
        names.add("output_attentions")
    return frozenset(names | ({"use_cache"} if anything and "input_ids" in parameters else set()))


def _line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, NotImplementedError) or "was not told where samples lie" in text:
        return text.partition(": attention")[0]
    return f"{type(error).__name__}: {text[:200]}"
