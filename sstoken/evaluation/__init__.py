"""Evaluation on the paper's benchmarks: the only caller of lm_eval.

``benchmarks`` knows the rows of benchmarks.tsv, ``plan`` turns a row into lm-eval tasks (its subtasks, their questions,
their local files), ``harness`` runs them and keeps every question's score.
"""

from sstoken.evaluation.benchmarks import Benchmark, EvaluationError, EvaluationSettings, load_benchmarks
from sstoken.evaluation.harness import Evaluation, evaluate
from sstoken.evaluation.subtasks import hub_splits

__all__ = [
    "Benchmark",
    "Evaluation",
    "EvaluationError",
    "EvaluationSettings",
    "evaluate",
    "hub_splits",
    "load_benchmarks",
]
