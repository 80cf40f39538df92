"""What the papers and their releases published, as data with its sources (the comment lines of each file)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent
SOURCES = {
    "sstoken.csv": "ssToken, arXiv 2510.18250",
    "tokencleaning.csv": "TokenCleaning, arXiv 2502.01968",
    "forgetting.csv": "Forgetting, arXiv 2508.04329",
}
# the averages of TokenCleaning and Forgetting are over seven and five tasks of their own, not the ten of ssToken's Table 1
AVERAGES = {"sstoken.csv": "Average", "tokencleaning.csv": "Average (7 tasks)", "forgetting.csv": "Average (5 tasks)"}

TASKS = {
    "Average (7 tasks)": {"truthfulqa_mc2", "tydiqa", "logiqa", "mmlu", "hellaswag", "arc_challenge", "boolq"},
    "Average (5 tasks)": {"truthfulqa_mc2", "boolq", "logiqa", "tydiqa", "asdiv"},
}
"""Title of an average -> its benchmarks: this run's average stands beside it where it is over the same."""


def published_scores() -> pd.DataFrame:
    """source, model, method, benchmark (name in ``benchmarks.tsv``, or the title of an average), published, published_runs.

    published: percent, mean over the published runs.
    """
    parts = []
    for file, source in SOURCES.items():
        rows = pd.read_csv(FOLDER / file, comment="#")
        rows["benchmark"] = rows["benchmark"].replace("average", AVERAGES[file])
        cells = rows.groupby(["model", "method", "benchmark"], sort=False)["score_percent"]
        part = cells.agg(published="mean", published_runs="size").reset_index()
        part.insert(0, "source", source)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def published_table(averages: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """source, model, method, benchmark (display name), published, published_runs, reproduced, low, high.

    Args:
        averages: this run's ``averages`` table; empty cells where it has no such model, method or benchmark.
        columns: benchmark -> display name of the published benchmark. A miniature has another name, and so never
            stands beside the published score.
    """
    frame = published_scores()
    frame["benchmark"] = frame["benchmark"].replace(columns)
    ours = averages[["model", "method", "benchmark", "estimate", "low", "high"]]
    asked = set(ours["benchmark"]) - {AVERAGES["sstoken.csv"]}
    for title, tasks in TASKS.items():
        if asked == {columns.get(task, task) for task in tasks}:
            ours = ours.replace({"benchmark": {AVERAGES["sstoken.csv"]: title}})
    frame = frame.merge(ours, how="left", on=["model", "method", "benchmark"])
    return frame.rename(columns={"estimate": "reproduced"})


def deviations() -> dict[str, dict[str, str]]:
    """key -> point, paper, release, here: where they differ."""
    return pd.read_csv(FOLDER / "deviations.csv", comment="#", keep_default_na=False, index_col="key").to_dict("index")


def deviations_table() -> pd.DataFrame:
    """point, paper, release, here."""
    return pd.DataFrame(deviations().values())


def deviations_page() -> str:
    """docs/deviations.md: ``python -m sstoken.report.published > docs/deviations.md``."""
    table = deviations_table()
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join(
        [
            "# Where papers, releases and this suite differ",
            "",
            "Made from `sstoken/report/published/deviations.csv`, which is shown on the page of every run too.  The track",
            "`corrected` follows the papers, `as_published` their releases; unless it says otherwise, the last column is",
            "`corrected`.",
            "",
            "| point | paper | release | here |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )
