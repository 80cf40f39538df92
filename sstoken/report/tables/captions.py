"""The tables as a person reads them: strings in percent points, and a caption that says how to read them."""

from __future__ import annotations

import pandas as pd

from sstoken.report.numbers import EMPTY, interval, number, p_value, plain, quantity, share, signed
from sstoken.report.question_scores import AVERAGE
from sstoken.report.statistics import MARGIN
from sstoken.report.tables.estimates import ALL_MODELS, BASELINE, CEILING, START, by_rank, verdict

INTERVAL = "the 95 % interval, over new questions and, where there are several runs, new seeds"
AXES_TITLES = ["taught", "lost"]
MAIN_TABLE = "table"
"""What stands for the main table where places are ablations."""


AXES_CAPTION = (
    f"Taught: average minus that of the untrained {START}. Lost: {CEILING}'s average minus this method's. In points."
)


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
        rows.append(cells | _axes_cells(row))
    caption = (
        f"Scores in percent, mean over runs ± half the width of {INTERVAL}. {AVERAGE}: unweighted mean over the benchmarks. "
        "Bold: the best method (bounds aside) leads the runner-up significantly (5 %, Holm over the table); "
        f"†: the best, but its lead is not significant; no mark: the best two are tied. {AXES_CAPTION}"
    )
    return pd.DataFrame(rows, columns=["model", "method", "runs", *titles, *AXES_TITLES]), caption


def _axes_cells(row: pd.Series) -> dict[str, str]:
    """What was taught and lost, each with its interval."""
    cells = {}
    for title in AXES_TITLES:
        cell = signed(row[title])
        ends = interval(row[f"{title}_low"], row[f"{title}_high"], plus=True)
        cells[title] = cell if EMPTY in (cell, ends) else f"{cell} {ends}"
    return cells


def differences(table: pd.DataFrame, both_axes: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The averages' differences from full-data training."""
    rows = table[(table["against"] == BASELINE) & (table["benchmark"] == AVERAGE)].reset_index(drop=True)
    axes = rows[["model", "method"]].merge(both_axes, how="left", on=["model", "method"])
    frame = pd.DataFrame(
        {
            "model": rows["model"],
            "method": rows["method"],
            **_difference_cells(rows),
            "detectable": rows["mde"].map(number),
            **_axes_columns(axes),
        }
    )
    caption = (
        f"Average score minus that of {BASELINE}, percent points, paired by question. {VERDICTS} Detectable: the smallest "
        "true difference that such a run finds with 80 % probability (before the correction); what is smaller may be there "
        f"unseen. {AXES_CAPTION}"
    )
    return frame, caption


VERDICTS = (
    "Verdict, at 5 % after Holm's correction over this table: better or worse: the difference is not 0; level: it is shown to "
    f"lie within ± {MARGIN:g} point (two one-sided tests); open: neither is shown."
)


def _difference_cells(rows: pd.DataFrame) -> dict[str, pd.Series]:
    return {
        f"minus {BASELINE}": rows["estimate"].map(signed),
        "95 % interval": _intervals(rows, plus=True),
        "p": rows["p"].map(p_value),
        "p (Holm)": rows["p_holm"].map(p_value),
        "verdict": pd.Series([verdict(row) or EMPTY for _, row in rows.iterrows()], index=rows.index, dtype=object),
    }


def _intervals(rows: pd.DataFrame, prefix: str = "", *, plus: bool = False) -> pd.Series:
    ends = zip(rows[f"{prefix}low"], rows[f"{prefix}high"], strict=True)
    return pd.Series([interval(low, high, plus=plus) for low, high in ends], index=rows.index, dtype=object)


def _axes_columns(rows: pd.DataFrame) -> dict[str, pd.Series]:
    cells = [_axes_cells(row) for _, row in rows.iterrows()]
    return {title: pd.Series([cell[title] for cell in cells], index=rows.index, dtype=object) for title in AXES_TITLES}


def pooled(table: pd.DataFrame, both_axes: pd.DataFrame, models: int) -> tuple[pd.DataFrame, str]:
    """Differences from full-data training of the mean over models, best taught first."""
    ranked = by_rank(both_axes[both_axes["model"] == ALL_MODELS])
    rows = table[(table["against"] == BASELINE) & (table["benchmark"] == AVERAGE)]
    rows = ranked[["method"]].merge(rows, how="left", on="method")
    count = rows["above"].astype("Int64").astype(str) + " of " + rows["pairs"].astype("Int64").astype(str)
    frame = pd.DataFrame(
        {
            "method": rows["method"],
            **_axes_columns(ranked.reset_index(drop=True)),
            **_difference_cells(rows),
            f"above {BASELINE}": count.where(rows["estimate"].notna(), EMPTY),
        }
    )
    caption = (
        f"The mean over the {models} models, which are fixed: the interval is over new questions and seeds, not over new "
        f"models. {AXES_CAPTION} {VERDICTS} Above {BASELINE}: in how many pairs of model and seed. "
        f"Methods that are not significantly above {START} stand last. Empty: one model only, or a run is missing."
    )
    return frame, caption


def recovered(both_axes: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Both axes and the share recovered, best taught first within each model."""
    table = by_rank(both_axes[~both_axes["method"].isin([BASELINE, CEILING])])
    idle = table["teaches"] == False  # noqa: E712 (may be empty)
    frame = pd.DataFrame(
        {
            "model": table["model"],
            "method": table["method"],
            **_axes_columns(table),
            "recovered": table["recovered"].map(signed).mask(idle, EMPTY),
            "95 % interval": _intervals(table, "recovered_", plus=True).mask(idle, EMPTY),
        }
    )
    caption = (
        f"{AXES_CAPTION} Recovered: share of the way from {BASELINE} (0) to {CEILING} (1), with Fieller's 95 % interval. "
        f"Negative: worse than {BASELINE}. Left out where {CEILING} is not significantly better than {BASELINE}, where a run "
        f"is missing, and for methods that are not significantly above {START}: keeping {START} as it was recovers nothing, "
        "so these stand last. recovered.csv has the share of all."
    )
    return frame, caption


def ablation(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Rows of one ablation, wide: a column a value, each method minus full-data training at that value."""
    values = list(dict.fromkeys(table["value"]))
    noise = table.groupby("value", sort=False)["noise"].mean()
    varies = noise.round(3).nunique() > 1
    titles = {v: f"{plain(v)} ({share(noise[v])} noise)" if varies and pd.notna(noise[v]) else plain(v) for v in values}
    frame = table[["model", "method"]].drop_duplicates()
    for value in values:
        rows = table[table["value"] == value]
        cells = pd.Series([_at_value(row) for _, row in rows.iterrows()], index=rows.index, dtype=object)
        frame = frame.merge(
            rows[["model", "method"]].assign(**{titles[value]: cells}), how="left", on=["model", "method"]
        )
    name, option = table.iloc[0][["ablation", "option"]]
    caption = (
        f"{name}: columns are the values of {option}. Each method's average score minus that of {BASELINE} at the same value, "
        f"percent points, with the 95 % interval, paired by question and seed. *: not 0 at 5 % after Holm's correction over "
        f"this table; =: shown to lie within ± {MARGIN:g} point. No interval: both gave the same answer to every question. "
        f"{BASELINE}'s own row: its average ± half its interval."
    )
    if varies:
        caption += " Noise: the share of the response tokens that were planted as noise."
    return frame.fillna(EMPTY), caption


def _at_value(row: pd.Series) -> str:
    if pd.notna(row["minus_full"]):
        mark = "*" if bool(row["significant"]) else " =" if bool(row["equivalent"]) else ""
        ends = interval(row["minus_full_low"], row["minus_full_high"], 1, plus=True)
        return f"{signed(row['minus_full'], 1)} {ends}{mark}"
    if pd.isna(row["estimate"]) or row["run"] != row["against"]:
        return EMPTY
    return f"{number(row['estimate'], 1)} ± {number((row['high'] - row['low']) / 2, 1)}"


def claims(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """ssToken's claims in the main table and over the ablations' values: where each holds, and where not."""
    columns = {"better": "holds", "worse": "the opposite holds", "level": "level", "open": "open"}
    rows = []
    for (method, against, model, place), group in table.groupby(["method", "against", "model", "place"], sort=False):
        cells: dict[str, list[str]] = {title: [] for title in columns.values()}
        for _, row in group.iterrows():
            gap = signed(row["estimate"], 1)
            cells[columns[verdict(row)]].append(gap if row["place"] == MAIN_TABLE else f"{plain(row['value'])}: {gap}")
        key = {"claim": f"{method} above {against}", "model": model, "where": place}
        rows.append(key | {title: "; ".join(found) or EMPTY for title, found in cells.items()})
    caption = (
        "What ssToken's paper claims: either signal alone is above full-data training, and both together are above each. "
        "Differences of the average score, percent points, at each value of the ablations and in the main table. Holds, the "
        "opposite holds: the difference is not 0 at 5 % after Holm's correction (the main table's own; over an ablation's "
        f"claims). Level: shown to lie within ± {MARGIN:g} point. Open: neither is shown."
    )
    return pd.DataFrame(rows, columns=["claim", "model", "where", *columns.values()]), caption


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
        "Cost of one run, mean over runs. Seconds: of the wall on a GPU, of the CPU (all cores) without one. Training: steps "
        "with the scoring inside them, all parts of a chain. References: training of the reference model and loss passes of "
        "frozen models over the data, counted in full for every method that needs them, though computed once. Tokens: "
        "trained on; kept tokens: those in the loss. FLOPs: of matrix products."
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
    named = {"auc_kinds": "AUC by kind", "auc": "AUC", "precision": "precision", "recall": "recall"}
    if whole.get("teaching_kept", pd.Series(dtype=float)).notna().any():
        named["teaching_kept"] = "teaching kept"
    every = whole[whole["kind"] == "all"].groupby(["model", "method"], sort=False)[list(named)].mean()
    kinds = whole[whole["kind"] != "all"].groupby(["model", "method", "kind"], sort=False)["kept"].mean().unstack()
    kinds = kinds[list(dict.fromkeys(whole.loc[whole["kind"] != "all", "kind"]))]
    kinds.columns = [f"{kind.replace('_', ' ')} kept" for kind in kinds.columns]
    frame = every.rename(columns=named).join(kinds)
    counts = [column for column in frame.columns if not column.startswith("AUC")]
    frame[counts] = (100 * frame[counts]).map(lambda share: number(share, 1))
    frame[["AUC by kind", "AUC"]] = frame[["AUC by kind", "AUC"]].map(number)
    caption = (
        "What was selected over the whole training, mean over runs. AUC: how often a clean token scores above a noise token "
        "of its sample (0.5 = by chance). AUC by kind: the mean of the kinds' AUCs, without tokens that are clean in every "
        "sample where these are known; a method may find the harmful kinds and still have a low AUC, because harmless kinds "
        "have more tokens. Percent: precision, share of kept tokens that are clean; recall, share of clean tokens kept; "
        "teaching kept, share kept of the clean tokens that the prompt does not give away; then the share of each kind of "
        "noise that was kept."
    )
    return frame.reset_index(), caption
