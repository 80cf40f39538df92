"""Rows held out of training, as the file that the benchmark of held-out loss reads."""

from __future__ import annotations

import json
from pathlib import Path

from sstoken.data.readers import DataError, Row
from sstoken.records.files import atomic_write


def heldout_rows(rows: list[Row]) -> list[dict]:
    """``{"id", "prompt", "response"}`` of each row's first response: what precedes it in the recipe's template, and its text.

    Later turns are left out: what ends an earlier response there is another text for every tokenizer.

    Raises:
        DataError: no row with a response, tokenised rows or rows of tools among them.
    """
    made = []
    for row in rows:
        turns = [(number, message) for number, message in enumerate(row.messages) if message["role"] == "assistant"]
        if not turns:
            raise DataError(f"{row.place}: the row has no text; held-out loss needs the words of prompt and response")
        number, answer = turns[0]
        if row.tools or any(message["role"] == "tool" for message in row.messages[:number]):
            raise DataError(f"{row.place}: the recipe's template has no place for tools")
        if not answer.get("train", True) or not answer["content"].strip() or not number:
            continue
        prompt = "".join(f"<|{m['role']}|>\n{m['content'].strip()}\n" for m in row.messages[:number])
        made.append({"id": row.id, "prompt": f"{prompt}<|assistant|>\n", "response": answer["content"].strip()})
    if not made:
        raise DataError(f"none of {len(rows)} rows has a response to a prompt")
    return made


def write_heldout(rows: list[Row], path: str | Path) -> int:
    """Write the file, one row a line; returns how many."""
    made = heldout_rows(rows)
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made))
    return len(made)
