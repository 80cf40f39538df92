"""Weightings and masks beyond the papers, the slow and obvious way: one token after the other, in Python's floats.

Written from the definitions alone.  A sample is a mapping with ``logits`` [n, V] (float64) and ``target`` [n] of its n
response tokens, and per token what else the method asks for: ``base``, ``reference``, ``harmful``, ``utility``,
``unconditional`` losses, ``truth``, ``rank``.  ``progress`` is the share of steps done.  Each function answers a list of
samples with a list of lists: what every token's loss counts for in the loss of the whole batch.
"""

from __future__ import annotations

import math
from fractions import Fraction


def probabilities(sample):
    return [row.softmax(-1).tolist() for row in sample["logits"]]


def p_of(sample):
    return [row[t] for row, t in zip(probabilities(sample), sample["target"], strict=True)]


def loss_of(sample):
    return [-math.log(p) for p in p_of(sample)]


def entropy_of(sample, top=20):
    found = []
    for row in probabilities(sample):
        best = sorted(row, reverse=True)[:top]
        found.append(-sum(p / sum(best) * math.log(p / sum(best)) for p in best if p > 0))
    return found


def collision_of(sample):
    return [sum(p * p for p in row) for row in probabilities(sample)]


def over_all(samples, weight_of):
    """Weights over the number of all response tokens, kept or not."""
    count = sum(len(s["target"]) for s in samples)
    return [[w / count for w in weight_of(s)] for s in samples]


def dft(samples, **_):
    return over_all(samples, p_of)


def beyond_log(samples, alpha=10.0, least=0.0, most=1.0, **_):
    return over_all(samples, lambda s: [p**alpha if least <= p <= most else 0.0 for p in p_of(s)])


def deft(samples, **_):
    return over_all(samples, lambda s: [p**c for p, c in zip(p_of(s), collision_of(s), strict=True)])


def deft_cayley(samples, **_):
    every = [p for s in samples for p in p_of(s)]
    floor = 0.5 * sum(every) / len(every)
    exponent = [min(1.0, max(0.001, floor + (1 - floor) * p / (2 - p))) for p in every]
    power = iter([p**c for p, c in zip(every, exponent, strict=True)])
    return over_all(samples, lambda s: [next(power) for _ in s["target"]])


def eaft(samples, alpha=1.0, **_):
    return over_all(samples, lambda s: [(h / 3) ** alpha for h in entropy_of(s)])


def talr(samples, least=0.01, temperature=None, **_):
    means = sorted(sum(loss_of(s)) / len(s["target"]) for s in samples)
    tau = temperature or max(means[(len(means) - 1) // 2], 1e-6)
    return over_all(samples, lambda s: [max(p ** (1 / tau), least) for p in p_of(s)])


def iw_sft(samples, form="sample", **_):
    def weight_of(sample):
        ratio = [r - own for r, own in zip(sample["reference"], loss_of(sample), strict=True)]
        if form == "token":
            return [min(1.8, max(0.2, math.exp(x))) for x in ratio]
        return [min(16.0, math.exp(sum(ratio) / len(ratio)))] * len(ratio)

    return over_all(samples, weight_of)


def infosft(samples, ceiling=0.93, **_):
    def logit(p):
        return math.log(p / (1 - p))

    return over_all(samples, lambda s: [p * max(logit(ceiling) - logit(p), 0.0) for p in p_of(s)])


def same_mean_weight(samples, **_):
    every = [p for s in samples for p in p_of(s)]
    return over_all(samples, lambda s: [sum(every) / len(every)] * len(s["target"]))


def profit(samples, least=0.1, **_):
    return over_all(samples, lambda s: [float(p >= least) for p in p_of(s)])


def over_kept(samples, keeps):
    count = max(1, sum(sum(keep) for keep in keeps))
    return [[k / count for k in keep] for keep in keeps]


def stm(samples, perplexity=2.5, **_):
    return over_kept(samples, [[math.exp(b) <= perplexity for b in s["base"]] for s in samples])


def t3s(samples, **_):
    return over_kept(samples, [[r >= b for r, b in zip(s["reference"], s["base"], strict=True)] for s in samples])


def best(samples, score_of, share, rounding=math.floor):
    """Keep the share of tokens with the highest scores of all samples; of equal ones the earlier."""
    every = [(-v, i, j) for i, s in enumerate(samples) for j, v in enumerate(score_of(s))]
    chosen = {(i, j) for _, i, j in sorted(every)[: rounding(Fraction(str(share)) * len(every))]}
    return [[(i, j) in chosen for j in range(len(s["target"]))] for i, s in enumerate(samples)]


def difference(one, other):
    return lambda s: [a - b for a, b in zip(s[one], s[other], strict=True)]


def forgetting(samples, progress=0.0, **_):
    keeps = best(samples, difference("base", "reference"), 0.7)
    good = max(1, sum(map(sum, keeps)))
    bad = max(1, sum(len(keep) - sum(keep) for keep in keeps))
    strength = (0.25 - 1e-5) * progress
    return [[1 / good if k else -strength / bad for k in keep] for keep in keeps]


def toss(samples, **_):
    """Drop the first floor(d n) tokens by risk L_u - L_h; each sample's mean, then the mean of samples."""
    risk = difference("utility", "harmful")
    drops = best(samples, risk, 0.2)
    return [[(not d) / max(1, len(drop) - sum(drop)) / len(samples) for d in drop] for drop in drops]


def toss_mined(samples, **_):
    """A quarter of the tokens, by samples: those that a walk from the highest risk down meets first."""
    worst = [max(difference("utility", "harmful")(s)) for s in samples]
    keeps = best(samples, lambda s: [max(difference("utility", "harmful")(s))] * len(s["target"]), 0.25, math.ceil)
    met = sorted(range(len(samples)), key=lambda i: -worst[i])
    kept = [i for i in met if any(keeps[i])]
    assert kept == met[: len(kept)]
    return [[k / max(1, sum(keep)) / len(samples) for k in keep] for keep in keeps]


def ifd(samples, **_):
    return over_kept(samples, best(samples, difference("unconditional", "base"), 0.6))


def middle_perplexity(samples, **_):
    order = sorted(b for s in samples for b in s["base"])
    return over_kept(
        samples, best(samples, lambda s: [-abs(order.index(b) / len(order) - 0.5) for b in s["base"]], 0.6)
    )


def within(samples, score_of):
    """Keep 60 % of each sample, rounded up; mean over kept tokens."""
    keeps = [best([s], score_of, 0.6, math.ceil)[0] for s in samples]
    return over_kept(samples, keeps)


def easiest(samples, **_):
    return within(samples, lambda s: [-x for x in loss_of(s)])


def hardest(samples, **_):
    return within(samples, loss_of)


def first_k_dropped(samples, count=5, **_):
    return over_kept(samples, [[j >= count for j in range(len(s["target"]))] for s in samples])


def sample_oracle(samples, **_):
    return over_kept(samples, [[not any(s["truth"])] * len(s["target"]) for s in samples])
