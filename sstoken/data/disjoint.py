"""Rows that are held out: in none of the data sets that something trains on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sstoken.data.readers import DataError, Row, read_rows


def disjoint_rows(section: Mapping, others: Mapping[str, Mapping], on_bad_row: str) -> tuple[list[Row], Counter]:
    """The rows of a data set that no other data set holds, by their text: order, ``skip``, leave out, ``limit``.

    Args:
        section: ``sources``, ``skip``, ``limit``, ``shuffle_seed``. others: the same, by name. on_bad_row: of ``read_rows``.

    Returns:
        the rows, and for each other data set how many were left out since it holds them.

    Raises:
        DataError: no row is left.
    """
    held = {}
    for name, other in others.items():
        for row in read_rows(other["sources"], on_bad_row=on_bad_row, **_choice(other))[0]:
            held.setdefault(_text(row), name)
    rows, _ = read_rows(section["sources"], on_bad_row=on_bad_row, **_choice(section) | {"limit": None})
    left_out: Counter = Counter()
    found: list[Row] = []
    for row in rows:
        if len(found) == section["limit"]:
            break
        if (name := held.get(_text(row))) is None:
            found.append(row)
        else:
            left_out[name] += 1
    if not found:
        told = ", ".join(f"{count} stand in {name}" for name, count in left_out.items())
        raise DataError(
            f"data.heldout: none of {len(rows)} rows is held out: {told}; give it rows that nothing trains on"
        )
    return found, left_out


def _choice(section: Mapping) -> dict:
    return {key: section[key] for key in ("skip", "limit", "shuffle_seed")}


def _text(row: Row) -> tuple:
    return row.tokens, tuple((message["role"], message["content"]) for message in row.messages)
