"""Rows become tokens, once: rendered, encoded, masked by character offsets, cut.

Shapes: T tokens of a sample.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sstoken.data.chat import Chat, Rendered, RenderError, noise_codes, response_mask, touched, whole_offsets
from sstoken.data.readers import DROP, BadRow, DataError, Row, rows_of, stop_at
from sstoken.data.tokens import TokenData

if TYPE_CHECKING:  # a second, in every command that reads rows without a tokenizer
    from transformers import PreTrainedTokenizerBase

LOG = logging.getLogger(__name__)
ROWS_AT_A_TIME = 1000


def token_data(
    dataset: Iterable[dict], tokenizer: PreTrainedTokenizerBase, *, template: str = "tokenizer", max_length: int
) -> TokenData:
    """A ``datasets.Dataset`` (or any rows in memory) as tokens.

    Args:
        dataset: rows of the columns messages | prompt, completion | instruction, input, output | conversations |
            input_ids with labels or assistant_masks (``sstoken.data.forms.FORMS`` has them all).
        template: "tokenizer", its chat template, or "tulu", the recipe's. Rows that are tokenised already need neither.
        max_length: tokens a sample; what is longer is cut.

    Raises:
        DataError: a row that cannot be used, by its number; no rows; a tokenizer that the template cannot be filled with.
    """
    return tokenize(rows_of(dataset), tokenizer, template=template, max_length=max_length, on_bad_row="stop", hint="")[
        0
    ]


def rows_within(
    rows: list[Row], tokenizer: PreTrainedTokenizerBase, most: int, *, template: str, max_length: int
) -> list[Row]:
    """The first rows whose samples, each cut at ``max_length``, have at most ``most`` tokens together.

    Raises:
        DataError: not even one sample has room.
    """
    place, total = {id(row): number for number, row in enumerate(rows)}, 0
    for row, sample in _samples(rows, tokenizer, template, []):
        if not sample.mask_T[:max_length].any():  # a bad row, which is told when the rest is tokenised
            continue
        count = min(len(sample.ids_T), max_length)
        if total + count > most:
            if not total:
                raise DataError(f"limit_tokens {most}: the first sample alone has {count} tokens ({row.place})")
            return rows[: place[id(row)]]
        total += count
    return rows


@dataclass(frozen=True)
class Sample:
    """One row's tokens before the cut; the last four are None where the row came without text."""

    ids_T: np.ndarray
    mask_T: np.ndarray
    text: Rendered | None = None
    offsets_T2: np.ndarray | None = None


def tokenize(
    rows: list[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: str,
    max_length: int,
    on_bad_row: str,
    counts: Counter | None = None,
    hint: str = DROP,
) -> tuple[TokenData, list[BadRow]]:
    """Render, tokenise once, mask by character offsets, cut at ``max_length``.

    A response that the limit cuts keeps its visible part (without its eos, which is not there).  A sample left without
    a response token, or that the template cannot render, is a bad row.

    Args:
        counts: gets ``cut_samples`` (longer than ``max_length``), ``turns`` (assistant's, trained on) and
            ``turns_without_end`` (those that the template does not end); both misses are also logged.
        hint: what an error about bad rows proposes.

    Raises:
        DataError: no rows, or bad ones under "stop"; a tokenizer without offsets, or that does not know its own eos as
            text; a template that it cannot fill.
    """
    if not rows:
        raise DataError("no rows to tokenise")
    counts = Counter() if counts is None else counts
    kinds: dict[str, int] = {}
    bad: list[BadRow] = []
    columns: dict[str, list] = {name: [] for name in ("ids", "mask", "truth", "teaches", "clean", "names")}
    for row, sample in _samples(rows, tokenizer, template, bad):
        mask_T = sample.mask_T[:max_length]
        if not mask_T.any():
            bad.append(BadRow(row.place, f"no response token within the first {max_length} tokens"))
            continue
        length = len(sample.ids_T)
        counts["cut_samples"] += length > max_length
        code_T = np.zeros(length, dtype=np.uint8)
        teach_T, clean_T = np.zeros(length, dtype=bool), np.zeros(length, dtype=bool)
        if sample.text is not None:
            counts["turns"] += len(sample.text.response_spans)
            counts["turns_without_end"] += len(sample.text.response_spans) - len(sample.text.end_spans)
            offsets_T2 = sample.offsets_T2
            code_T = noise_codes(offsets_T2, sample.text, kinds)
            of_response_T = sample.mask_T & (code_T == 0)
            teach_T = touched(offsets_T2, sample.text.teach_spans) & of_response_T
            starts_T2 = np.stack([offsets_T2[:, 0], np.minimum(offsets_T2[:, 0] + 1, offsets_T2[:, 1])], axis=1)
            clean_T = touched(starts_T2, sample.text.end_spans) | touched(offsets_T2, sample.text.clean_spans)
            clean_T &= of_response_T
        values = (sample.ids_T.astype(np.int32), mask_T, code_T, teach_T, clean_T)
        for name, value_T in zip(("ids", "mask", "truth", "teaches", "clean"), values, strict=True):
            columns[name].append(value_T[:max_length])
        columns["names"].append(row.id)
    stop_at(bad, on_bad_row, len(rows), hint)
    if not columns["ids"]:
        raise DataError(f"none of {len(rows)} rows can be used; the first: {bad[0].place}: {bad[0].reason}")
    _tell(counts, len(columns["ids"]), max_length)
    messages = [message for row in rows for message in row.messages]
    labelled, taught = (any(key in message for message in messages) for key in ("noise", "teaches"))
    flat = {name: torch.from_numpy(np.concatenate(columns[name])) for name in columns if name != "names"}
    data = TokenData(
        input_ids=flat["ids"],
        offset=torch.from_numpy(np.cumsum([0, *map(len, columns["ids"])], dtype=np.int64)),
        response_mask=flat["mask"],
        ids=tuple(columns["names"]),
        truth=flat["truth"] if labelled else None,
        kinds=tuple(kinds),
        teaches=flat["teaches"] if taught else None,
        always_clean=flat["clean"] if labelled else None,
    )
    return data, bad


def _samples(
    rows: list[Row], tokenizer: PreTrainedTokenizerBase, template: str, bad: list[BadRow]
) -> Iterator[tuple[Row, Sample]]:
    """Each row with its tokens, in order; rows that cannot be rendered are added to ``bad``."""
    chat = Chat(tokenizer, template) if any(row.tokens is None for row in rows) else None
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        part, texts = [], []
        for row in rows[start : start + ROWS_AT_A_TIME]:
            try:
                texts.append(chat.render(row) if row.tokens is None else _known(row, tokenizer))
                part.append(row)
            except RenderError as error:
                bad.append(BadRow(row.place, str(error)))
        rendered = [text.text for text in texts if isinstance(text, Rendered)]
        encoded = {"input_ids": [], "offset_mapping": []}
        if rendered:
            with whole_offsets(tokenizer):
                # a chat template brings its own BOS
                encoded = tokenizer(rendered, add_special_tokens=template == "tulu", return_offsets_mapping=True)
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        for row, text in zip(part, texts, strict=True):
            if isinstance(text, Sample):
                yield row, text
                continue
            ids_T, offsets = next(pairs)
            offsets_T2 = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
            if template == "tulu" and ids_T[-1] != tokenizer.eos_token_id and row.messages[-1]["role"] == "assistant":
                raise DataError(
                    f"the tokenizer does not read its own eos {tokenizer.eos_token!r} as one token at the end of a text"
                )
            yield row, Sample(np.asarray(ids_T), response_mask(offsets_T2, text), text, offsets_T2)


def _known(row: Row, tokenizer: PreTrainedTokenizerBase) -> Sample:
    """A row that is tokenised already."""
    ids_T, mask_T = np.asarray(row.tokens[0]), np.asarray(row.tokens[1], dtype=bool)
    if ids_T.max() >= len(tokenizer):
        raise RenderError(f"its token {ids_T.max()} is none of the tokenizer's {len(tokenizer)}: of another tokenizer?")
    mask_T[:1] = False  # no state before it
    return Sample(ids_T, mask_T)


def _tell(counts: Counter, samples: int, max_length: int) -> None:
    if cut := counts["cut_samples"]:
        LOG.warning("%d of %d samples are longer than %d tokens and were cut", cut, samples, max_length)
    if missing := counts["turns_without_end"]:
        share = 100 * missing / counts["turns"]
        LOG.warning(
            "%.1f %% of the assistant's turns (%d of %d) have no end-of-turn token in this template: "
            "the model is not taught to stop there",
            share, missing, counts["turns"],
        )  # fmt: skip


def check_limits(data: TokenData, model: Path) -> None:
    """Refuse tokens that the model cannot read.

    Args:
        model: a folder with the model's config.

    Raises:
        DataError: a token past its embedding, or a sample longer than its positions.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model).get_text_config()
    vocabulary, positions = config.vocab_size, getattr(config, "max_position_embeddings", None)
    if (largest := int(data.input_ids.max())) >= vocabulary:
        raise DataError(
            f"token {largest} of the tokenizer is past the model's embedding of {vocabulary}: "
            f"does {model.name} have a tokenizer of another model?"
        )
    longest = int(data.lengths.max())
    if positions and longest > positions:
        count = int((data.lengths > positions).sum())
        raise DataError(
            f"{count} of {len(data)} samples are longer than the {positions} positions of {model.name} (the longest: "
            f"{longest} tokens); set text.max_length to {positions} or less"
        )
