"""The page's first screen in words, made from the tables: who wins, is it real, what did it cost, what was kept."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from sstoken.report.numbers import listed, number, row_difference, row_ends, row_estimate, seconds, share, signed
from sstoken.report.results import Results

BASELINE, HEADLINE = "full", "sstoken"


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
    """One method on one model, as text; "" where a number is missing. verdict: better, worse, same, or ""."""

    method: str
    role: str
    best: bool
    average: str
    average_ends: str
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
    return Verdict(model, _wins(results, model, best), _real(results, model, best), _cost(results, model, best[0]),
                   _kept(results, model, best[0]))  # fmt: skip


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
    facts, best = results.facts, _ranking(results, model)[:1]
    return [_row(results, model, method, method in best) for method in facts.methods]


def _ranking(results: Results, model: str) -> list[str]:
    """Contenders with an average, best first."""
    found = {m: results.average(model, m) for m in results.facts.contenders}
    found = {m: row["estimate"] for m, row in found.items() if row is not None}
    return sorted(found, key=lambda m: -found[m])


def _wins(results: Results, model: str, best: list[str]) -> str:
    shown = {m: row_estimate(results.average(model, m)) for m in best}
    level = [m for m in best if shown[m].split()[0] == shown[best[0]].split()[0]]
    if len(level) > 1:
        text = f"{listed(level)} share the highest average, {shown[best[0]].split()[0]}."
    else:
        text = f"{best[0]} has the highest average, {shown[best[0]]}"
        text += f"; {best[1]} follows with {shown[best[1]]}." if len(best) > 1 else "."
    base = {m: results.average(model, m) for m in results.facts.untrained}
    for method, row in base.items():
        if row is not None and row["estimate"] > results.average(model, best[0])["estimate"]:
            text += f" The untrained {method} is higher still, {number(row['estimate'], 1)}: training hurt here."
    if (recovery := results.recovery(model, best[0])) is not None:
        low, high = (share(recovery[end]).removesuffix(" %") for end in ("low", "high"))
        text += f" It recovers {share(recovery['estimate'])} [{low}, {high}] of what the oracle gains over {BASELINE}."
    absent = [m for m in results.facts.contenders if m not in best]
    return text + (f" Not complete yet: {listed(absent)}." if absent else "")


def _real(results: Results, model: str, best: list[str]) -> str:
    parts = []
    shown = list(dict.fromkeys(m for m in (best[0], HEADLINE) if m in best and m != BASELINE))
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
        better, worse = (sum(bool(g["significant"]) and side * g["estimate"] > 0 for g in gaps) for side in (1, -1))
        parts.append(
            f"Of {len(gaps)} methods, significantly better than {BASELINE}: {better}; worse: {worse}; not told apart from "
            f"it: {len(gaps) - better - worse}."
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


def _row(results: Results, model: str, method: str, best: bool) -> OverviewRow:
    facts = results.facts
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
        gap=signed(gap["estimate"], 1) if gap is not None else "",
        gap_ends=row_ends(gap) if gap is not None else "",
        verdict=_verdict(gap),
        time="" if total is None else _ratio(total, baseline) if baseline is not None else seconds(total),
        kept=share(kept) if kept is not None else "",
        clean=share(clean) if clean is not None else "",
    )


def _ratio(total: float, baseline: pd.Series) -> str:
    return f"{total / baseline['training_seconds']:.2f}×"


def _verdict(gap: pd.Series | None) -> str:
    if gap is None:
        return ""
    if not bool(gap["significant"]):
        return "same"
    return "better" if gap["estimate"] > 0 else "worse"
