"""What a configuration will cost, before it runs; ``sstoken plan`` prints it.

Tokens of a data set are those of its token file where there is one; else the configuration's (``plan.samples``,
``plan.tokens_per_sample``, ``plan.response_share``), marked as an estimate.  FLOPs follow ``sstoken.models.flops``.
GPU-hours are FLOPs over a throughput: measured, where ``costs.csv`` of the same experiment has jobs of the stage on a GPU, else
``plan.flops_per_second``, else left open.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass

from sstoken.experiment.conditions import OPTIONS
from sstoken.experiment.grid import REFERENCE, Grid, Run
from sstoken.experiment.layout import HELD_OUT
from sstoken.experiment.runtime import throughput
from sstoken.models.sizes import Sizes, sizes_of
from sstoken.records.documents import ConfigError, read_table
from sstoken.selection import Chooser
from sstoken.selection.methods import Method, build_method
from sstoken.world.generate import questions_of

BENCHMARK_SIZES = "sstoken/evaluation/benchmark_sizes.tsv"
WORLD_SIZES = "sstoken/world/benchmark_sizes.tsv"
WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes a number."""
DISCORDANCE, WORLD_DISCORDANCE = 0.06, 0.16
"""Share of questions that two methods answer differently: assumed, and as measured in the embedded world."""
SEED_SD, WORLD_SEED_SD = 0.0035, 0.007
"""Standard deviation of a method's average score over seeds, apart from what all methods share: the same two."""


@dataclass(frozen=True)
class Rows:
    """A data set as a model reads it. pairs: sum of squared sample lengths. measured: from its token file."""

    samples: int
    tokens: int
    response: int
    pairs: int
    measured: bool


@dataclass
class Work:
    """What jobs amount to. forward, backward: tokens through the model; passes: times that a data set is gone through."""

    jobs: int = 0
    forward_passes: float = 0.0
    backward_passes: float = 0.0
    forward: int = 0
    backward: int = 0
    flops: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __mul__(self, times: int) -> Work:
        return Work(*(value * times for value in vars(self).values()))


class Plan:
    """The costs of one checked configuration."""

    def __init__(self, config: dict):
        self.config, self.grid = config, Grid(config)
        self.settings = config["plan"]
        adapter = self.grid.training.adapter
        self.sizes: dict[str, Sizes] = {
            name: sizes_of(
                entry,
                self.grid.model_record(name).parent,
                rank=adapter.rank if adapter else 0,
                targets=adapter.targets if adapter else (),
            )
            for name, entry in self.grid.models.items()
        }
        self.made_up = "{world}" in (config["benchmarks_data"] or "")
        self.discordance = WORLD_DISCORDANCE if self.made_up else DISCORDANCE
        self.seed_sd = WORLD_SEED_SD if self.made_up else SEED_SD
        self.sizes_file = WORLD_SIZES if self.made_up else BENCHMARK_SIZES
        self.benchmarks = {row["name"]: row for row in read_table(self.sizes_file, "benchmark_sizes")}

    def method(self, name: str, model: str) -> Method:
        return build_method(name, self.grid.method_entry(name, model))

    def rows(self, model: str, dataset: str) -> Rows:
        path = self.grid.tokens(model, dataset, self.grid.draw(dataset, self.grid.seeds[0]))
        if path.exists():
            from sstoken.data import TokenData

            data = TokenData.load(path)
            pairs = int((data.lengths.double() ** 2).sum())
            return Rows(len(data), len(data.input_ids), int(data.response_offset[-1]), pairs, True)
        if "+" in dataset:
            parts = [self.rows(model, part) for part in dataset.split("+")]
            sums = {name: sum(getattr(p, name) for p in parts) for name in ("samples", "tokens", "response", "pairs")}
            return Rows(**sums, measured=all(part.measured for part in parts))
        samples = self.section_rows(dataset)
        length = self.settings["tokens_per_sample"]
        if (most := self.grid.dataset(dataset).get("limit_tokens")) is not None:
            samples = min(samples, max(most // length, 1))
        tokens = samples * length
        # lengths spread about as an exponential distribution does: the mean square is twice the squared mean
        return Rows(samples, tokens, round(tokens * self.settings["response_share"]), 2 * samples * length**2, False)

    def section_rows(self, dataset: str) -> int:
        """Rows of a data set as the configuration has them."""
        known = (self.settings["samples"] or {}).get(dataset.partition(".")[0])
        samples = min(filter(None, (known, self.grid.dataset(dataset)["limit"])), default=None)
        if samples is None:
            raise ConfigError(f"the plan cannot know how many rows {dataset!r} has: set plan.samples.{dataset}")
        return samples

    # -- work of single jobs --------------------------------------------------------------------------------------

    def losses(self, model: str, dataset: str) -> Work:
        rows, shape = self.rows(model, dataset), self.sizes[model].bare
        return Work(1, 1, 0, rows.tokens, 0, shape.forward(rows.tokens, rows.pairs, rows.response))

    def training(self, name: str, model: str) -> Work:
        """One run with all its parts."""
        method, shape = self.method(name, model), self.sizes[model].shape
        rows, settings = self.rows(model, method.data), self.grid.training_of(method)
        epochs = settings["epochs"]
        kept = rows.response * method.keep_ratio
        if method.reference == "previous":  # the first part is trained in full, the others measure their reference
            kept = rows.response * (1 + (method.parts - 1) * method.keep_ratio) / method.parts
        every = settings["dropped_loss_every"]
        all_losses = 1.0 if method.reads_logits else 1 / every if every else 0.0
        projected = kept + (rows.response - kept) * all_losses
        once = shape.forward(rows.tokens, rows.pairs, round(projected))
        recomputed = 0
        if settings["gradient_checkpointing"]:
            recomputed = shape.recomputed(rows.tokens, rows.pairs, round(projected))
        chooser = method.scorer if isinstance(method.scorer, Chooser) else None
        looks = method.own_history or method.anchor is not None or bool(chooser and chooser.reads)
        measured = (method.parts - 1) / method.parts if method.reference == "previous" else float(looks) * epochs
        if chooser:  # it looks at every row, and trains on its choice
            epochs *= chooser.take / chooser.candidates
        passes = 1 + bool(recomputed)
        flops = epochs * (once + recomputed + shape.backward(rows.tokens, rows.pairs, round(projected), round(kept)))
        flops += measured * shape.forward(rows.tokens, rows.pairs, rows.response)
        return Work(
            method.parts, epochs * passes + measured, epochs,
            round(rows.tokens * (epochs * passes + measured)), round(rows.tokens * epochs), round(flops),
        )  # fmt: skip

    def questions(self, benchmark: str) -> int:
        """0 where the table of sizes does not know the benchmark; the world's are as many as it is asked for."""
        if benchmark == HELD_OUT and self.grid.heldout_rows:
            return min(filter(None, (self.section_rows(HELD_OUT), self.grid.evaluation["limit"])))
        if benchmark not in self.benchmarks:
            return 0
        counts = [int(self.benchmarks[benchmark]["questions"]), self.grid.evaluation["limit"]]
        if self.made_up:
            counts[0] = questions_of(benchmark, (OPTIONS | self.grid.world_options())["questions"])
        return min(filter(None, counts), default=0)

    def evaluation(self, model: str) -> Work:
        tokens = sum(self.questions(name) * self.tokens_a_question(name) for name in self.config["benchmarks"])
        return Work(1, 1, 0, tokens, 0, self.sizes[model].bare.forward(tokens, 0, tokens))

    def tokens_a_question(self, benchmark: str) -> int:
        if benchmark == HELD_OUT and self.grid.heldout_rows:  # once with the response, once without
            settings = self.settings
            return round(settings["tokens_per_sample"] * (2 - settings["response_share"]))
        return int(self.benchmarks[benchmark]["tokens"]) if benchmark in self.benchmarks else 0

    @property
    def averaged(self) -> list[str]:
        """The benchmarks of the average: all but held-out loss and those of refusal."""
        apart = {HELD_OUT, *self.grid.refusal_benchmarks}
        return [name for name in self.config["benchmarks"] if name not in apart]

    def detectable(self) -> float | None:
        """The smallest difference of two methods' averages that a test at 5 % finds in 80 of 100 such grids, in 0..1.

        ``2.80·sqrt(Σ_b d/(B²·Q_b) + 2·s²/S)``: B benchmarks of Q questions, S seeds, ``discordance`` d, ``seed_sd`` s.
        None where the size of a benchmark is not known. Held-out loss and refusal are in no average.
        """
        counts = [self.questions(name) for name in self.averaged]
        if not counts or not all(counts):
            return None
        questions = sum(self.discordance / (len(counts) ** 2 * count) for count in counts)
        normal = statistics.NormalDist()
        return (normal.inv_cdf(0.975) + normal.inv_cdf(0.8)) * math.sqrt(
            questions + 2 * self.seed_sd**2 / len(self.grid.seeds)
        )

    # -- the grid -------------------------------------------------------------------------------------------------

    def pairs(self, model: str) -> list[tuple[str, str]]:
        """(data set, label) of every pass of frozen weights over one draw of the rows: what is shared."""
        return sorted((dataset, label) for dataset, label, _ in self.grid.asked_losses(model))

    def table(self) -> dict[tuple[str, str, str], Work]:
        """(stage, model, method) -> its work over all seeds, and all conditions of the ablations."""
        found: dict[tuple[str, str, str], Work] = {}
        for model in self.grid.models:
            for dataset, _ in self.pairs(model):
                key = ("references", model, "")
                found[key] = found.get(key, Work()) + self.losses(model, dataset)
            for method in self.grid.needed_methods(model):
                if method.trains:
                    work = self.training(method.name, model) * len(self.grid.seeds_of(method.name))
                    key = ("train", model, self.grid.under.get(method.name, (method.name,))[0])
                    found[key] = found.get(key, Work()) + work
            evaluated = sum(len(self.grid.reported_seeds(name)) for name in self.grid.reported(model))
            found["evaluate", model, ""] = self.evaluation(model) * evaluated
        return found

    def alone(self) -> int:
        """FLOPs of references and their passes, had every run made its own, as separate scripts do."""
        total = 0
        for model in self.grid.models:
            for method in self.grid.needed_methods(model):
                for seed in self.grid.seeds_of(method.name):
                    for label in self.grid.labels(method.name, seed).values():
                        total += self.losses(model, method.data).flops
                        run = self.grid.run_of(model, label)
                        if run and self.grid.is_reference(run.method):
                            total += self.training(run.method, model).flops
        return total

    def shared(self) -> int:
        """FLOPs of the same, shared."""
        table = self.table()
        return sum(
            w.flops
            for (stage, _, method), w in table.items()
            if stage == "references" or self.grid.is_reference(method)
        )

    def memory(self, model: str, stage: str) -> int:
        """Bytes on one GPU, at the longest samples: weights, adapters with their gradients and AdamW's moments,
        activations (all of a layer's, and each layer's input where they are recomputed), logits of a chunk or batch."""
        sizes, training = self.sizes[model], self.grid.training
        width = WIDTHS
        shape = sizes.shape
        if stage == "train":
            weights = 16 * sizes.parameters  # float32, as are gradients and AdamW's two moments
            if training.adapter is not None:
                weights = sizes.parameters * width[training.dtype] + 16 * shape.trained_parameters
            if self.grid.parallel(model).strategy == "fsdp":
                weights //= self.grid.parallel(model).gpus
            tokens = training.micro_batch_size * self.config["text"]["max_length"]
            layer = tokens * sizes.layer_width * width[training.dtype]
            kept = layer + shape.layers * tokens * shape.hidden * width[training.dtype]
            activations = kept if training.gradient_checkpointing else layer * shape.layers
            return weights + activations + 3 * 4 * training.chunk_size * shape.vocabulary
        if stage == "references":
            dtype, tokens = width[self.config["references"]["dtype"]], self.config["references"]["batch_tokens"]
            return sizes.parameters * dtype + tokens * sizes.layer_width * dtype + 3 * 4 * 1024 * shape.vocabulary
        settings = self.grid.evaluation
        tokens = settings["batch_size"] * min(settings["max_length"] or 4096, 4096)
        # lm-eval takes the logits of whole requests, and their log-softmax in float32
        return sizes.parameters * width[settings["dtype"]] + tokens * shape.vocabulary * (width[settings["dtype"]] + 4)

    def disk(self) -> dict[str, int]:
        """Bytes by what they are."""
        found: dict[str, int] = defaultdict(int)
        for model, sizes in self.sizes.items():
            found["models"] += sizes.parameters * 2
            for dataset in {m.data for m in self.grid.needed_methods(model) if m.trains}:
                found["tokens"] += 5 * self.rows(model, dataset).tokens
            for dataset, _ in self.pairs(model):
                found["reference losses"] += 4 * self.rows(model, dataset).response
            for run in self.grid.runs():
                if run.model == model:
                    method = self.method(run.method, model)
                    trained = 4 * sizes.shape.trained_parameters
                    if self.grid.training.adapter is None:
                        trained = sizes.parameters * WIDTHS[self.grid.training.dtype]
                    found["adapters and weights"] += method.parts * trained
                    found["selection records"] += 5 * self.rows(model, method.data).response
        return dict(found)

    def throughput(self) -> tuple[dict[str, float], str]:
        """FLOP/s of one GPU by stage, and where they come from."""
        return throughput(self.grid)

    # -- jobs -----------------------------------------------------------------------------------------------------

    def gpus(self, stage: str, model: str) -> int:
        """GPUs of one job."""
        return self.grid.parallel(model).gpus if stage == "train" else 1

    def job_hours(self, stage: str, model: str, flops: float) -> float | None:
        """Hours of a job of so many FLOPs; None where no throughput is known."""
        rate = self.throughput()[0].get(stage)
        return flops / rate / 3600 / self.gpus(stage, model) if rate else None

    def run_flops(self, run: Run) -> float:
        """Of one part, where the run is a chain."""
        method = self.method(run.method, run.model)
        return self.training(run.method, run.model).flops / method.parts

    def critical_hours(self) -> float | None:
        """Hours that no number of GPUs shortens: the longest way from a reference to an evaluation."""
        longest = 0.0
        for model in self.grid.models:
            methods = [m.name for m in self.grid.needed_methods(model) if m.trains]
            ways = {name: self.job_hours("train", model, self.training(name, model).flops) for name in methods}
            before = max((self.losses(model, dataset).flops for dataset, _ in self.pairs(model)), default=0)
            steps = [
                ways.get(REFERENCE, 0.0),
                self.job_hours("references", model, before),
                max((hours or 0.0 for hours in ways.values()), default=0.0),
                self.job_hours("evaluate", model, self.evaluation(model).flops),
            ]
            if None in (*steps, *ways.values()):
                return None
            longest = max(longest, sum(hours or 0.0 for hours in steps))
        return longest
