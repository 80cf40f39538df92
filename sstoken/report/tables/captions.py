"""The tables as a person reads them: strings in percent points, and a caption that says how to read them."""

from __future__ import annotations

import pandas as pd

from sstoken.report.numbers import EMPTY, interval, number, p_value, quantity, signed
from sstoken.report.tables.estimates import AVERAGE

INTERVAL = "the 95 % interval, over new questions and, where there are several runs, new seeds"


def main(table: pd.DataFrame, leads: pd.DataFrame, titles: list[str]) -> tuple[pd.DataFrame, str]:
    """Table 1: ``mean ± half the interval``; bold: leads significantly; †: the best, but not significantly."""
    best = {(row.model, row.benchmark, row.method): row.significant for row in leads.itertuples()}
    rows = []
    for _, row in table.iterrows():
        cells = {"model": row["model"], "method": row["method"], "runs": number(row["runs"], 0)}
        for title in titles:
            cell = number(row[title])
            if pd.notna(row[f"{title} high"]):
                half = max(row[f"{title} high"] - row[title], row[title] - row[f"{title} low"])
                cell += f" ± {half:.2f}"
            if pd.notna(row[title]) and (lead := best.get((row["model"], title, row["method"]))) is not None:
                cell = f"**{cell}**" if lead else f"{cell} †"
            cells[title] = cell
        rows.append(cells)
    caption = (
        f"Scores in percent, mean over runs ± half the width of {INTERVAL}. {AVERAGE}: unweighted mean over the benchmarks. "
        "Bold: the best method (bounds aside) leads the runner-up significantly (5 %, Holm over the table); "
        "†: the best, but its lead is not significant."
    )
    return pd.DataFrame(rows, columns=["model", "method", "runs", *titles]), caption


def differences(table: pd.DataFrame, baseline: str) -> tuple[pd.DataFrame, str]:
    """The averages' differences from the baseline."""
    rows = table[(table["against"] == baseline) & (table["benchmark"] == AVERAGE)]
    frame = pd.DataFrame(
        {
            "model": rows["model"],
            "method": rows["method"],
            f"minus {baseline}": rows["estimate"].map(signed),
            "95 % interval": [
                interval(low, high, plus=True) for low, high in zip(rows["low"], rows["high"], strict=True)
            ],
            "p": rows["p"].map(p_value),
            "p (Holm)": rows["p_holm"].map(p_value),
            "significant": rows["significant"].map({True: "yes", False: "no"}).fillna(EMPTY),
            "detectable": rows["mde"].map(number),
        }
    )
    caption = (
        f"Average score minus that of {baseline}, percent points, paired by question. Significant: p ≤ 0.05 after Holm's "
        "correction over this table. Detectable: the smallest true difference that such a run finds with 80 % probability "
        "(before the correction); what is smaller may be there unseen."
    )
    return frame, caption


def recovered(table: pd.DataFrame, baseline: str, ceiling: str) -> tuple[pd.DataFrame, str]:
    frame = pd.DataFrame(
        {
            "model": table["model"],
            "method": table["method"],
            "recovered": table["estimate"].map(signed),
            "95 % interval": [
                interval(low, high, plus=True) for low, high in zip(table["low"], table["high"], strict=True)
            ],
        }
    )
    caption = (
        f"Share of the way from {baseline} (0) to {ceiling} (1) of the average score, with Fieller's 95 % interval. Negative: "
        f"worse than {baseline}. Empty: a run is missing, or {ceiling} is not significantly better than {baseline}."
    )
    return frame, caption


def costs(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    shown = {
        "training s": "training_seconds",
        "references s": "reference_seconds",
        "evaluation s": "evaluation_seconds",
        "tokens": "training_tokens",
        "kept tokens": "kept_tokens",
        "training FLOPs": "training_flops",
        "references FLOPs": "reference_flops",
    }
    cells = {title: table[column].map(quantity) for title, column in shown.items()}
    memory = (table["peak_memory_bytes"] / 2**30).map(quantity)
    frame = pd.DataFrame({"model": table["model"], "method": table["method"], **cells, "peak GiB": memory})
    caption = (
        "Cost of one run, mean over runs. Training: steps with the scoring inside them, all parts of a chain. References: "
        "training of the reference model and loss passes of frozen models over the data, counted in full for every method that "
        "needs them, though computed once. Tokens: trained on; kept tokens: those in the loss. FLOPs: of matrix products."
    )
    return frame, caption


def published(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    frame = pd.DataFrame(
        {
            "source": table["source"],
            "model": table["model"],
            "method": table["method"],
            "benchmark": table["benchmark"],
            "published": table["published"].map(number),
            "published runs": table["published_runs"].astype(str),
            "reproduced": table["reproduced"].map(number),
            "95 % interval": [interval(low, high) for low, high in zip(table["low"], table["high"], strict=True)],
        }
    )
    caption = (
        f"Published scores (percent, mean over the published runs) beside ours, with {INTERVAL}. Empty: not run here."
    )
    return frame, caption


def deviations(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    return table, "Where the papers, their releases and this benchmark differ."


def selection(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Means over seeds, the whole training; a column a kind of noise."""
    whole = table[table["phase"] == "all"]
    every = (
        whole[whole["kind"] == "all"].groupby(["model", "method"], sort=False)[["auc", "precision", "recall"]].mean()
    )
    kinds = whole[whole["kind"] != "all"].groupby(["model", "method", "kind"], sort=False)["kept"].mean().unstack()
    kinds = kinds[list(dict.fromkeys(whole.loc[whole["kind"] != "all", "kind"]))]
    kinds.columns = [f"{kind.replace('_', ' ')} kept" for kind in kinds.columns]
    frame = every.join((100 * kinds).map(lambda share: number(share, 1)))
    frame["auc"] = frame["auc"].map(number)
    frame[["precision", "recall"]] = (100 * frame[["precision", "recall"]]).map(lambda share: number(share, 1))
    caption = (
        "What was selected over the whole training, mean over runs. AUC: how often a clean token scores above a noise token of "
        "its sample (0.5 = by chance). Precision: share of kept tokens that are clean, recall: share of clean tokens kept, "
        "then the share of each kind of noise that was kept; percent."
    )
    return frame.reset_index().rename(columns={"auc": "AUC"}), caption
