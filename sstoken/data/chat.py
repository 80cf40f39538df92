"""From messages to one text, and from its characters to which tokens are response.

The text is tokenised once and as a whole; token offsets say which tokens are response.  Contents cannot fake a turn: a row
whose contents hold one of the tokenizer's special tokens as text is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import TemplateError

from sstoken.data.messages import RENDERED, texts_in
from sstoken.data.readers import DataError, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATES = ("tulu", "tokenizer")
_REASONING = {"reasoning_content", "thinking"}
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
    """text, and places in its characters.

    response_spans: each assistant turn that is trained on, its end of turn included; end_spans: those ends of turn.
    noise_spans: (start, end, kind) known to be noise; teach_spans: of the answer; clean_spans: what noise never reaches.
    """

    text: str
    response_spans: tuple[tuple[int, int], ...]
    noise_spans: tuple[tuple[int, int, str], ...] = ()
    end_spans: tuple[tuple[int, int], ...] = ()
    teach_spans: tuple[tuple[int, int], ...] = ()
    clean_spans: tuple[tuple[int, int], ...] = ()


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Texts that the tokenizer turns into special tokens wherever they stand."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*added, *tokenizer.all_special_tokens})


Place = tuple[int, int, int, int]
"""Of a turn, in characters: where an answer starts, where the content starts and ends, where the turn ends."""


class Chat:
    """A tokenizer's template, ready to lay out rows.

    "tulu", the recipe's: ``<|user|>\\n…\\n<|assistant|>\\n…{eos}``, a new line between an assistant's turn and the next;
    the response is each assistant's content and its eos.  "tokenizer": the tokenizer's chat template; the response is
    each assistant's content, the calls of tools that the template writes behind it, and its end of turn.  Contents are
    stripped of outer white space.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str):
        check_template(tokenizer, template)
        self.tokenizer, self.template = tokenizer, template
        self.specials = special_tokens(tokenizer)
        self.ends = self._ends_of_turn() if template == "tokenizer" else ()

    def render(self, row: Row) -> Rendered:
        """
        Raises:
            RenderError: texts that hold special tokens; what the row carries and the template leaves out; a chat template
                that refuses the messages (a role, their order) or does not reproduce contents.
        """
        contents = [message["content"].strip() for message in row.messages]
        self._refuse_special_tokens([*contents, *texts_in([_extras(m) for m in row.messages]), *texts_in(row.tools)])
        if self.template == "tulu":
            text, places = self._tulu(row, contents)
        else:
            text, places = self._own(row, contents)
        spans = {name: [] for name in ("response", "noise", "end", "teach", "clean")}
        for message, (start, at, content_end, end) in zip(row.messages, places, strict=True):
            if message["role"] != "assistant" or not message.get("train", True):
                continue
            spans["response"].append((start, end))
            if content_end < end:
                spans["end"].append((content_end, end))
                if "end_noise" in message:
                    spans["noise"].append((content_end, end, message["end_noise"]))
            for name, key in (("noise", "noise"), ("teach", "teaches"), ("clean", "always_clean")):
                spans[name] += _shifted(message, key, at)
        return Rendered(text, **{f"{name}_spans": tuple(found) for name, found in spans.items()})

    def _refuse_special_tokens(self, texts: list[str]) -> None:
        normalizer = self.tokenizer.backend_tokenizer.normalizer
        for text in texts:
            # a normalizer may turn look-alikes (full-width signs) into a special token's text
            seen = text if normalizer is None else f"{text}\n{normalizer.normalize_str(text)}"
            for special in self.specials:
                if special in seen:
                    raise RenderError(
                        f"a content holds the special token {special!r} as text, which would be taken for the real one"
                    )

    def _tulu(self, row: Row, contents: list[str]) -> tuple[str, list[Place]]:
        left_out = ["a turn of the role tool" for message in row.messages if message["role"] == "tool"]
        left_out += ["tools"] * bool(row.tools) + [key for message in row.messages for key in _extras(message)]
        if left_out:
            raise RenderError(f"template tulu has no place for {left_out[0]}; use text.template: tokenizer")
        text, places, eos, ended = "", [], self.tokenizer.eos_token, False
        for message, content in zip(row.messages, contents, strict=True):
            # only the end of an assistant's turn lacks a new line of its own: the response ends with eos
            text += f"{chr(10) if ended else ''}<|{message['role']}|>\n"
            ended = message["role"] == "assistant"
            start, stop = len(text), len(text) + len(content)
            places.append((start, start, stop, stop + len(eos) * ended))
            text += content + (eos if ended else "\n")
        return text, places

    def _own(self, row: Row, contents: list[str]) -> tuple[str, list[Place]]:
        """Render with a mark in each content's place, find the places, and check the real contents give the same text."""
        turns = list(row.messages)
        marks = [f"\x02{number}\x03" if content else "" for number, content in enumerate(contents)]
        whole = self._apply(turns, marks, row.tools)
        self._refuse_left_out(row, marks, whole)
        found, at = [], 0
        for number, (turn, mark) in enumerate(zip(turns, marks, strict=True)):
            start, answers = whole.find(mark, at), turn["role"] == "assistant"
            if start < 0 or (mark and whole.count(mark) != 1):
                raise RenderError("the tokenizer's chat template does not show every message once and in order")
            begin = start
            if answers and (not mark or not _REASONING.isdisjoint(turn)):  # the answer is more than its content
                before = self._apply(turns[:number], marks[:number], row.tools, add_generation_prompt=True)
                if not whole.startswith(before) or (mark and len(before) > start):
                    raise RenderError("the tokenizer's chat template does not show where an answer starts")
                begin, start = len(before), start if mark else len(before)
            stop = start + len(mark)
            end = self._end(whole, stop, turns[: number + 1], marks[: number + 1], row.tools) if answers else stop
            found.append((begin, start, stop, end))
            at = end
        text, places, last = "", [], 0
        for (begin, start, stop, end), content in zip(found, contents, strict=True):
            moved = len(text) - last
            text += whole[last:start] + content
            places.append((begin + moved, start + moved, len(text), end - stop + len(text)))
            last = stop
        text += whole[last:]
        if text != self._apply(turns, contents, row.tools):
            raise RenderError("the tokenizer's chat template changes the contents that it is given")
        return text, places

    def _end(self, whole: str, stop: int, turns: list[dict], values: list[str], tools: tuple[dict, ...]) -> int:
        """Where the assistant's turn, whose content ends at ``stop``, ends: behind its calls and its end of turn."""
        if "tool_calls" in turns[-1]:
            upto = self._apply(turns, values, tools)
            closed = next((mark for mark in self.ends if upto.rstrip().endswith(mark)), "")
            if whole.startswith(upto.rstrip()) and len(upto.rstrip()) >= stop:
                return len(upto.rstrip()) if closed or not self.ends else len(upto)
            # a template that lays out a last turn otherwise: the first end of turn before the next content
            rest = whole[stop:].split("\x02")[0]
            places = [(rest.find(mark), len(mark)) for mark in self.ends if mark in rest]
            if not places:
                raise RenderError("the tokenizer's chat template does not show where a turn with tool_calls ends")
            return stop + sum(min(places))
        return stop + next((len(mark) for mark in self.ends if whole.startswith(mark, stop)), 0)

    def _ends_of_turn(self) -> tuple[str, ...]:
        """What stands behind an assistant's content and ends its turn, white space before it included; longest first.

        Two exchanges are rendered: what follows the last answer, and stands behind the first one too, is the end of a
        turn, be it a special token or not; so is a special token that directly follows the last answer.
        """
        pair = [{"role": "user"}, {"role": "assistant"}]
        tails = []
        for turns in (pair * 2, pair, [{"role": "system"}, *pair * 2]):
            marks = [f"\x02{number}\x03" for number in range(len(turns))]
            try:
                whole = self._apply(turns, marks, ())
            except RenderError:
                continue
            if all(whole.count(mark) == 1 for mark in marks):
                tails = [
                    whole.split(marks[n])[1].split("\x02")[0] for n, t in enumerate(turns) if t["role"] == "assistant"
                ]
                break
        if not tails:
            return tuple(sorted(self.specials, key=len, reverse=True))
        last = tails[-1]
        first_special = min((last.find(s) for s in self.specials if s in last), default=len(last))
        found = {mark for mark in (last.rstrip(), last[:first_special].rstrip()) if mark.strip()}
        found = {mark for mark in found if all(tail.startswith(mark) for tail in tails)}
        bare = last.lstrip()
        lead = last[: len(last) - len(bare)]
        found |= {lead + special for special in self.specials if special and bare.startswith(special)}
        return tuple(sorted(found, key=len, reverse=True))

    def _refuse_left_out(self, row: Row, marks: list[str], whole: str) -> None:
        """A template that shows the same text without something that the row carries drops it in silence."""
        if row.tools and self._apply(list(row.messages), marks, ()) == whole:
            raise RenderError("the tokenizer's chat template leaves out tools")
        for number, message in enumerate(row.messages):
            for key in ("tool_calls", *sorted(_REASONING)):
                if key in message:
                    without = [dict(turn) for turn in row.messages]
                    del without[number][key]
                    if self._apply(without, marks, row.tools) == whole:
                        raise RenderError(f"the tokenizer's chat template leaves out {key} of message {number + 1}")

    def _apply(self, turns: list[dict], values: list[str], tools: tuple[dict, ...], **options) -> str:
        given = [{"role": t["role"], "content": v, **_extras(t)} for t, v in zip(turns, values, strict=True)]
        try:
            return self.tokenizer.apply_chat_template(
                given, tools=list(tools) or None, tokenize=False, date_string=DATE, **options
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise RenderError(f"the tokenizer's chat template refuses these messages: {error}") from error


def _extras(message: dict) -> dict:
    return {key: message[key] for key in RENDERED if key in message}


def _shifted(message: dict, key: str, start: int) -> list[tuple]:
    """Spans of the raw content, moved to the text and cut to the stripped content."""
    content = message["content"]
    stripped = content.strip()
    cut = len(content) - len(content.lstrip())
    spans = [(max(s - cut, 0), min(e - cut, len(stripped)), *kind) for s, e, *kind in message.get(key) or []]
    return [(start + s, start + e, *kind) for s, e, *kind in spans if s < e]


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


def touched(offsets_T2: np.ndarray, spans: tuple[tuple, ...]) -> np.ndarray:
    """bool [T]: a token that overlaps one of the spans (start, end, …) by any character."""
    mask_T = np.zeros(len(offsets_T2), dtype=bool)
    for start, end, *_ in spans:
        mask_T |= (offsets_T2[:, 0] < end) & (offsets_T2[:, 1] > start)
    return mask_T


def noise_codes(offsets_T2: np.ndarray, rendered: Rendered, kinds: dict[str, int]) -> np.ndarray:
    """uint8 [T]: the kind of noise that a token overlaps by any character, 0 for none; new kinds are added to ``kinds``."""
    code_T = np.zeros(len(offsets_T2), dtype=np.uint8)
    for span in rendered.noise_spans:
        code = kinds.setdefault(span[2], len(kinds) + 1)
        if code > MOST_KINDS:
            raise DataError(f"noise kind {span[2]!r} is number {code}; at most {MOST_KINDS} kinds can be told apart")
        code_T[touched(offsets_T2, (span,))] = code
    return code_T
