"""How the report writes numbers: one home for signs, digits, intervals and units."""

from __future__ import annotations

import pandas as pd

from sstoken.report.statistics import MARGIN

EMPTY = "–"
MINUS = "\u2212"


def number(value: float, digits: int = 2) -> str:
    """``0.40``, ``−0.40``; a rounded zero has no sign; a dash where there is no number."""
    return signed(value, digits).removeprefix("+")


def signed(value: float, digits: int = 2) -> str:
    """``+0.40``, ``−0.40``; a rounded zero has no sign; a dash where there is no number."""
    if pd.isna(value):
        return EMPTY
    text = f"{value:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", MINUS)


def interval(low: float, high: float, digits: int = 2, *, plus: bool = False) -> str:
    """``[−0.30, 1.10]``, or with ``plus`` ``[−0.30, +1.10]``; a dash where there is none."""
    write = signed if plus else number
    return EMPTY if pd.isna(low) or pd.isna(high) else f"[{write(low, digits)}, {write(high, digits)}]"


def plain(value: float | str) -> str:
    """A setting's value as it was written: ``0.3``, ``1``, ``deep``."""
    return value if isinstance(value, str) else f"{value:g}"


def p_value(p: float) -> str:
    return EMPTY if pd.isna(p) else ("< 0.001" if p < 0.001 else f"{p:.3f}")


def quantity(value: float) -> str:
    """Three digits, large numbers by powers of ten: 6.62, 471, 1.14e5."""
    return EMPTY if pd.isna(value) else f"{value:.3g}".replace("e+0", "e").replace("e+", "e")


def share(value: float) -> str:
    """A share as whole percent: ``62 %``."""
    return f"{100 * value:.0f} %".replace("-", MINUS)


def seconds(value: float) -> str:
    """6.2 s, 4.1 min, 3.4 h."""
    for size, unit in ((3600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.1f} s"


def row_ends(row: pd.Series) -> str:
    """`` [55.0, 57.6]`` of a table's row, one digit; nothing where it has no interval."""
    found = interval(row["low"], row["high"], 1)
    return "" if found == EMPTY else f" {found}"


def row_estimate(row: pd.Series) -> str:
    """``56.3 [55.0, 57.6]`` of a table's row, one digit."""
    return number(row["estimate"], 1) + row_ends(row)


def row_difference(row: pd.Series) -> str:
    """``+0.4 [−0.3, 1.1], not significant; smallest effect this run could see: 0.9`` of a row of differences."""
    told = "significant" if bool(row["significant"]) else "not significant"
    if bool(row["equivalent"]) and not bool(row["significant"]):
        told = f"level within ± {MARGIN:g}"
    text = f"{signed(row['estimate'], 1)}{row_ends(row)}, {told}"
    return text + (f"; smallest effect this run could see: {number(row['mde'], 1)}" if pd.notna(row["mde"]) else "")


def listed(names: list[str], limit: int = 12) -> str:
    """a, b and c; what exceeds ``limit`` is counted."""
    shown = [*names[:limit], f"{len(names) - limit} more"] if len(names) > limit else names
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
