"""The forms in which people keep instruction rows, each recognised by its columns and brought to messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from sstoken.data.messages import OWN_KEYS, SPANS, BadForm, has_text, read_message, read_tools, says, trained

SPEAKERS = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "tool": "tool", "observation": "tool",
    "function_response": "tool", "function_call": "assistant",
}  # fmt: skip
"""ShareGPT's ``from`` -> role."""

FORMS = {
    "messages": "messages",
    "prompt-completion": "prompt, completion",
    "alpaca": "instruction, output (and input)",
    "dolly": "instruction, response (and context)",
    "sharegpt": "conversations with from, value",
    "tokens": "input_ids with labels or assistant_masks",
}
"""Name -> the columns that a row of this form fills."""

_EVERY_ROW = ("id", "source", "system", "tools", "weight", "train")
_COLUMNS = {
    "messages": ("messages",),
    "prompt-completion": ("prompt", "completion", *SPANS),
    "alpaca": ("instruction", "input", "output", *SPANS),
    "dolly": ("instruction", "context", "response", *SPANS),
    "sharegpt": ("conversations",),
    "tokens": ("input_ids", "labels", "assistant_masks", "attention_mask"),
}


@dataclass(frozen=True)
class Content:
    """What a row says, whatever its form.

    messages: ``{"role", "content"}`` and what else ``RENDERED`` and ``SPANS`` of ``sstoken.data.messages`` name; an
    assistant's turn that is not to be trained on has ``"train": False``.  tools: what the row offers to call, for the chat
    template.  tokens: of a row that is tokenised already, (ids, response mask), and no messages.  unread: keys that carry
    text which nothing reads.
    """

    form: str
    messages: tuple[dict, ...] = ()
    tools: tuple[dict, ...] = ()
    tokens: tuple[tuple[int, ...], tuple[bool, ...]] | None = None
    unread: tuple[str, ...] = ()


def read_form(raw: object) -> Content:
    """Recognise the row's form by the columns that it fills, and check it.

    Raises:
        BadForm: no form or several, a turn that is not as its form says, nothing to train on.
    """
    if not isinstance(raw, Mapping):
        raise BadForm(f"not an object but {type(raw).__name__}")
    row = {key: value for key, value in raw.items() if value is not None}  # a column that other rows fill is null here
    form = _form_of(row)
    unread = [str(key) for key in row if key not in (*_COLUMNS[form], *_EVERY_ROW) and says(row[key])]
    if not trained("the row", {key: row[key] for key in ("weight", "train") if key in row}):
        raise BadForm(
            "the row says not to train on it (weight 0, or train false): leave it out, or say so of its turns"
        )
    if form == "tokens":
        for key in ("system", "tools"):
            if has_text(row.get(key)):
                raise BadForm(f"{key} beside input_ids: the row is tokenised already, so it cannot be rendered")
        return Content(form, tokens=_tokens(row), unread=tuple(unread))
    messages = _as_messages(row, form)
    system = row.get("system", "")
    if not isinstance(system, str):
        raise BadForm(f"system is not text but {type(system).__name__}")
    if system.strip():
        if any(isinstance(m, Mapping) and m.get("role") == "system" for m in messages):
            raise BadForm("a system column beside a message of the role system: which of them counts?")
        messages = [{"role": "system", "content": system}, *messages]
    checked = tuple(read_message(number, message) for number, message in enumerate(messages, 1))
    for given in messages:
        unread += [f"messages[].{key}" for key in given if key not in OWN_KEYS and says(given[key])]
    if not any(message["role"] == "assistant" for message in checked):
        raise BadForm("no assistant turn")
    if not any(message["role"] == "assistant" and message.get("train", True) for message in checked):
        raise BadForm("no assistant turn to train on: each has weight 0 or train false")
    return Content(form, checked, read_tools(row.get("tools")), unread=tuple(dict.fromkeys(unread)))


def _form_of(row: Mapping) -> str:
    has = row.keys().__contains__
    found = [
        name
        for name, there in (
            ("messages", has("messages")),
            ("prompt-completion", has("prompt") and has("completion")),
            ("alpaca", has("instruction") and has("output")),
            ("dolly", has("instruction") and has("response")),
            ("sharegpt", has("conversations")),
            ("tokens", has("input_ids") and (has("labels") or has("assistant_masks"))),
        )
        if there
    ]
    if len(found) == 1:
        return found[0]
    if found:
        tried = "; ".join(f"{name} ({FORMS[name]})" for name in found)
        raise BadForm(f"ambiguous: it fits the forms {tried}; keep the columns of one")
    tried = "; ".join(f"{name} ({columns})" for name, columns in FORMS.items())
    raise BadForm(f"in none of the known forms: {tried}; its keys: {', '.join(map(str, row)) or 'none'}")


def _as_messages(row: Mapping, form: str) -> list:
    if form == "messages":
        return _list(row["messages"], "messages")
    if form == "sharegpt":
        return [_spoken(number, turn) for number, turn in enumerate(_list(row["conversations"], "conversations"), 1)]
    spans = {key: row[key] for key in SPANS if key in row}
    if form == "prompt-completion":
        prompt, completion = row["prompt"], row["completion"]
        asked = list(prompt) if isinstance(prompt, (list, tuple)) else [{"role": "user", "content": prompt}]
        if isinstance(completion, (list, tuple)):
            if spans:
                raise BadForm(f"{', '.join(spans)} beside a completion that is a list: put them into its messages")
            return [*asked, *completion]
        return [*asked, {"role": "assistant", "content": completion, **spans}]
    # Alpaca's input (Dolly's context) follows the instruction after an empty line
    added, answer = ("input", "output") if form == "alpaca" else ("context", "response")
    parts = [row["instruction"], row.get(added, "")]
    for name, part in zip(("instruction", added), parts, strict=True):
        if not isinstance(part, str):
            raise BadForm(f"{name} is not text but {type(part).__name__}")
    question = "\n\n".join(part for part in parts if part.strip())
    return [{"role": "user", "content": question}, {"role": "assistant", "content": row[answer], **spans}]


def _list(value: object, name: str) -> list:
    if not isinstance(value, (list, tuple)):
        raise BadForm(f"{name} is not a list but {type(value).__name__}")
    return list(value)


def _spoken(number: int, turn: object) -> dict:
    """A turn of ShareGPT as a message."""
    if isinstance(turn, Mapping) and turn.get("role") is not None and turn.get("from") is None:
        return dict(turn)
    if not isinstance(turn, Mapping) or not {"from", "value"} <= turn.keys():
        raise BadForm(f"turn {number} of conversations has no from and value")
    if turn["from"] not in SPEAKERS:
        raise BadForm(f"turn {number} is from the unknown {turn['from']!r}; known: {', '.join(SPEAKERS)}")
    rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
    if turn["from"] != "function_call":
        return {"role": SPEAKERS[turn["from"]], "content": turn["value"], **rest}
    try:
        call = json.loads(turn["value"])
    except (TypeError, ValueError):
        call = None
    if not isinstance(call, dict):
        raise BadForm(f"turn {number}: the value of a function_call is not a JSON object")
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}], **rest}


def _tokens(row: Mapping) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """(ids, response mask) of a row that is tokenised already, its padding left out."""
    ids = _integers(row, "input_ids")
    if not ids:
        raise BadForm("input_ids is empty")
    if min(ids) < 0:
        raise BadForm(f"input_ids holds the negative id {min(ids)}")
    masks = {}
    if "labels" in row:
        labels = _integers(row, "labels", len(ids))
        for place, (token, label) in enumerate(zip(ids, labels, strict=True)):
            if label not in (-100, token):
                raise BadForm(
                    f"labels[{place}] is {label}, input_ids[{place}] is {token}: labels repeat the ids of the response "
                    "and are -100 elsewhere (not shifted)"
                )
        masks["labels"] = tuple(label != -100 for label in labels)
    if "assistant_masks" in row:
        masks["assistant_masks"] = tuple(bool(m) for m in _integers(row, "assistant_masks", len(ids), (0, 1)))
    if len(set(masks.values())) > 1:
        raise BadForm("labels and assistant_masks disagree about which tokens are response")
    mask = next(iter(masks.values()))
    real = _integers(row, "attention_mask", len(ids), (0, 1)) if "attention_mask" in row else [1] * len(ids)
    if "01" in (shape := "".join(map(str, real)).lstrip("0")):
        raise BadForm("attention_mask has a gap within the sample; only padding at its ends can be left out")
    if "1" not in shape:
        raise BadForm("attention_mask leaves no token")
    kept = [place for place, there in enumerate(real) if there]
    packed = "seq_lengths" in row and len(_integers(row, "seq_lengths")) > 1
    if "position_ids" in row:
        places = _integers(row, "position_ids", len(ids))
        packed = packed or any(places[two] <= places[one] for one, two in pairwise(kept))
    if packed:
        raise BadForm("several samples packed into one row (position_ids, seq_lengths): give each a row of its own")
    return tuple(ids[place] for place in kept), tuple(mask[place] for place in kept)


def _integers(row: Mapping, key: str, length: int | None = None, among: tuple[int, ...] = ()) -> list[int]:
    values = row[key]
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, (list, tuple)):
        raise BadForm(f"{key} is not a list but {type(values).__name__}")
    values = [int(value) if isinstance(value, bool) else value for value in values]
    if not all(type(value) is int for value in values):
        raise BadForm(f"{key} holds something else than whole numbers")
    if length is not None and len(values) != length:
        raise BadForm(f"{key} has {len(values)} entries, input_ids {length}")
    if among and not set(values) <= set(among):
        raise BadForm(f"{key} holds something else than {' and '.join(map(str, among))}")
    return values
