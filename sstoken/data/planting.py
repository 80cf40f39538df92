"""Planted noise on any rows: kinds that need no knowledge of the text, each change labelled to the character.

A kind proposes edits of a clean response (``sstoken.data.noise_kinds``); here they are drawn, kept apart from each other,
applied and labelled.  A label is ``[start, end, kind]`` in characters of the noisy content; what stood there is kept in the
message's ``originals``, so that ``unplanted`` gives back the clean row.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from sstoken.data.noise_kinds import KINDS, Cannot, Corpus, Edit
from sstoken.data.readers import DataError, Row

BOILERPLATE = (
    "Thank you for this excellent question.",
    "As an AI language model, I am happy to help with this.",
    "I hope this information is helpful to you.",
    "Please let me know if you have any further questions.",
    "It is important to note that results may vary.",
    "Remember to always consult a professional for advice.",
)


def planted(rows: list[Row], noise: Mapping) -> tuple[list[Row], dict]:
    """The rows with noise planted in their responses; prompts, order and ids stay as they are.

    The same rows and the same ``noise`` give the same result.  Each kind draws from a generator of its own for each row
    (of its seed, its name and the row's id), so one kind's rate moves no other kind's rows.

    Args:
        rows: rows without noise labels.
        noise: the section ``data.<name>.noise`` of a configuration: kind -> rate, or {rate, seed}: the share of rows that
            carry it. ``seed`` is that of kinds without their own (0), ``phrases`` replaces the list of boilerplate.

    Returns:
        The rows, every trained-on response labelled (with no span where nothing was planted), and counts by kind:
        ``rows``, ``spans`` and ``characters`` planted, ``could_not``: reason -> rows that were drawn and cannot carry it.

    Raises:
        DataError: an unknown kind, a rate outside [0, 1], rows that carry labels of noise already.
    """
    asked = _asked(noise)
    for row in rows:
        if any(message.get("noise") for message in row.messages):
            raise DataError(f"{row.place}: the row carries labels of noise already; plant on rows without them")
    corpus = Corpus([_responses(row) for row in rows], tuple(noise.get("phrases") or BOILERPLATE))
    counts = {kind: Counter() for kind in asked}
    could_not: dict[str, Counter] = {kind: Counter() for kind in asked}
    made = []
    for row in rows:
        edits: dict[int, list[Edit]] = {number: [] for number in _trained(row)}
        for kind, (rate, seed) in asked.items():
            draw = random.Random(f"{seed} {kind} {row.id}")
            if draw.random() >= rate:
                continue
            try:
                number, found = _drawn(kind, row, edits, corpus, draw)
            except Cannot as reason:
                could_not[kind][str(reason)] += 1
                continue
            edits[number] += found
            counts[kind].update(rows=1, spans=len(found), characters=sum(len(edit.text) for edit in found))
        made.append(_with(row, edits))
    keys = ("rows", "spans", "characters")
    return made, {
        kind: {key: counts[kind][key] for key in keys} | {"could_not": dict(could_not[kind])} for kind in asked
    }


def unplanted(row: Row) -> Row:
    """The clean row that a planted one was made from: each labelled span gives way to what stood there."""
    messages = []
    for message in row.messages:
        if "originals" not in message:
            messages.append(message)
            continue
        content = message["content"]
        for (start, end, _), original in reversed(list(zip(message["noise"], message["originals"], strict=True))):
            content = content[:start] + original + content[end:]
        kept = {k: v for k, v in message.items() if k not in ("noise", "originals", "end_noise", "clean_spans")}
        messages.append({**kept, "content": content, **message["clean_spans"]})
    return replace(row, messages=tuple(messages))


def _asked(noise: Mapping) -> dict[str, tuple[float, int]]:
    """Kind -> (rate, seed), in the order of ``KINDS``: what replaces most comes first."""
    kinds = {key: value for key, value in noise.items() if key not in ("seed", "phrases")}
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise DataError(f"noise: unknown kind {unknown[0]!r}; known: {', '.join(KINDS)}")
    found = {}
    for kind in KINDS:
        value = kinds.get(kind)
        rate, seed = (value["rate"], value.get("seed")) if isinstance(value, Mapping) else (value, None)
        if rate is None:
            continue
        if not 0 <= rate <= 1:
            raise DataError(f"noise: the rate of {kind} is {rate}; it is a share of rows, in [0, 1]")
        found[kind] = (rate, noise.get("seed") or 0 if seed is None else seed)
    return found


def _trained(row: Row) -> list[int]:
    return [n for n, m in enumerate(row.messages) if m["role"] == "assistant" and m.get("train", True)]


def _responses(row: Row) -> list[str]:
    return [text for number in _trained(row) if (text := row.messages[number]["content"].strip())]


def _drawn(
    kind: str, row: Row, taken: dict[int, list[Edit]], corpus: Corpus, draw: random.Random
) -> tuple[int, list[Edit]]:
    """(message, edits) of one kind; the first of the row's responses, in an order that is drawn, that can carry it."""
    numbers = list(taken)
    draw.shuffle(numbers)
    reason = Cannot("the row is tokenised already" if row.tokens is not None else "no response with text")
    for number in numbers:
        message = row.messages[number]
        content = message["content"]
        if not content.strip():
            continue
        try:
            found = [edit._replace(kind=kind) for edit in KINDS[kind](content, corpus, draw, row.id)]
        except Cannot as error:
            reason = error
            continue
        protected = [(start, end) for start, end in message.get("always_clean") or []]
        if any(_meet(edit, other) for edit in found for other in taken[number]):
            reason = Cannot("its place is taken by another kind")
        elif any(_meet(edit, Edit(start, end, "")) for edit in found for start, end in protected):
            reason = Cannot("its place is always clean")
        else:
            return number, found
    raise reason


def _meet(a: Edit, b: Edit) -> bool:
    """Whether they share a character, or one is put inside what the other replaces."""
    (a_start, a_end), (b_start, b_end) = ((edit.start, edit.end + edit.ends) for edit in (a, b))
    if a_start == a_end:
        return b_start < a_start < b_end
    return a_start < b_start < a_end if b_start == b_end else a_start < b_end and b_start < a_end


def _with(row: Row, edits: dict[int, list[Edit]]) -> Row:
    """The row with the edits applied, its labels and other spans moved along."""
    messages = list(row.messages)
    for number, found in edits.items():
        message, content = messages[number], ""
        clean, last, spans, originals = message["content"], 0, [], []
        found = sorted(found, key=lambda edit: (edit.start, edit.end))
        for edit in found:
            content += clean[last : edit.start]
            spans.append([len(content), len(content) + len(edit.text), edit.kind])
            originals.append(clean[edit.start : edit.end])
            content += edit.text
            last = edit.end
        content += clean[last:]
        moved = {key: _moved(message[key], found) for key in ("teaches", "always_clean") if key in message}
        ends = {"end_noise": found[-1].kind} if found and found[-1].ends else {}
        kept = {key: message[key] for key in moved}
        extra = {"noise": spans, "originals": originals, "clean_spans": kept}
        messages[number] = {**message, "content": content, **moved, **extra, **ends}
    return replace(row, messages=tuple(messages))


def _moved(spans: list, edits: list[Edit]) -> list:
    """Spans of the clean content in the noisy one; what an edit replaced is no longer there."""
    pieces = []
    for start, end in spans:
        at = start
        for edit in edits:
            if (edit.start < end and edit.end > start) or (edit.start == edit.end and start < edit.start < end):
                pieces.append((at, max(at, edit.start)))
                at = min(max(at, edit.end), end)
        pieces.append((at, end))
    shifted = []
    for start, end in pieces:
        if start < end:
            shift = sum(len(edit.text) - (edit.end - edit.start) for edit in edits if edit.end <= start)
            shifted.append([start + shift, end + shift])
    return shifted
