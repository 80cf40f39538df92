"""The page's first screen in words, made from the tables: who wins, is it real, what did it cost, what was kept."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from sstoken.report.numbers import (
    EMPTY,
    interval,
    listed,
    number,
    row_difference,
    row_ends,
    row_estimate,
    seconds,
    share,
    signed,
)
from sstoken.report.results import AVERAGE, Results
from sstoken.report.statistics import MARGIN
from sstoken.report.tables.estimates import ALL_MODELS, BASELINE, verdict

HEADLINE = "sstoken"


@dataclass(frozen=True)
class Verdict:
    """Four answers about one model; each a sentence or a few."""

    model: str
    wins: str
    real: str
    cost: str
    kept: str


@dataclass(frozen=True)
class Glance:
    """The same answers in a line, for grids of many models; "" where a number is missing."""

    model: str
    winner: str
    average: str
    gap: str
    headline: str
    cost: str
    kept: str


@dataclass(frozen=True)
class OverviewRow:
    """One method on one model, as text; "" where a number is missing.

    best: alone at the top. teaches: significantly above the base, or no base is known.
    verdict: better, worse, level, open, or "".
    """

    method: str
    role: str
    best: bool
    average: str
    average_ends: str
    taught: str
    taught_ends: str
    teaches: bool
    lost: str
    lost_ends: str
    gap: str
    gap_ends: str
    verdict: str
    time: str
    kept: str
    clean: str


def verdict_of(results: Results, model: str) -> Verdict:
    best = _ranking(results, model)
    if not best:
        nothing = "Nothing to compare yet: no contender's runs are complete."
        return Verdict(model, nothing, "", "", "")
    kept = " ".join(filter(None, [_kept(results, model, best[0]), _finds(results, model)]))
    return Verdict(
        model, _wins(results, model, best), _real(results, model, best), _cost(results, model, best[0]), kept
    )


def glance_of(results: Results, model: str) -> Glance:
    best = _ranking(results, model)
    if not best:
        return Glance(model, "none yet", "", "", "", "", "")
    row = _row(results, model, best[0], True)
    gap, headline = (results.difference(model, m, BASELINE) for m in (best[0], HEADLINE))
    shares = [row.kept, f"{row.clean} of it clean" if row.clean else ""]
    return Glance(
        model=model,
        winner=best[0],
        average=row_estimate(results.average(model, best[0])),
        gap=row_difference(gap) if gap is not None else "",
        headline=row_difference(headline) if headline is not None else "",
        cost=row.time,
        kept=", ".join(filter(None, shares)),
    )


def spans(rows: list[list[OverviewRow]], column: str) -> list[str]:
    """For each method, what ``column`` says of all models: one text where they agree, else the ends of its range.

    rows: a list a model, each with a row a method.
    """
    found = []
    for same in zip(*rows, strict=True):
        texts = sorted({text for row in same if (text := getattr(row, column))}, key=lambda t: float(t.rstrip(" %×s")))
        found.append(f"{texts[0].rstrip(' %×s')} to {texts[-1]}" if len(texts) > 1 else "".join(texts))
    return found


def overview(results: Results, model: str) -> list[OverviewRow]:
    facts, best = results.facts, _tied(results, model, _ranking(results, model))
    return [_row(results, model, m, best == [m] and _teaches(results, model, m)) for m in facts.methods]


def together_of(results: Results) -> list[tuple[str, str]]:
    """(question, answer) about the mean over models; empty where there is one model, or a run is missing."""
    table = results.pooled
    rows = table[(table["against"] == BASELINE) & (table["benchmark"] == AVERAGE)].set_index("method")
    methods = [m for m in results.facts.contenders if m in rows.index]
    if not methods:
        return []
    top = max(methods, key=lambda m: rows.loc[m, "estimate"])
    lines = []
    for method in dict.fromkeys([top, *(m for m in (*results.facts.own, HEADLINE, "random") if m in methods)]):
        row = rows.loc[method]
        text = f"{method} minus {BASELINE}: {row_difference(row)}; above {BASELINE} in {row['above']:.0f} of {row['pairs']:.0f}"
        lines.append(f"{text} pairs of model and seed.")
    groups: dict[str, list[str]] = {}
    for method in methods:
        groups.setdefault(verdict(rows.loc[method]), []).append(method)
    words = {
        "better": f"better than {BASELINE}",
        "worse": f"worse than {BASELINE}",
        "level": f"level with {BASELINE} (shown to be within ± {MARGIN:g} point)",
        "open": "not told apart, and not shown to be level",
    }
    told = "; ".join(f"{words[name]}: {listed(groups[name])}" for name in words if name in groups)
    idle = [m for m in results.facts.contenders if not _teaches(results, ALL_MODELS, m)]
    answers = [("On average over the models", " ".join(lines)), ("Each method", f"{told[0].upper()}{told[1:]}.")]
    if idle:
        answers.append(("Taught nothing", f"Not significantly above the untrained base: {listed(idle)}."))
    return answers


def _ranking(results: Results, model: str) -> list[str]:
    """Contenders with an average, best first; those that are not above the base stand after those that are."""
    found = {m: results.average(model, m) for m in results.facts.contenders}
    found = {m: row["estimate"] for m, row in found.items() if row is not None}
    return sorted(found, key=lambda m: (not _teaches(results, model, m), -found[m]))


def _teaches(results: Results, model: str, method: str) -> bool:
    """Whether the method is significantly above the base; True where no base is known."""
    axis = results.axis(model, method)
    return axis is None or pd.isna(axis["taught"]) or bool(axis["teaches"])


def _tied(results: Results, model: str, best: list[str]) -> list[str]:
    """The methods at the top of the ranking whose averages are written alike."""
    top = [number(results.average(model, m)["estimate"], 1) for m in best]
    return [m for m, text in zip(best, top, strict=True) if text == top[0] and _alike(results, model, best[0], m)]


def _alike(results: Results, model: str, first: str, second: str) -> bool:
    return _teaches(results, model, first) == _teaches(results, model, second)


def _wins(results: Results, model: str, best: list[str]) -> str:
    shown = {m: row_estimate(results.average(model, m)) for m in best}
    level = _tied(results, model, best)
    text = ""
    if not _teaches(results, model, best[0]):
        text = f"No method is significantly above the untrained {listed(results.facts.untrained)}. "
    if len(level) > 1:
        text += f"{listed(level)} share the highest average, {shown[best[0]].split()[0]}."
    else:
        text += f"{best[0]} has the highest average, {shown[best[0]]}"
        text += f"; {best[1]} follows with {shown[best[1]]}." if len(best) > 1 else "."
    base = {m: results.average(model, m) for m in results.facts.untrained}
    for method, row in base.items():
        if row is not None and row["estimate"] > results.average(model, best[0])["estimate"]:
            text += f" The untrained {method} is higher still, {number(row['estimate'], 1)}: training hurt here."
    recovery = results.recovery(model, best[0])
    if recovery is not None and len(level) == 1 and _teaches(results, model, best[0]):
        low, high = (share(recovery[end]).removesuffix(" %") for end in ("low", "high"))
        text += f" It recovers {share(recovery['estimate'])} [{low}, {high}] of what the oracle gains over {BASELINE}."
    absent = [m for m in results.facts.contenders if m not in best]
    return text + (f" Not complete yet: {listed(absent)}." if absent else "")


def _real(results: Results, model: str, best: list[str]) -> str:
    parts = []
    shown = list(dict.fromkeys(m for m in (best[0], *results.facts.own, HEADLINE) if m in best and m != BASELINE))
    if best[0] == BASELINE:
        parts.append(f"No method beats {BASELINE}.")
    for method in shown:
        gap = results.difference(model, method, BASELINE)
        parts.append(f"{method} minus {BASELINE}: {row_difference(gap)}." if gap is not None else "")
    if len(best) > 1 and BASELINE not in best[:2]:
        lead = results.difference(model, best[0], best[1])
        parts.append(f"{best[0]} minus {best[1]}: {row_difference(lead)}." if lead is not None else "")
    gaps = [results.difference(model, m, BASELINE) for m in best if m != BASELINE]
    gaps = [g for g in gaps if g is not None]
    if gaps:
        told = [verdict(gap) for gap in gaps]
        parts.append(
            f"Of {len(gaps)} method{'s' * (len(gaps) > 1)}, significantly better than {BASELINE}: {told.count('better')}; "
            f"worse: {told.count('worse')}; level with it, shown to be within ± {MARGIN:g} point: {told.count('level')}; open: "
            f"{told.count('open')}."
        )
    return " ".join(filter(None, parts)) or f"Not known: {BASELINE} is not complete."


def _cost(results: Results, model: str, method: str) -> str:
    cost, baseline = results.cost(model, method), results.cost(model, BASELINE)
    if cost is None:
        return f"Not known: the costs of {method} are not complete."
    total = cost["training_seconds"] + cost["reference_seconds"]
    text = f"{method} took {seconds(total)} of training a run"
    if baseline is not None and method != BASELINE:
        text += (
            f", {total / baseline['training_seconds']:.2f} times {BASELINE}'s {seconds(baseline['training_seconds'])}"
        )
    if cost["reference_seconds"] > 0:
        return f"{text}; {seconds(cost['reference_seconds'])} of it for the reference model and its loss passes."
    return f"{text}; it needs no reference model."


def _kept(results: Results, model: str, method: str) -> str:
    kept, clean = results.kept_share(model, method), results.precision(model, method)
    if kept is None:
        return f"Not known: {method} left no record of its selection."
    text = f"{method} trained on {share(kept)} of the response tokens"
    if clean is None:
        return f"{text}."
    before = results.precision(model, BASELINE)
    return f"{text}; {share(clean)} of these are clean" + (
        f", against {share(before)} of all." if before is not None and method != BASELINE else "."
    )


def _finds(results: Results, model: str) -> str:
    """How well one's own scores and the headline's find the noise; "" where none is labelled."""
    asked = [name for name in (*results.facts.own, HEADLINE) if name in results.facts.methods]
    found = {name: auc for name in dict.fromkeys(asked) if (auc := results.auc(model, name)) is not None}
    if not found:
        return ""
    told = listed([f"{name} {number(auc, 2)}" for name, auc in found.items()])
    return f"A clean token is ranked above a noise token (AUC; 0.5 is chance): {told}."


def _row(results: Results, model: str, method: str, best: bool) -> OverviewRow:
    facts, axis = results.facts, results.axis(model, method)
    average, gap = results.average(model, method), results.difference(model, method, BASELINE)
    cost, baseline = results.cost(model, method), results.cost(model, BASELINE)
    trains = method not in facts.untrained
    total = cost["training_seconds"] + cost["reference_seconds"] if cost is not None and trains else None
    kept = results.kept_share(model, method) if trains else None
    clean = results.precision(model, method) if trains else None
    return OverviewRow(
        method=method,
        role="bound" if method in facts.bounds else "" if trains else "not trained",
        best=best,
        average=number(average["estimate"], 1) if average is not None else "",
        average_ends=row_ends(average) if average is not None else "",
        taught=_axis(axis, "taught"),
        taught_ends=_axis_ends(axis, "taught"),
        teaches=_teaches(results, model, method),
        lost=_axis(axis, "lost"),
        lost_ends=_axis_ends(axis, "lost"),
        gap=signed(gap["estimate"], 1) if gap is not None else "",
        gap_ends=row_ends(gap) if gap is not None else "",
        verdict=verdict(gap) if gap is not None else "",
        time="" if total is None else _ratio(total, baseline) if baseline is not None else seconds(total),
        kept=share(kept) if kept is not None else "",
        clean=share(clean) if clean is not None else "",
    )


def _ratio(total: float, baseline: pd.Series) -> str:
    return f"{total / baseline['training_seconds']:.2f}×"


def _axis(axis: pd.Series | None, name: str) -> str:
    return "" if axis is None or pd.isna(axis[name]) else signed(axis[name], 1)


def _axis_ends(axis: pd.Series | None, name: str) -> str:
    if axis is None:
        return ""
    found = interval(axis[f"{name}_low"], axis[f"{name}_high"], 1)
    return "" if found == EMPTY else f" {found}"
