"""One message of a row: checked, and brought to what rendering reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

ROLES = ("system", "user", "assistant", "tool")
SPANS = ("noise", "teaches", "always_clean")
RENDERED = ("tool_calls", "tool_call_id", "name", "reasoning_content", "thinking")
"""Keys of a message that a chat template may show; a row is refused where the template leaves one out."""
OWN_KEYS = ("role", "content", "weight", "train", *RENDERED, *SPANS, "end_noise", "originals", "clean_spans")


SWITCHES = ("loss", "loss_weight", "trainable", "train_on_turn")
"""What other libraries call ``train``: refused where it would leave a turn out, since here that turn would be trained on."""


class BadForm(ValueError):
    """A row that is in none of the forms, or in several; the message is the reason."""


def has_text(value: object) -> bool:
    """Whether any text stands in the value, however deep."""
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, Mapping):
        return any(has_text(part) for part in value.values())
    return isinstance(value, (list, tuple)) and any(has_text(part) for part in value)


def says(value: object) -> bool:
    """Whether the value tells how the row is meant: text, yes or no, settings; a number, such as an index, does not."""
    return has_text(value) or isinstance(value, bool) or (isinstance(value, Mapping) and bool(value))


def texts_in(value: object) -> Iterator[str]:
    """Every text in the value, keys included, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield str(key)
            yield from texts_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from texts_in(part)


def read_message(number: int, message: object) -> dict:
    """The message, checked and without what is null in it."""
    if not isinstance(message, Mapping) or "role" not in message or not {"content", "tool_calls"} & message.keys():
        raise BadForm(f"message {number} has no role and content")
    message = {key: value for key, value in message.items() if value is not None or key == "content"}
    role = message["role"]
    if role not in ROLES:
        raise BadForm(f"message {number} has the unknown role {role!r}; known: {', '.join(ROLES)}")
    found = {key: message[key] for key in (*RENDERED, *SPANS, "end_noise") if key in message}
    if not isinstance(found.get("end_noise", ""), str):
        raise BadForm(f"message {number}: end_noise is not the name of a kind but {found['end_noise']!r}")
    if "tool_calls" in found:
        found["tool_calls"] = _calls(number, role, found["tool_calls"])
    found = {key: value for key, value in found.items() if key in SPANS or has_text(value)}
    content = _text(number, message.get("content"), "tool_calls" in found)
    if role == "assistant" and not content.strip() and "tool_calls" not in found:
        raise BadForm(f"message {number}: the assistant's response is empty")
    for value in (content, *(text for key in RENDERED for text in texts_in(found.get(key)))):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            place = f"message {number}'s content"
            raise BadForm(f"{place} is not Unicode text: half a surrogate pair at character {error.start}") from error
    for key in SPANS:
        if fault := _span_fault(key, found.get(key), content):
            raise BadForm(f"message {number}: {fault}")
        if found.get(key) and role != "assistant":
            raise BadForm(f"message {number}: {key} speaks of a response, this is a turn of the role {role}")
    if not trained(f"message {number}", message) and role == "assistant":
        found["train"] = False
    return {"role": role, "content": content, **found}


def trained(who: str, message: Mapping) -> bool:
    """Whether a turn, or a whole row, is to be trained on.

    Raises:
        BadForm: it says so in a way that is not read here.
    """
    weight, train, role = message.get("weight", 1), message.get("train", True), message.get("role", "assistant")
    if isinstance(weight, bool) or weight not in (0, 1):
        raise BadForm(f"{who}: weight {weight!r}; a turn is trained on (1) or not (0)")
    if not isinstance(train, bool):
        raise BadForm(f"{who}: train is not true or false but {train!r}")
    for name in SWITCHES:
        if role == "assistant" and isinstance(message.get(name), (bool, int, float)) and not message[name]:
            raise BadForm(f"{who}: {name} {message[name]!r} is not read here; write train: false")
    if message.get("train") and role != "assistant":
        raise BadForm(f"{who}: train true in a turn of the role {role}; only responses are trained on")
    return bool(weight) and train


def _text(number: int, content: object, may_lack: bool) -> str:
    if content is None and may_lack:
        return ""
    if isinstance(content, (list, tuple)):  # the parts of a multimodal message
        for part in content:
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            if kind != "text" or not isinstance(part.get("text"), str):
                raise BadForm(f"message {number}'s content has a part of the type {kind!r}; only text can be read")
        return "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise BadForm(f"message {number}'s content is not text but {type(content).__name__}")
    return content


def _calls(number: int, role: str, calls: object) -> list:
    if not isinstance(calls, (list, tuple)) or not all(isinstance(call, Mapping) for call in calls):
        raise BadForm(f"message {number}: tool_calls is not a list of objects")
    if calls and role != "assistant":
        raise BadForm(f"message {number}: tool_calls in a turn of the role {role}; only an assistant calls tools")
    return [_call(_without_nulls(call)) for call in calls]


def _call(call: dict) -> dict:
    """Templates write arguments as JSON: given as JSON text, they would be quoted twice."""
    function = call.get("function")
    if isinstance(function, dict) and isinstance(function.get("arguments"), str):
        try:
            parsed = json.loads(function["arguments"])
        except ValueError:
            return call
        if isinstance(parsed, dict):
            return {**call, "function": {**function, "arguments": parsed}}
    return call


def read_tools(tools: object) -> tuple[dict, ...]:
    if isinstance(tools, str):
        if not tools.strip():
            return ()
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise BadForm(f"tools is text, but not JSON: {error}") from error
    if not isinstance(tools or [], (list, tuple)) or not all(isinstance(tool, Mapping) for tool in tools or ()):
        raise BadForm("tools is not a list of objects")
    return tuple(_without_nulls(tool) for tool in tools or ())


def _without_nulls(value):
    """Arrow gives every row the keys of all rows, null where a row has none."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, (list, tuple)) else value


def _span_fault(key: str, spans: object, content: str) -> str | None:
    if spans is None:
        return None
    shape, types = ("[start, end, kind]", [int, int, str]) if key == "noise" else ("[start, end]", [int, int])
    if not isinstance(spans, (list, tuple)):
        return f"{key} is not a list of {shape} but {type(spans).__name__}"
    for span in spans:
        # by exact type: true and false are ints to isinstance
        if not (isinstance(span, (list, tuple)) and [type(part) for part in span] == types):
            return f"{key} span {span!r} is not {shape}"
        if not 0 <= span[0] < span[1] <= len(content):
            return f"{key} span {span!r} lies outside the content of {len(content)} characters"
    return None
