"""Numbers as the report writes them."""

from __future__ import annotations

import pandas as pd

MINUS = "\u2212"


def score(value: float) -> str:
    """Percent points, one decimal."""
    return signed(value).removeprefix("+")


def signed(value: float) -> str:
    """With its sign; a rounded zero has none."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def interval(row: pd.Series) -> str:
    """``56.3 [55.0, 57.6]``; without the interval where there is none."""
    return score(row["estimate"]) + ends(row)


def difference(row: pd.Series) -> str:
    """``+0.4 [−0.3, 1.1], not significant; smallest effect this run could see: 0.9``."""
    text = f"{signed(row['estimate'])}{ends(row)}, {'significant' if bool(row['significant']) else 'not significant'}"
    return text + (f"; smallest effect this run could see: {score(row['mde'])}" if pd.notna(row["mde"]) else "")


def share(value: float) -> str:
    return f"{100 * value:.0f} %".replace("-", MINUS)


def seconds(value: float) -> str:
    """6.2 s, 4.1 min, 3.4 h."""
    for size, unit in ((3600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.1f} s"


def listed(names: list[str], limit: int = 12) -> str:
    """a, b and c; what exceeds ``limit`` is counted."""
    shown = [*names[:limit], f"{len(names) - limit} more"] if len(names) > limit else names
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def ends(row: pd.Series) -> str:
    if pd.isna(row["low"]) or pd.isna(row["high"]):
        return ""
    return f" [{score(row['low'])}, {score(row['high'])}]"
