"""From messages to one text, and from its characters to which tokens are response.

The text is tokenised once and as a whole; token offsets say which tokens are response.  Contents cannot fake a turn: a row
whose contents hold one of the tokenizer's special tokens as text is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from sstoken.data.readers import DataError

TEMPLATES = ("tulu", "tokenizer")
DATE = "26 Jul 2024"  # what Llama 3's own templates write where they are told no date
MOST_KINDS = np.iinfo(np.uint8).max


def check_template(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    """Refuse a template that this tokenizer cannot fill, or would fill differently tomorrow.

    Raises:
        DataError: an unknown template, a tokenizer without offsets, eos or chat template, or a chat template with a clock.
    """
    if template not in TEMPLATES:
        raise DataError(f"text.template must be one of {', '.join(TEMPLATES)}, not {template!r}")
    if not tokenizer.is_fast:
        raise DataError(f"{type(tokenizer).__name__} gives no character offsets; a fast tokenizer is needed")
    if template == "tulu" and tokenizer.eos_token is None:
        raise DataError("text.template 'tulu' ends a response with eos, but this tokenizer has no eos_token")
    if template == "tokenizer":
        if not tokenizer.chat_template:
            raise DataError("text.template is 'tokenizer', but this tokenizer has no chat template; use 'tulu'")
        source = tokenizer.get_chat_template()
        if "strftime_now" in source and "date_string" not in source:
            raise DataError(
                "the tokenizer's chat template writes today's date (strftime_now), so its tokens would change from day "
                "to day; store the tokenizer with a template that has a fixed date, or use 'tulu'"
            )


@contextmanager
def whole_offsets(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Within: offsets take in the white space that belongs to a token.

    Some byte-level tokenizers trim it by default, and a token that reaches from the prompt's last space into the response
    would then look like one that starts there.
    """
    processor = tokenizer.backend_tokenizer.post_processor
    steps = list(processor) if type(processor).__name__ == "Sequence" else [processor]
    trimming = [step for step in steps if getattr(step, "trim_offsets", False)]
    for step in trimming:
        step.trim_offsets = False
    try:
        yield
    finally:
        for step in trimming:
            step.trim_offsets = True


class RenderError(ValueError):
    """A row that this template or tokenizer cannot render faithfully; the message is the reason."""


@dataclass(frozen=True)
class Rendered:
    """text; response_spans: (start, end) characters of each assistant turn, its end-of-turn token included;
    noise_spans: (start, end, kind) characters known to be noise."""

    text: str
    response_spans: tuple[tuple[int, int], ...]
    noise_spans: tuple[tuple[int, int, str], ...] = ()


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Texts that the tokenizer turns into special tokens wherever they stand."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*added, *tokenizer.all_special_tokens})


def render(
    messages: tuple[dict, ...], tokenizer: PreTrainedTokenizerBase, template: str, specials: list[str]
) -> Rendered:
    """Lay the messages out in the template.

    "tulu", the recipe's: ``<|user|>\\n…\\n<|assistant|>\\n…{eos}``, a new line between an assistant's turn and the next;
    the response is each assistant's content and its eos.  "tokenizer": the tokenizer's chat template; the response is
    each assistant's content and the special token that directly follows.  Contents are stripped of outer white space.

    Raises:
        RenderError: contents that hold special tokens; a chat template that refuses the messages (a role, their order) or
            does not reproduce contents.
    """
    contents = [message["content"].strip() for message in messages]
    normalizer = tokenizer.backend_tokenizer.normalizer
    for content in contents:
        # a normalizer may turn look-alikes (full-width signs) into a special token's text
        seen = content if normalizer is None else f"{content}\n{normalizer.normalize_str(content)}"
        for special in specials:
            if special in seen:
                raise RenderError(
                    f"a content holds the special token {special!r} as text, which would be taken for the real one"
                )
    if template == "tulu":
        pieces, eos = [], tokenizer.eos_token
        for message, content in zip(messages, contents, strict=True):
            assistant = message["role"] == "assistant"
            # only the end of an assistant's turn lacks a new line of its own: the response ends with eos
            lead = "\n" if pieces and pieces[-1][2] else ""
            pieces.append((f"{lead}<|{message['role']}|>\n", content, assistant, eos if assistant else "\n"))
    else:
        pieces = _template_pieces(messages, contents, tokenizer, specials)
    text, responses, noise = "", [], []
    for (before, content, assistant, after), message in zip(pieces, messages, strict=True):
        text += before
        if assistant:
            responses.append((len(text), len(text) + len(content) + _special_length(after, specials)))
            noise += _shifted(message, len(text))
        text += content + after
    return Rendered(text, tuple(responses), tuple(noise))


def _special_length(after: str, specials: list[str]) -> int:
    return max((len(special) for special in specials if after.startswith(special)), default=0)


def _shifted(message: dict, start: int) -> list[tuple[int, int, str]]:
    """Noise spans of the raw content, moved to the text and cut to the stripped content."""
    content = message["content"]
    stripped = content.strip()
    cut = len(content) - len(content.lstrip())
    spans = [(max(s - cut, 0), min(e - cut, len(stripped)), kind) for s, e, kind in message.get("noise") or []]
    return [(start + s, start + e, kind) for s, e, kind in spans if s < e]


def _template_pieces(messages, contents, tokenizer, specials):
    """Render with a mark in each content's place, cut there, and check that the real contents give the same text."""
    marks = [f"\x02{number}\x03" for number in range(len(messages))]

    def apply(values):
        turns = [{"role": m["role"], "content": v} for m, v in zip(messages, values, strict=True)]
        try:
            return tokenizer.apply_chat_template(turns, tokenize=False, date_string=DATE)
        except TemplateError as error:
            raise RenderError(f"the tokenizer's chat template refuses these messages: {error}") from error

    rest, parts = apply(marks), []
    for mark in marks:
        before, found, rest = rest.partition(mark)
        if not found:
            raise RenderError("the tokenizer's chat template does not show every message once and in order")
        parts.append(before)
    parts.append(rest)
    text = "".join(part + content for part, content in zip(parts, [*contents, ""], strict=True))
    if text != apply(contents):
        raise RenderError("the tokenizer's chat template changes the contents that it is given")
    # what follows a content up to the end of its closing special token belongs to it, the rest to the next message
    pieces = []
    for number, message in enumerate(messages):
        after = parts[number + 1]
        length = _special_length(after, specials)
        last = number == len(messages) - 1
        pieces.append(
            (parts[number], contents[number], message["role"] == "assistant", after if last else after[:length])
        )
        parts[number + 1] = after[length:]
    return pieces


def response_mask(offsets_T2: np.ndarray, rendered: Rendered) -> np.ndarray:
    """bool [T]: a token is response if it starts within a response.

    offsets_T2: characters (start, end) of each token, white space included (``whole_offsets``).  A token that starts before
    the response and reaches into it is prompt; the bytes of one character share its span and its side.  A token without
    characters (one that the tokenizer adds by itself) is prompt, as is the first, which has no state before it.
    """
    start_T, end_T = offsets_T2[:, 0], offsets_T2[:, 1]
    mask_T = np.zeros(len(offsets_T2), dtype=bool)
    for start, end in rendered.response_spans:
        mask_T |= (start_T >= start) & (start_T < end) & (start_T < end_T)
    mask_T[:1] = False
    return mask_T


def noise_codes(offsets_T2: np.ndarray, rendered: Rendered, kinds: dict[str, int]) -> np.ndarray:
    """uint8 [T]: the kind of noise that a token overlaps by any character, 0 for none; new kinds are added to ``kinds``."""
    code_T = np.zeros(len(offsets_T2), dtype=np.uint8)
    for start, end, kind in rendered.noise_spans:
        code = kinds.setdefault(kind, len(kinds) + 1)
        if code > MOST_KINDS:
            raise DataError(f"noise kind {kind!r} is number {code}; at most {MOST_KINDS} kinds can be told apart")
        code_T[(offsets_T2[:, 0] < end) & (offsets_T2[:, 1] > start)] = code
    return code_T
