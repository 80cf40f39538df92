"""Runs benchmarks on a loaded model through lm-eval and keeps the score of every question."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import logging
import math
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import datasets
import lm_eval
import lm_eval.api.model
import lm_eval.api.task
import lm_eval.models.huggingface
import lm_eval.utils
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sstoken.evaluation.benchmarks import Benchmark, EvaluationError, EvaluationSettings
from sstoken.evaluation.encoding import Remembering, identity
from sstoken.evaluation.subtasks import Plan, load, make_plan, spread
from sstoken.evaluation.vllm import check_installed, vllm_model
from sstoken.tasks import prompt_tokenizer

SAMPLE_COLUMNS = ("benchmark", "question_id", "cluster_id", "score")
BACKENDS = {"hf": (), "vllm": ("vllm",)}
PACKAGES = ("lm_eval", "torch", "transformers", "tokenizers", "datasets")


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation.

    scores: a row a benchmark: ``benchmark, metric, score, stderr, n_questions, task_version``; score in 0..1, the mean
    of its questions' scores; stderr that of a mean over independent questions (NaN for one question).
    samples: a row a question: ``benchmark, question_id, cluster_id, score``; questions about one passage, or about
    one entity (column ``cluster`` of the rows), share the cluster, in whichever benchmarks they stand.
    provenance: all else that a score depends on.
    """

    scores: list[dict]
    samples: pd.DataFrame
    provenance: dict


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    benchmarks: list[Benchmark],
    settings: EvaluationSettings,
    *,
    data_root: str | Path | None = None,
    checkpoint: str | Path | None = None,
    weights_id: str | None = None,
) -> Evaluation:
    """Score ``model`` on every benchmark: no chat template, greedy decoding, micro average over subtasks.

    Args:
        model: a causal model, adapters merged, on its device. tokenizer: its tokenizer; it is not changed.
        data_root: folder of the benchmarks' JSON lines (column ``data``); None reads the hub.
        checkpoint: folder that keeps each finished benchmark, so that an interrupted evaluation goes on where it
            stopped. A kept result is reused only for the same row, settings, versions, data and ``weights_id``.
        weights_id: what identifies the model's weights, e.g. their hash; needed with ``checkpoint``.

    Raises:
        EvaluationError: a benchmark that cannot be run as asked, or whose score is not the mean over its questions.
    """
    if checkpoint is not None and not weights_id:
        raise EvaluationError("checkpoint needs weights_id: without it another model's kept scores would be reused")
    if (found := str(model.dtype).removeprefix("torch.")) != settings.dtype:
        raise EvaluationError(
            f"evaluation.dtype is {settings.dtype}, the model was loaded as {found}: load it in that dtype"
        )
    if settings.backend == "vllm":
        check_installed()
    data_root = None if data_root is None else Path(data_root).absolute()
    tokenizer = copy.deepcopy(tokenizer)  # lm-eval sets a pad token on it
    tokenizer_id = identity(tokenizer)
    common = _provenance(model, tokenizer, settings)
    # every plan first: a missing file must not show up hours into the evaluation
    plans = [make_plan(benchmark, settings, data_root) for benchmark in benchmarks]
    lm, parts = None, []
    with ExitStack() as stack:
        for plan in plans:
            kept = None if checkpoint is None else _kept(Path(checkpoint), plan, common, weights_id)
            if kept is not None and kept.exists():
                parts.append(json.loads(kept.read_text()))
                continue
            with _quiet() as truncated, _compiled_once():
                lm = lm or _wrap(model, tokenizer, settings, stack)
                part = _run(lm, tokenizer, plan, settings, tokenizer_id, truncated)
            if kept is not None:
                _write(kept, part)
            parts.append(part)
    rows = [row for part in parts for row in part["samples"]]
    details = {part["score"]["benchmark"]: part["provenance"] for part in parts}
    samples = pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS))
    return Evaluation([part["score"] for part in parts], samples, {**common, "benchmarks": details})


def _run(lm, tokenizer, plan: Plan, settings: EvaluationSettings, tokenizer_id: str, truncated: _Truncations) -> dict:
    benchmark = plan.benchmark
    reading = prompt_tokenizer.set(tokenizer)
    try:
        loaded = load(plan, tokenizer_id)
        tasks = loaded["tasks"]
        _check_window(lm, benchmark, tasks)
        chosen = None
        if settings.limit is not None:
            counts = spread({name: len(task.eval_docs) for name, task in tasks.items()}, settings.limit)
            chosen = {name: list(range(count)) for name, count in counts.items()}
        random.seed(settings.seed)
        np.random.seed(settings.seed)
        torch.manual_seed(settings.seed)
        for task in tasks.values():
            task.set_fewshot_seed(settings.seed)
        results = lm_eval.evaluate(
            lm, loaded, limit=settings.limit_fraction, samples=chosen, bootstrap_iters=0, apply_chat_template=False
        )
    finally:
        prompt_tokenizer.reset(reading)
    rows = _question_rows(benchmark, results)
    score = _checked_mean(benchmark, plan.group, rows, results)
    values = np.array([row["score"] for row in rows])
    return {
        "score": {
            "benchmark": benchmark.name,
            "metric": benchmark.metric,
            "score": score,
            "stderr": float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan,
            "n_questions": len(rows),
            "task_version": benchmark.version,
        },
        "samples": rows,
        "provenance": {
            "task": benchmark.task,
            "shots": benchmark.shots,
            "task_versions": plan.versions,
            "truncations": truncated.count,
            "data_files": plan.files,
            "means": _means(benchmark, results),
        },
    }


def _means(benchmark: Benchmark, results: dict) -> dict[str, float]:
    """Every metric that each question of the benchmark has a number of, averaged over questions."""
    samples = [s for found in results["samples"].values() for s in found if s["filter"] == benchmark.metric_key[1]]
    numbers = [{name for name in s["metrics"] if isinstance(s.get(name), (int, float))} for s in samples]
    shared = sorted(set.intersection(*numbers)) if numbers else []
    return {name: math.fsum(float(sample[name]) for sample in samples) / len(samples) for name in shared}


def _question_rows(benchmark: Benchmark, results: dict) -> list[dict]:
    metric, answer_filter = benchmark.metric_key
    rows = []
    for task, samples in results["samples"].items():
        for sample in sorted((s for s in samples if s["filter"] == answer_filter), key=lambda s: s["doc_id"]):
            if metric not in sample:
                known = ", ".join(sample["metrics"])
                raise EvaluationError(
                    f"benchmark {benchmark.name!r}: {task!r} has no metric {metric!r}; known: {known}"
                )
            question = f"{task}/{sample['doc_id']}"
            values = (benchmark.name, question, _cluster(sample["doc"]) or question, float(sample[metric]))
            rows.append(dict(zip(SAMPLE_COLUMNS, values, strict=True)))
    if not rows:
        filters = sorted({s["filter"] for samples in results["samples"].values() for s in samples})
        raise EvaluationError(f"benchmark {benchmark.name!r}: no filter {answer_filter!r}; known: {', '.join(filters)}")
    return rows


def _cluster(doc: dict) -> str:
    """What the question shares with others, in this benchmark or another: an entity that the row names, or its passage."""
    if doc.get("cluster"):
        return f"entity/{doc['cluster']}"
    passage = _passage(doc)
    return f"passage/{hashlib.sha256(passage.encode()).hexdigest()[:16]}" if passage else ""


def _passage(doc: dict) -> str:
    """The text that several questions share: its own field, or in AGIEval's ``query`` what precedes the question."""
    for field in ("passage", "context"):
        if doc.get(field):
            return doc[field]
    query = doc.get("query", "")
    return query[: max(query.rfind("Q: "), query.rfind("问题："), 0)].strip()


def _checked_mean(benchmark: Benchmark, group: str, rows: list[dict], results: dict) -> float:
    score = math.fsum(row["score"] for row in rows) / len(rows)
    theirs = results["results"][group][",".join(benchmark.metric_key)]
    if not math.isclose(score, theirs, rel_tol=1e-9, abs_tol=1e-12):
        raise EvaluationError(
            f"benchmark {benchmark.name!r}: lm-eval reports {benchmark.metric} = {theirs}, the mean over {len(rows)} "
            f"questions is {score}: this metric is not a mean over questions, so paired tests would not speak of it"
        )
    return score


def _check_window(lm, benchmark: Benchmark, tasks: dict) -> None:
    for name, task in tasks.items():
        if task.OUTPUT_TYPE == "generate_until":
            asked = task.config.generation_kwargs.get("max_gen_toks", lm.max_gen_toks)
            if asked >= lm.max_length:
                raise EvaluationError(
                    f"benchmark {benchmark.name!r}: task {name!r} generates up to {asked} tokens, the model reads "
                    f"{lm.max_length} in all: set evaluation.max_gen_toks well below {lm.max_length}"
                )


def _wrap(model, tokenizer, settings: EvaluationSettings, stack: ExitStack):
    if settings.backend == "vllm":
        return stack.enter_context(vllm_model(model, tokenizer, settings))
    lm = lm_eval.models.huggingface.HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        backend="causal",
        batch_size=settings.batch_size,
        max_length=settings.max_length,
        add_bos_token=settings.add_bos,
    )
    if tokenizer.is_fast:
        lm.tok_encode = Remembering(lm.tok_encode, tokenizer, settings.add_bos)
    return lm


def _provenance(model, tokenizer, settings: EvaluationSettings) -> dict:
    # exactly what lm-eval does with the setting; a tokenizer whose template has no BOS adds none, even when asked
    special = {} if settings.add_bos is None else {"add_special_tokens": settings.add_bos}
    first = tokenizer("a", **special)["input_ids"][0]
    bos_added = tokenizer.bos_token_id is not None and first == tokenizer.bos_token_id
    if settings.add_bos and not bos_added:
        raise EvaluationError("evaluation.add_bos is true, but this tokenizer puts no BOS before a text: leave it null")
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items())).encode()
    return {
        "backend": settings.backend,
        "chat_template": False,
        "versions": {package: version(package) for package in (*PACKAGES, *BACKENDS[settings.backend])},
        "settings": dataclasses.asdict(settings),
        "bos_added": bos_added,
        "device": model.device.type,
        "attention": model.config._attn_implementation,
        "tokenizer": {
            "class": type(tokenizer).__name__,
            "size": len(tokenizer),
            "sha256": hashlib.sha256(vocabulary).hexdigest(),
            "bos": tokenizer.bos_token,
            "eos": tokenizer.eos_token,
        },
    }


def _kept(folder: Path, plan: Plan, common: dict, weights_id: str) -> Path:
    """Where this benchmark's result is kept: one file, named by a hash of everything that its scores depend on."""
    subject = [dataclasses.asdict(plan.benchmark), plan.versions, plan.files, common, weights_id]
    digest = hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()
    return folder / f"{plan.benchmark.name}-{digest[:16]}.json"


def _write(path: Path, part: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    unfinished.write_text(json.dumps(part))
    unfinished.replace(path)


class _Truncations(logging.Filter):
    """Counts, instead of printing, lm-eval's line for every request (when generating: batch) too long for the model."""

    count = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if "truncat" in record.msg.lower():
            self.count += 1
            return False
        # lm-eval says each time that a model that is already loaded will not be loaded or placed
        return "`pretrained`" not in record.msg


@contextmanager
def _compiled_once() -> Iterator[None]:
    """lm-eval compiles a prompt's template anew for every question, which for small models takes longer than the model."""
    environment = lm_eval.utils.env
    environment.from_string = lru_cache(maxsize=1024)(environment.from_string)
    try:
        yield
    finally:
        del environment.from_string


def _no_bar(*args, **options):
    return tqdm(*args, **{**options, "disable": True})


@contextmanager
def _quiet() -> Iterator[_Truncations]:
    """A bar for each of 57 subtasks and a line for each truncated request drown a log; warnings stay."""
    library, backend = logging.getLogger("lm_eval"), logging.getLogger("lm_eval.models.huggingface")
    level, bars = library.level, datasets.are_progress_bars_disabled()
    truncated = _Truncations()
    modules = (lm_eval.api.model, lm_eval.api.task, lm_eval.models.huggingface)
    library.setLevel(logging.WARNING)
    backend.addFilter(truncated)
    datasets.disable_progress_bars()
    for module in modules:
        module.tqdm = _no_bar
    try:
        yield truncated
    finally:
        for module in modules:
            module.tqdm = tqdm
        if not bars:
            datasets.enable_progress_bars()
        backend.removeFilter(truncated)
        library.setLevel(level)
