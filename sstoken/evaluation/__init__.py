"""Evaluation on the paper's benchmarks: the only caller of lm_eval.

``benchmarks`` knows the rows of benchmarks.tsv and what identifies their scores, ``subtasks`` turns a row into lm-eval tasks
(its subtasks, their questions), ``local_rows`` reads and checks their local files, ``harness`` runs them and keeps every
question's score.
"""

import importlib

from sstoken.evaluation.benchmarks import (
    Benchmark,
    EvaluationError,
    EvaluationSettings,
    benchmark_identity,
    load_benchmarks,
)

__all__ = [
    "Benchmark",
    "Evaluation",
    "EvaluationError",
    "EvaluationSettings",
    "benchmark_identity",
    "evaluate",
    "hub_splits",
    "load_benchmarks",
]

_WITH_LM_EVAL = {"Evaluation": "harness", "evaluate": "harness", "hub_splits": "subtasks"}


def __getattr__(name: str):
    # whoever asks for rows and identities alone need not wait for lm-eval, which takes seconds
    if name not in _WITH_LM_EVAL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WITH_LM_EVAL[name]}"), name)
