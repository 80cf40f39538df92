"""Grids of right and wrong answers with known effects; every variance is set from real runs of the embedded world.

An answer is right if its latent value is positive: a threshold of method and benchmark, plus normal effects of question,
passage, method x question, method x passage, seed (of its own in every benchmark, partly shared by all methods), and the
single answer.  So the expected score is Φ(threshold / latent SD), whatever the draws.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import special

from sstoken.report.question_scores import ModelRuns

METHODS = ("base", "full", "random", "rho1", "rho1-static", "tokencleaning-fixed", "tokencleaning-self-evolving",
           "self-modulated", "semantic-aware", "sstoken", "oracle", "clean")  # fmt: skip
# expected scores of full-data training in the world's ten benchmarks, percent
LEVELS = np.array([70.0, 54.0, 61.0, 77.0, 31.0, 25.0, 32.0, 29.0, 63.0, 14.0])
# SD over seeds of each trained method's ten-task average in the world, percent points: llama and qwen2
SEED_SD = {
    "llama": np.array([0.56, 0.30, 0.51, 0.32, 0.47, 0.66, 0.64, 0.70, 1.13, 0.50, 0.26]),
    "qwen2": np.array([0.25, 0.78, 0.55, 0.67, 1.01, 1.35, 0.31, 0.54, 0.79, 0.30, 0.26]),
}


@dataclass(frozen=True)
class World:
    """seed_sd: [trained methods] SD over seeds of the average of ten benchmarks, percent points, about.

    seed_shared: share of the seed variance that all methods have in common. passage: questions about one passage in every
    second benchmark. entities: every benchmark's questions are about these, where there are any; each stands in all
    benchmarks. The variances below are shares of the latent variance.
    """

    methods: tuple[str, ...] = METHODS
    seeds: int = 3
    questions: int = 120
    passage: int = 1
    entities: int = 0
    seed_sd: np.ndarray | float = 0.35
    seed_shared: float = 0.2
    question: float = 0.77
    method_question: float = 0.18
    answer: float = 0.05
    effects: tuple[float, ...] | None = None  # percent points over full, a method; None: no method differs


def simulate(world: World, generator: np.random.Generator, levels: np.ndarray = LEVELS) -> tuple[ModelRuns, np.ndarray]:
    """One model's runs, and the expected scores [M, B] in percent."""
    methods, tasks = len(world.methods), len(levels)
    effects = np.zeros(methods) if world.effects is None else np.array(world.effects)
    truth_MB = np.clip(levels + effects[:, None], 1, 99)
    seeded = np.array([name != "base" for name in world.methods])
    sd = np.zeros(methods)
    sd[seeded] = world.seed_sd
    draw = partial(generator.standard_normal, dtype=np.float32)
    of_entity = [draw((*shape, world.entities)) for shape in ((), (methods,))]
    scores, clusters = [], []
    for task in range(tasks):
        # the average's SD over seeds is a benchmark's / sqrt(tasks); a latent step moves the score by the normal density
        slope = 100 * _density(special.ndtri(truth_MB[:, task] / 100))
        seed_sd = sd * np.sqrt(tasks) / slope
        shared = np.sqrt(world.seed_shared) * draw((1, world.seeds))
        seed = seed_sd[:, None] * (shared + np.sqrt(1 - world.seed_shared) * draw((methods, world.seeds)))
        size = world.passage if task % 2 else 1
        passage = np.arange(world.questions) // size
        if world.entities:
            passage = np.sort(np.arange(world.questions) % world.entities)
        count = passage[-1] + 1
        # half of what a question brings is its passage's or entity's
        half = 0.5 if size > 1 or world.entities else 0.0
        question, own = (
            np.sqrt(part) * _nested(draw, shape, passage, count, half, known if world.entities else None)
            for part, shape, known in zip(
                (world.question, world.method_question), ((), (methods,)), of_entity, strict=True
            )
        )
        answer = np.sqrt(world.answer) * draw((methods, world.seeds, world.questions))
        threshold = special.ndtri(truth_MB[:, task] / 100) * np.sqrt(1 + seed_sd**2)
        latent = threshold[:, None, None] + seed[:, :, None] + question + own[:, None, :] + answer
        right = 100.0 * (latent > 0)
        right[~seeded] = right[~seeded, :1]
        scores.append(right)
        clusters.append(passage if world.entities else passage + task * world.questions)
    names = tuple(f"task{task}" for task in range(tasks))
    return ModelRuns("model", world.methods, seeded, names, tuple(scores), tuple(clusters)), truth_MB


def _density(z: np.ndarray) -> np.ndarray:
    return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def _nested(draw, shape: tuple[int, ...], passage: np.ndarray, count: int, half: float, known=None) -> np.ndarray:
    alone = np.sqrt(1 - half) * draw((*shape, len(passage)))
    if not half:
        return alone
    return alone + np.sqrt(half) * (draw((*shape, count)) if known is None else known)[..., passage]


SCENARIOS = {
    "as measured": World(),
    "no seed variance": World(seed_sd=0.0),
    "seeds matter most": World(seed_sd=2.0),
    "unlike methods (llama)": World(seed_sd=SEED_SD["llama"]),
    "unlike methods (qwen2)": World(seed_sd=SEED_SD["qwen2"]),
    "passages of 4": World(passage=4),
    "two methods and the base": World(methods=("base", "full", "sstoken")),
    "one seed": World(seeds=1, seed_sd=0.0),
    "12 questions": World(questions=12),
    "40 entities in all benchmarks": World(entities=40),
}


def with_effects(world: World) -> World:
    """Known effects from -6 to +8 points, the oracle's +6."""
    known = dict(zip(METHODS, (8, 0, 0, 5, -3, -4, -6, -5, -1, 1, 6, 6), strict=True))
    return replace(world, effects=tuple(float(known[name]) for name in world.methods))
