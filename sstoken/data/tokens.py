"""Tokens of a data set in flat arrays: made once, memory-mapped by every job.

Shapes: N tokens, S samples, R response tokens.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from sstoken.data.chat import (
    RenderError,
    check_template,
    noise_codes,
    render,
    response_mask,
    special_tokens,
    whole_offsets,
)
from sstoken.data.readers import BadRow, DataError, Row, stop_at
from sstoken.records.files import atomic_write

FORMAT = "1"
ROWS_AT_A_TIME = 1000


@dataclass(frozen=True)
class TokenData:
    """input_ids int32 [N]; offset int64 [S+1], sample s is ``[offset[s], offset[s+1])``; response_mask bool [N];
    truth uint8 [N] or None: 0 clean, k = ``kinds[k-1]``; ids: a stable name a sample."""

    input_ids: torch.Tensor
    offset: torch.Tensor
    response_mask: torch.Tensor
    ids: tuple[str, ...]
    truth: torch.Tensor | None = None
    kinds: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.offset) - 1

    @property
    def lengths(self) -> torch.Tensor:
        return self.offset.diff()

    @cached_property
    def response_offset(self) -> torch.Tensor:
        """int64 [S+1]: response tokens before each sample; R is the last entry."""
        before_N1 = torch.cat([torch.zeros(1, dtype=torch.int64), self.response_mask.cumsum(0)])
        return before_N1[self.offset]

    @cached_property
    def sha256(self) -> str:
        """Over ids, offsets and response mask: what per-token losses belong to."""
        digest = hashlib.sha256()
        for tensor in (self.input_ids, self.offset, self.response_mask):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def sample(self, index: int) -> dict[str, torch.Tensor]:
        place = slice(int(self.offset[index]), int(self.offset[index + 1]))
        return {"input_ids": self.input_ids[place], "response_mask": self.response_mask[place]}

    def slice(self, start: int, stop: int) -> TokenData:
        """Samples start to stop."""
        first, last = int(self.offset[start]), int(self.offset[stop])
        return TokenData(
            self.input_ids[first:last],
            self.offset[start : stop + 1] - first,
            self.response_mask[first:last],
            self.ids[start:stop],
            None if self.truth is None else self.truth[first:last],
            self.kinds,
        )

    def save(self, path: str | Path) -> None:
        arrays = {"input_ids": self.input_ids, "offset": self.offset, "response_mask": self.response_mask}
        if self.truth is not None:
            arrays["truth"] = self.truth
        metadata = {
            "format": FORMAT,
            "sha256": self.sha256,
            "ids": json.dumps(self.ids),
            "kinds": json.dumps(self.kinds),
        }
        with atomic_write(path) as temporary:
            save_file({name: array.contiguous() for name, array in arrays.items()}, temporary, metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> TokenData:
        """Map a stored file.

        Raises:
            DataError: the file is cut short, was not made here, or does not hold what its hash says.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path}: not a readable token file ({error}); delete it to make it again") from error
        # other stored arrays of this suite carry the same format number
        whole = {"input_ids", "offset", "response_mask"} <= arrays.keys() and {
            "ids",
            "kinds",
            "sha256",
        } <= metadata.keys()
        if metadata.get("format") != FORMAT or not whole:
            raise DataError(f"{path}: not a token file of this version; delete it to make it again")
        data = cls(**arrays, ids=tuple(json.loads(metadata["ids"])), kinds=tuple(json.loads(metadata["kinds"])))
        if data.sha256 != metadata["sha256"]:
            raise DataError(f"{path}: its content does not fit its hash; delete it to make it again")
        return data


def tokenize(
    rows: list[Row], tokenizer: PreTrainedTokenizerBase, *, template: str, max_length: int, on_bad_row: str
) -> tuple[TokenData, list[BadRow]]:
    """Render, tokenise once, mask by character offsets, cut at ``max_length``.

    A response that the limit cuts keeps its visible part (without its eos, which is not there).  A sample left without
    a response token, or that the template cannot render, is a bad row.

    Raises:
        DataError: no rows, or bad ones under "stop"; a tokenizer without offsets, or that does not know its own eos as
            text; a template that it cannot fill.
    """
    if not rows:
        raise DataError("no rows to tokenise")
    check_template(tokenizer, template)
    specials, kinds, bad = special_tokens(tokenizer), {}, []
    ids, masks, codes, names = [], [], [], []
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        part, texts = [], []
        for row in rows[start : start + ROWS_AT_A_TIME]:
            try:
                texts.append(render(row.messages, tokenizer, template, specials))
                part.append(row)
            except RenderError as error:
                bad.append(BadRow(row.place, str(error)))
        # a chat template brings its own BOS
        options = {"add_special_tokens": template == "tulu", "return_offsets_mapping": True}
        encoded = {"input_ids": [], "offset_mapping": []}
        if texts:
            with whole_offsets(tokenizer):
                encoded = tokenizer([t.text for t in texts], **options)
        for row, text, ids_T, offsets in zip(part, texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            offsets_T2 = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
            if template == "tulu" and ids_T[-1] != tokenizer.eos_token_id and row.messages[-1]["role"] == "assistant":
                raise DataError(
                    f"the tokenizer does not read its own eos {tokenizer.eos_token!r} as one token at the end of a text"
                )
            mask_T = response_mask(offsets_T2, text)[:max_length]
            if not mask_T.any():
                bad.append(BadRow(row.place, f"no response token within the first {max_length} tokens"))
                continue
            ids.append(np.asarray(ids_T[:max_length], dtype=np.int32))
            masks.append(mask_T)
            codes.append(noise_codes(offsets_T2, text, kinds)[:max_length])
            names.append(row.id)
    stop_at(bad, on_bad_row, len(rows))
    if not ids:
        raise DataError(f"none of {len(rows)} rows can be used; the first: {bad[0].place}: {bad[0].reason}")
    labelled = any("noise" in message for row in rows for message in row.messages)
    data = TokenData(
        input_ids=torch.from_numpy(np.concatenate(ids)),
        offset=torch.from_numpy(np.cumsum([0, *map(len, ids)], dtype=np.int64)),
        response_mask=torch.from_numpy(np.concatenate(masks)),
        ids=tuple(names),
        truth=torch.from_numpy(np.concatenate(codes)) if labelled else None,
        kinds=tuple(kinds),
    )
    return data, bad
