"""Every method's scores on one training run: all signals measured, none acted on.

``Auditor`` is a scorer like any other.  It keeps every token, so that the run is full-data training, and writes down what
each audited method would have scored and kept at that step.

Shapes: B samples of a micro-batch, R response tokens (of the longest response in grids ``_BR``, of the data set in the
record), S samples of the data set.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property

import torch
from transformers import TrainerCallback

from sstoken.data import TokenData
from sstoken.models.anatomy import layer_index
from sstoken.selection import Scorer, Signals, token_loss
from sstoken.selection.methods import Method
from sstoken.training.collate import PackedCollator, segments_of, signals_of
from sstoken.training.dataset import SelectionDataset, fixed_mask
from sstoken.training.objective import kept
from sstoken.training.packing import forward


@dataclass(frozen=True)
class Auditor(Scorer):
    """``score_i = 0``: every token is kept.  What each method says of it goes to ``record``.

    methods: those audited. record: method -> ``score`` float32 [R] and ``keep`` bool [R]; filled as training goes on.
    step: int32 [S], when each sample was trained on; -1: never.
    """

    methods: tuple[Method, ...] = ()
    offset: torch.Tensor | None = field(default=None, compare=False)
    record: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict, compare=False)
    fixed: dict[str, torch.Tensor] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, methods: list[Method], dataset: SelectionDataset) -> Auditor:
        """An auditor of one data set; masks that are known before the first step are made here."""
        total = int(dataset.data.response_offset[-1])
        record = {
            method.name: {
                "score": torch.full((total,), float("nan")),
                "keep": torch.zeros(total, dtype=torch.bool),
            }
            for method in methods
        }
        fixed = {m.name: fixed_mask(m, dataset) for m in methods if m.static}
        return cls(tuple(methods), dataset.data.response_offset, record, fixed)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"loss"}).union(*(method.needs for method in self.methods))

    @property
    def method(self) -> Method:
        """The entry under which the audit trains: full data."""
        layer = next((m.attention_layer for m in self.methods if "attention_mass" in m.needs), "deep")
        named = {name: weights for m in self.methods for name, weights in m.references.items()}
        return Method(
            name="audit", scorer=self, attention_layer=layer, references=named, source="audit of other methods"
        )

    def verdicts(self, signals: Signals) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """method -> (score_BR, keep_BR) at these signals; each method sees only what it asks for."""
        found = {}
        for method in self.methods:
            own = _restricted(signals, method.needs)
            score_BR = method.scorer.score(own).detach().float()
            fixed = method.name in self.fixed
            keep_BR = self._fixed(method.name, signals) if fixed else kept(method, signals, score_BR)
            found[method.name] = score_BR, keep_BR
        return found

    def score(self, signals: Signals) -> torch.Tensor:
        return torch.zeros_like(signals.mask_BR, dtype=torch.float32)

    def parts(self, signals: Signals) -> dict[str, torch.Tensor]:
        """No parts of its own.  A trainer asks for them once a micro-batch, so this is where verdicts are written down."""
        self.write_down(signals)
        return {}

    def write_down(self, signals: Signals) -> None:
        for name, (score_BR, keep_BR) in self.verdicts(signals).items():
            for row, position in enumerate(signals.index_B.tolist()):
                if position < 0:  # evens out the ranks
                    continue
                place = slice(int(self.offset[position]), int(self.offset[position + 1]))
                count = place.stop - place.start
                self.record[name]["score"][place] = score_BR[row, :count].cpu()
                self.record[name]["keep"][place] = keep_BR[row, :count].cpu()

    def _fixed(self, name: str, signals: Signals) -> torch.Tensor:
        keep_BR = torch.zeros_like(signals.mask_BR)
        for row, position in enumerate(signals.index_B.tolist()):
            if position >= 0:
                values = self.fixed[name][int(self.offset[position]) : int(self.offset[position + 1])]
                keep_BR[row, : len(values)] = values.to(keep_BR.device)
        return keep_BR


def _restricted(signals: Signals, needs: frozenset[str]) -> Signals:
    measured = {f.name for f in dataclasses.fields(signals)} - {"mask_BR", "position_B", "index_B", "references"}
    references = {n: v for n, v in signals.references.items() if f"reference_loss:{n}" in needs}
    return dataclasses.replace(signals, references=references, **{name: None for name in measured - needs})


@dataclass(frozen=True)
class Direction:
    """One row: at ``step``, on ``batch``, the cosine between a method's gradient and that of held-out clean rows."""

    method: str
    step: int
    batch: int
    cosine: float


class Compass(TrainerCallback):
    """Does what a method keeps point the way that held-out clean rows point?

    ``cos(g_m, g_h)`` with ``g_m`` the gradient, in the trained parameters, of the mean loss over the tokens that method m
    keeps of a batch, and ``g_h`` that of the mean loss over all response tokens of the held-out rows.  A forward pass a
    batch, and a backward pass a batch and method, at ``steps`` steps spread evenly over training, each with other batches.
    The output projection is gone back through once a batch: a token's loss depends on its own last state alone.

    Args:
        auditor, dataset: of the run. heldout: rows that the run does not train on; of these ``clean``, all where None. Twice
            as many are read as of the training rows at a step: all share their gradient, so its noise is none of theirs.
        batches, batch_size: how many batches of the training rows a step, of how many samples. seed: of their draw.
        chunk_size: of ``token_loss``.
    """

    def __init__(
        self, auditor: Auditor, dataset: SelectionDataset, heldout: TokenData, clean: list[int] | None = None, *,
        steps: int = 3, batches: int = 8, batch_size: int = 16, seed: int = 0, chunk_size: int = 1024,
    ):  # fmt: skip
        self.auditor, self.steps, self.chunk_size = auditor, steps, chunk_size
        collate, draw = PackedCollator(), torch.Generator().manual_seed(seed)
        order = torch.randperm(len(dataset), generator=draw).tolist()
        size = min(batch_size, max(1, len(dataset) // batches))
        count = min(batches, len(dataset) // size)
        places = [[(start + i) % len(order) for i in range(size)] for start in range(0, steps * count * size, size)]
        chosen = [collate([dataset[order[place]] for place in part]) for part in places]
        self.batches = [chosen[start : start + count] for start in range(0, len(chosen), count)]
        rows, clean = SelectionDataset(heldout), list(range(len(heldout))) if clean is None else clean
        order = [clean[i] for i in torch.randperm(len(clean), generator=draw).tolist()[: 2 * size * batches]]
        self.heldout = [collate([rows[i] for i in order[s : s + size]]) for s in range(0, len(order), size)]
        self.found: list[Direction] = []

    def on_step_begin(self, args, state, control, model=None, **_):
        at = dict.fromkeys(round(state.max_steps * (k + 1) / (self.steps + 1)) for k in range(self.steps))
        if state.global_step in at:
            progress = state.global_step / max(state.max_steps, 1)
            self.measure(model, state.global_step, list(at).index(state.global_step), progress)

    def measure(self, model: torch.nn.Module, step: int, turn: int = 0, progress: float = 0.0) -> None:
        """Add a row a batch and method to ``found``. turn: which of the steps this is. progress: the signal."""
        training = model.training
        model.eval()  # no dropout: the gradients of two methods differ by their tokens alone
        parameters = [p for p in model.parameters() if p.requires_grad]
        clean = 0
        for batch in self.heldout:
            states = look(model, batch, self.auditor, self.chunk_size)[0]
            clean = clean + states.gradient(torch.ones_like(states.loss_R), parameters, keep=False)
        for number, batch in enumerate(self.batches[turn]):
            states, signals = look(model, batch, self.auditor, self.chunk_size, progress=progress)
            verdicts = {name: keep_BR for name, (_, keep_BR) in self.auditor.verdicts(signals).items()}
            verdicts = {"full": signals.mask_BR} | verdicts
            for place, (name, keep_BR) in enumerate(verdicts.items()):
                keep_R = keep_BR[signals.mask_BR].to(states.loss_R.dtype)
                weight_R = keep_R / keep_R.sum().clamp_min(1)
                own = states.gradient(weight_R, parameters, keep=place + 1 < len(verdicts))
                cosine = torch.nn.functional.cosine_similarity(own, clean, dim=0)
                self.found.append(Direction(name, step, number, float(cosine)))
        model.train(training)


@dataclass(frozen=True)
class Losses:
    """The losses of one forward pass, and how to go back through it.

    loss_R: float32. state_RD: the last hidden states, on the model's graph. source_RD: the same states, at which the graph of
    loss_R ends; None where the output projection is trained too, and loss_R is on the model's graph.
    """

    loss_R: torch.Tensor
    state_RD: torch.Tensor
    source_RD: torch.Tensor | None

    def gradient(self, weight_R: torch.Tensor, parameters: list[torch.Tensor], *, keep: bool) -> torch.Tensor:
        """``Σ_i w_i ∇ loss_i`` in the parameters, flat, float32. keep: the graph, for another call."""
        if self.source_RD is None:
            found = torch.autograd.grad(self.loss_R, parameters, weight_R, retain_graph=keep, allow_unused=True)
        else:
            pulled_RD = self.pulled_RD * weight_R[:, None]
            found = torch.autograd.grad(self.state_RD, parameters, pulled_RD, retain_graph=keep, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        return torch.cat([g.reshape(-1).float() for g in flat])

    @cached_property
    def pulled_RD(self) -> torch.Tensor:
        """Row i: the gradient of loss_i in its own state; of the other states it does not know."""
        return torch.autograd.grad(self.loss_R.sum(), self.source_RD)[0]


def look(
    model: torch.nn.Module, batch: dict, auditor: Auditor, chunk_size: int = 1024, *, progress: float = 0.0
) -> tuple[Losses, Signals]:
    """The losses of a batch with their graph, and the signals that the audited methods ask for; within ``packed_attention``.

    progress: the signal of that name.
    """
    batch = _on(batch, next(model.parameters()).device)
    wanted = "attention_mass" in auditor.needs
    segments = segments_of(batch, layer_index(model, auditor.method.attention_layer) if wanted else None)
    target_R = batch["input_ids"][batch["response_R"]]
    measured = {
        name: torch.empty(len(target_R), device=target_R.device) for name in auditor.needs & {"entropy", "collision"}
    }

    states = {}

    def project(hidden_RD, weight_VD, bias_V):
        # where the head is more than a projection, the states are logits, and its parameters lie before them
        trained = any(p is not None and p.requires_grad for p in (weight_VD, bias_V))
        states["own"] = hidden_RD
        if hidden_RD.requires_grad and not trained:
            states["source"] = hidden_RD = hidden_RD.detach().requires_grad_()
        return token_loss(hidden_RD, weight_VD, target_R, bias_V, chunk_size=chunk_size, measure=measured or None)

    loss_R = forward(model, batch["input_ids"], batch["position_ids"], segments, project)
    measured = measured | {"loss": loss_R.detach()}
    if wanted:
        measured["attention_mass"] = segments.mass_N[batch["response_R"]]
    losses = Losses(loss_R, states["own"], states.get("source"))
    return losses, signals_of(batch, auditor.needs, progress, **measured)


def _on(batch: dict, device: torch.device) -> dict:
    return batch | {name: value.to(device) for name, value in batch.items() if isinstance(value, torch.Tensor)}
