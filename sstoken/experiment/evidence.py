"""What is known of the shipped methods: what their papers claim, and what our own runs measured.

Both are files beside ``methods.yaml`` that people read and no result depends on: ``claims.yaml`` is written by hand,
``measured.csv`` by ``sstoken results`` from finished runs.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from pathlib import Path

from sstoken.records.documents import read_yaml, schema, validate

CLAIMS = "sstoken/selection/methods/claims.yaml"
MEASURED = "sstoken/selection/methods/measured.csv"
"""Below the checkout, as below the installed package."""
HERE = Path(__file__).parents[2]

AVERAGE = "average"

MARKS = {
    "read": "in the authors' code, README or paper",
    "second-hand": "in notes, reviews or others' code",
    "computed": "by us, from the equations",
}


@dataclass(frozen=True)
class Claim:
    """What a paper reports of a method. mark: a key of ``MARKS``, or empty: of a method of one's own."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Measured:
    """A method minus full-data training in one of our experiments, in percent points, with a 95 % interval.

    score: "average" over the benchmarks; "utility", "harm" of ``config/safety.yaml``. low, high: None where every question
    went alike. significant: after Holm's correction over that experiment's table. operations: of training and reference, as
    a multiple of full's; None where they were not kept.
    """

    method: str
    model: str
    score: str
    minus_full: float
    low: float | None
    high: float | None
    significant: bool
    operations: float | None
    experiment: str
    seeds: int

    @property
    def text(self) -> str:
        """``+4.5 [−0.4, +9.5]*``."""
        ends = "" if self.low is None or self.high is None else f" [{_signed(self.low)}, {_signed(self.high)}]"
        return f"{_signed(self.minus_full)}{ends}{'*' * self.significant}"


def _signed(value: float) -> str:
    # as sstoken.report.numbers does, whose pandas an installation without the report has not
    text = f"{value:+.1f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "\u2212")


def read_claims(path: str | Path = HERE / CLAIMS) -> dict[str, list[Claim]]:
    """method -> what its paper reports, by mark.

    Raises:
        ConfigError: the file is none, or has an unknown mark.
    """
    document = read_yaml(path)
    validate(document, schema("claims"), Path(path).name)
    return {name: [Claim(" ".join(text.split()), mark) for mark, text in own.items()] for name, own in document.items()}


def read_measured(path: str | Path = HERE / MEASURED) -> list[Measured]:
    """The rows of ``measured.csv``; lines that begin with # are comments."""
    lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [_row(row) for row in csv.DictReader(lines)]


def _row(row: dict[str, str]) -> Measured:
    numbers = {name: float(row[name]) if row[name] else None for name in ("low", "high", "operations")}
    return Measured(
        row["method"], row["model"], row["score"], float(row["minus_full"]), numbers["low"], numbers["high"],
        row["significant"] == "True", numbers["operations"], row["experiment"], int(row["seeds"]),
    )  # fmt: skip


def write_measured(rows: list[Measured], path: str | Path) -> None:
    """As ``read_measured`` reads them, under the comments that the file had."""
    old = Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []
    names = [field.name for field in fields(Measured)]
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.writelines(f"{line}\n" for line in old if line.startswith("#"))
        table = csv.writer(file, lineterminator="\n")
        table.writerow(names)
        table.writerows([getattr(row, name) for name in names] for row in rows)
