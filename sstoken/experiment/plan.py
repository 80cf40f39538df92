"""What a configuration will cost, before it runs: ``python -m sstoken.experiment.plan config/X.yaml [key=value …]``.

Tokens of a data set are those of its token file where there is one; else the configuration's (``plan.samples``,
``plan.tokens_per_sample``, ``plan.response_share``), marked as an estimate.  FLOPs follow ``sstoken.models.flops``.
GPU-hours are FLOPs over a throughput: measured, where ``costs.csv`` of the same experiment has jobs of the stage on a GPU, else
``plan.flops_per_second``, else left open.
"""

from __future__ import annotations

import csv
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from sstoken.experiment.config import load_config, settings_of
from sstoken.experiment.grid import REFERENCE, Grid
from sstoken.models.sizes import Sizes, sizes_of
from sstoken.records.documents import PACKAGE, ConfigError, read_table
from sstoken.selection.methods import Method, MethodError, build_method

BENCHMARK_SIZES = "sstoken/evaluation/benchmark_sizes.tsv"
STAGES = ("references", "train", "evaluate")
WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes a number."""


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
        self.benchmarks = {row["name"]: row for row in read_table(BENCHMARK_SIZES, "benchmark_sizes")}

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
            sums = (sum(getattr(part, name) for part in parts) for name in ("samples", "tokens", "response", "pairs"))
            return Rows(*sums, all(part.measured for part in parts))
        section = self.grid.dataset(dataset)
        known = (self.settings["samples"] or {}).get(dataset)
        samples = min(filter(None, (known, section["limit"])), default=None)
        if samples is None:
            raise ConfigError(f"the plan cannot know how many rows {dataset!r} has: set plan.samples.{dataset}")
        length = self.settings["tokens_per_sample"]
        tokens = samples * length
        # lengths spread about as an exponential distribution does: the mean square is twice the squared mean
        return Rows(samples, tokens, round(tokens * self.settings["response_share"]), 2 * samples * length**2, False)

    # -- work of single jobs --------------------------------------------------------------------------------------

    def losses(self, model: str, dataset: str) -> Work:
        rows, shape = self.rows(model, dataset), self.sizes[model].bare
        return Work(1, 1, 0, rows.tokens, 0, shape.forward(rows.tokens, rows.pairs, rows.response))

    def training(self, name: str, model: str) -> Work:
        """One run with all its parts."""
        method, shape = self.method(name, model), self.sizes[model].shape
        rows, epochs = self.rows(model, method.data), self.grid.training.epochs * method.steps_factor
        kept = rows.response * method.keep_ratio
        if method.reference == "previous":  # the first part is trained in full, the others measure their reference
            kept = rows.response * (1 + (method.parts - 1) * method.keep_ratio) / method.parts
        every = self.grid.training.dropped_loss_every
        all_losses = 1.0 if method.reads_logits else 1 / every if every else 0.0
        projected = kept + (rows.response - kept) * all_losses
        once = shape.forward(rows.tokens, rows.pairs, round(projected))
        recomputed = 0
        if self.grid.training.gradient_checkpointing:
            recomputed = shape.recomputed(rows.tokens, rows.pairs, round(projected))
        looks = method.own_history or method.anchor is not None or (method.chooses and bool(method.scorer.reads))
        measured = (method.parts - 1) / method.parts if method.reference == "previous" else float(looks) * epochs
        if method.chooses:  # it looks at every row, and trains on its choice
            epochs *= method.scorer.take / method.scorer.candidates
        passes = 1 + bool(recomputed)
        flops = epochs * (once + recomputed + shape.backward(rows.tokens, rows.pairs, round(projected), round(kept)))
        flops += measured * shape.forward(rows.tokens, rows.pairs, rows.response)
        return Work(
            method.parts, epochs * passes + measured, epochs,
            round(rows.tokens * (epochs * passes + measured)), round(rows.tokens * epochs), round(flops),
        )  # fmt: skip

    def evaluation(self, model: str) -> Work:
        tokens = 0
        for name in self.config["benchmarks"]:
            size = self.benchmarks.get(name)
            if size is None:
                raise ConfigError(f"{BENCHMARK_SIZES} has no benchmark {name!r}")
            questions = int(size["questions"])
            if self.grid.evaluation["limit"]:
                questions = min(questions, self.grid.evaluation["limit"])
            tokens += questions * int(size["tokens"])
        return Work(1, 1, 0, tokens, 0, self.sizes[model].bare.forward(tokens, 0, tokens))

    # -- the grid -------------------------------------------------------------------------------------------------

    def pairs(self, model: str) -> list[tuple[str, str]]:
        """(data set, label) of every pass of frozen weights over one draw of the rows: what is shared."""
        return sorted((dataset, label) for dataset, label, _ in self.grid.asked_losses(model))

    def table(self) -> dict[tuple[str, str, str], Work]:
        """(stage, model, method) -> its work over all seeds."""
        found = {}
        for model in self.grid.models:
            for dataset, _ in self.pairs(model):
                key = ("references", model, "")
                found[key] = found.get(key, Work()) + self.losses(model, dataset)
            for method in self.grid.needed_methods(model):
                if method.trains:
                    found["train", model, method.name] = self.training(method.name, model) * len(
                        self.grid.seeds_of(method.name)
                    )
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
                        if label.startswith(f"{REFERENCE}."):
                            total += self.training(REFERENCE, model).flops
        return total

    def shared(self) -> int:
        """FLOPs of the same, shared."""
        table = self.table()
        return sum(w.flops for (stage, _, method), w in table.items() if stage == "references" or method == REFERENCE)

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
        path = self.grid.root / "costs.csv"
        measured = defaultdict(list)
        if path.exists():
            with open(path) as file:
                for row in csv.DictReader(file):
                    if row["stage"] in STAGES and _is_gpu(row["device"]) and float(row["seconds"]) > 0:
                        measured[row["stage"]].append(float(row["flops"]) / float(row["seconds"]))
        given = self.settings["flops_per_second"] or {}
        rates = {**given, **{stage: statistics.median(values) for stage, values in measured.items()}}
        kind = f"measured in {path}" if measured else "given by plan.flops_per_second" if given else "unknown"
        return rates, kind


def _is_gpu(device: str) -> bool:
    return any(maker in device for maker in ("NVIDIA", "AMD Instinct"))


def jobs_of(command: list[str]) -> list[tuple[str, int]]:
    """(rule, jobs) of the whole workflow, as Snakemake itself plans it."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(PACKAGE.parent / "Snakefile"), "--cores", "1", "--dry-run",
         "--forceall", "--nolock", *command],
        capture_output=True, text=True,
    )  # fmt: skip
    text = done.stdout + done.stderr
    if done.returncode or "Job stats:" not in text:
        raise ConfigError(f"snakemake --dry-run failed:\n{text[-2000:]}")
    lines = text.split("Job stats:")[1].split("\n\n")[0].splitlines()
    return [(name, int(count)) for name, count in (line.split() for line in lines[3:])]


def render(plan: Plan, jobs: list[tuple[str, int]]) -> str:
    """The plan as Markdown."""
    rates, kind = plan.throughput()
    estimated = [
        f"{model} {method.data}" for model in plan.grid.models for method in plan.grid.needed_methods(model)
        if method.trains and not plan.rows(model, method.data).measured
    ]  # fmt: skip
    lines = ["| rule | jobs |", "|---|--:|", *(f"| {rule} | {count} |" for rule, count in jobs), ""]
    lines += [
        "| stage | model | method | jobs | forward passes | backward passes | forward tokens | backward tokens | FLOPs "
        "| GPU-hours | GB a GPU |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    total, hours = Work(), 0.0
    for (stage, model, method), work in plan.table().items():
        total += work
        spent = work.flops / rates[stage] / 3600 if stage in rates else None
        hours += spent or 0.0
        memory = plan.memory(model, stage) / 1e9
        lines.append(_row(stage, model, method, work, spent, f"{memory:.1f}"))
    lines.append(_row("total", "", "", total, hours if rates else None, ""))
    alone, shared = plan.alone(), plan.shared()
    saved = alone - shared
    share = f", {saved / (total.flops + saved):.0%} of what it would have been" if saved else ""
    lines += [
        "",
        f"Tokens: {'estimated' if estimated else 'measured'}"
        + (f" ({plan.settings['tokens_per_sample']} a sample, {plan.settings['response_share']:.0%} of them response) for "
           f"{len(set(estimated))} of the data sets; no token file of theirs exists yet" if estimated else "") + ".",
        "Evaluation: questions of the whole benchmarks or the limit, tokens a question as measured on samples "
        f"({BENCHMARK_SIZES}).",
        f"Throughput: {kind}.",
        f"References and their passes: {shared:.2e} FLOPs shared, {alone:.2e} if each run made its own: {saved:.2e} saved"
        f"{share}.",
        "Disk: " + ", ".join(f"{what} {size / 1e9:.1f} GB" for what, size in plan.disk().items()) + ".",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _row(stage: str, model: str, method: str, work: Work, hours: float | None, memory: str) -> str:
    spent = "" if hours is None else f"{hours:.1f}"
    numbers = (
        f"{work.jobs} | {work.forward_passes:g} | {work.backward_passes:g} | {work.forward:.2e} | {work.backward:.2e}"
    )
    return f"| {stage} | {model} | {method} | {numbers} | {work.flops:.2e} | {spent} | {memory} |"


def main(arguments: list[str]) -> None:
    path, *settings = arguments
    try:
        config = load_config(path, **settings_of(settings))
        plan = Plan(config)
        options = ["--configfile", str(Path(path).absolute()), *(["--config", *settings] if settings else [])]
        print(f"# {config['experiment']}\n\n{render(plan, jobs_of(options))}")
    except (ConfigError, MethodError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
