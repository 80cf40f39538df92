"""Tokens of a data set in flat arrays: made once, memory-mapped by every job.

Shapes: N tokens, S samples, R response tokens.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sstoken.data.readers import DataError
from sstoken.records.files import atomic_write, order_metadata

FORMAT = "2"
CONTENT, TRUTH = ("input_ids", "offset", "response_mask"), ("truth", "teaches", "always_clean")


@dataclass(frozen=True)
class TokenData:
    """input_ids int32 [N]; offset int64 [S+1], sample s is ``[offset[s], offset[s+1])``; response_mask bool [N];
    ids: a stable name a sample.

    What is known of the tokens, None where the rows do not say. truth uint8 [N]: 0 clean, k = ``kinds[k-1]``.
    teaches bool [N]: clean tokens that carry the answer. always_clean bool [N]: response tokens that noise can never
    reach, such as the end of a turn.
    """

    input_ids: torch.Tensor
    offset: torch.Tensor
    response_mask: torch.Tensor
    ids: tuple[str, ...]
    truth: torch.Tensor | None = None
    kinds: tuple[str, ...] = ()
    teaches: torch.Tensor | None = None
    always_clean: torch.Tensor | None = None

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
        """Over input_ids, offset, response_mask and the samples' names: what per-token losses and scores belong to."""
        return self._digest(CONTENT, self.ids)

    @cached_property
    def truth_sha256(self) -> str:
        """Over truth, its kinds, teaches and always_clean: what the oracle and the scores of a selection depend on."""
        return self._digest(TRUTH, self.kinds)

    def _digest(self, fields: tuple[str, ...], names: tuple[str, ...]) -> str:
        # each part with its name, type and length: no two contents share their bytes
        digest = hashlib.sha256(json.dumps(names).encode())
        for field in fields:
            value = getattr(self, field)
            shape = None if value is None else [str(value.dtype), list(value.shape)]
            digest.update(json.dumps([field, shape]).encode())
            if value is not None:
                digest.update(value.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def sample(self, index: int) -> dict[str, torch.Tensor]:
        place = slice(int(self.offset[index]), int(self.offset[index + 1]))
        return {"input_ids": self.input_ids[place], "response_mask": self.response_mask[place]}

    def slice(self, start: int, stop: int) -> TokenData:
        """Samples start to stop."""
        first, last = int(self.offset[start]), int(self.offset[stop])
        known = {name: getattr(self, name) for name in TRUTH}
        return TokenData(
            self.input_ids[first:last],
            self.offset[start : stop + 1] - first,
            self.response_mask[first:last],
            self.ids[start:stop],
            kinds=self.kinds,
            **{name: None if value is None else value[first:last] for name, value in known.items()},
        )

    def save(self, path: str | Path) -> None:
        arrays = {name: value for name in (*CONTENT, *TRUTH) if (value := getattr(self, name)) is not None}
        metadata = {
            "format": FORMAT,
            "sha256": self.sha256,
            "truth_sha256": self.truth_sha256,
            "ids": json.dumps(self.ids),
            "kinds": json.dumps(self.kinds),
        }
        with atomic_write(path) as temporary:
            save_file({name: array.contiguous() for name, array in arrays.items()}, temporary, metadata=metadata)
            order_metadata(temporary)

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
        # other stored arrays of this suite carry a format number too
        whole = set(CONTENT) <= arrays.keys() <= {*CONTENT, *TRUTH} and {"ids", "kinds", "sha256"} <= metadata.keys()
        if not whole:
            raise DataError(f"{path}: not a token file of this suite; delete it to make it again")
        if metadata.get("format") != FORMAT:
            raise DataError(
                f"{path}: a token file of format {metadata.get('format')}, this version reads {FORMAT}; "
                "delete it to make it again"
            )
        data = cls(**arrays, ids=tuple(json.loads(metadata["ids"])), kinds=tuple(json.loads(metadata["kinds"])))
        if [data.sha256, data.truth_sha256] != [metadata["sha256"], metadata.get("truth_sha256")]:
            raise DataError(f"{path}: its content does not fit its hash; delete it to make it again")
        return data
