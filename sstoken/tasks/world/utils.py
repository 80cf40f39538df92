"""What the miniature benchmarks compute: partial-context choices, mc2, F1, each as in the benchmark it stands for."""

from __future__ import annotations

import math

from sstoken.tasks.tydiqa.utils import f1


def winogrande_text(doc: dict) -> int:
    """lm-eval's convention for several contexts and one continuation: the index of the right context."""
    return int(doc["answer"]) - 1


def winogrande_target(doc: dict) -> str:
    return doc["sentence"].partition("_")[2].strip()


def winogrande_choice(doc: dict) -> list[str]:
    before = doc["sentence"].partition("_")[0]
    return [before + doc["option1"], before + doc["option2"]]


def mc2(doc: dict, results: list[tuple[float, bool]]) -> dict[str, float]:
    """Sum of p over true options / sum of p over all options (TruthfulQA, arXiv 2109.07958)."""
    # relative to the likeliest option: a weak model's probabilities would all round to 0
    best = max(loglikelihood for loglikelihood, _ in results)
    weights = [math.exp(loglikelihood - best) for loglikelihood, _ in results]
    true = math.fsum(w for w, label in zip(weights, doc["mc2_targets"]["labels"], strict=True) if label)
    return {"acc": true / math.fsum(weights)}


def answer_f1(doc: dict, results: list[str]) -> dict[str, float]:
    return {"f1": max(f1(results[0].strip(), gold) for gold in doc["answers"]["text"])}
