"""UDS (arXiv 2510.16882): rows of high utility that differ from those trained on before.

Shapes: T positions of a row, D hidden size, V vocabulary, r projected positions, s projected vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sstoken.selection import Chooser, Rows


@dataclass(frozen=True)
class Config(Chooser):
    """``score_b = ||A_b||_* + diversity · mean_m ||z_b - z_m||``, ``A_b`` the row's logits at all positions.

    ``||·||_*`` is the sum of singular values; ``z_b`` a random projection of ``A_b``, ``z_m`` those of the last ``memory_rows``
    rows chosen (0 while there are none).  The projection takes random signs, the real part of an unnormalised Fourier
    transform, and random rows of it, along the vocabulary and then along time, drawn once a run.

    Logits are never made: with the projection ``W = QR``, ``||H Wᵀ||_* = ||H Rᵀ||_*`` and ``z = Γ1 H (Γ2 W)ᵀ``.  Both
    follow once from a frozen head, and anew at every choice from a trained one.

    Code: gfyddha/UDS at 6cd1634.  It pads rows on the left to the longest, so that padding counts; here no row is padded
    but for the projection.  It trains on prompt tokens too.

    diversity: α >= 0 (script 1.5e-3). memory_rows: M. length: positions that the projection is made for; a longer row
        is an error. projected_length, projected_vocabulary: r and s.
    """

    diversity: float = 1.5e-3
    memory_rows: int = 1024
    length: int = 512
    projected_length: int = 8
    projected_vocabulary: int = 128

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"hidden"})

    def start(self, seed: int) -> dict[str, torch.Tensor]:
        size = self.projected_length * self.projected_vocabulary
        return {"seed": torch.tensor(seed), "buffer": torch.empty(0, size)}

    def choose(self, rows: Rows, take: int, memory: dict[str, torch.Tensor]) -> torch.Tensor:
        root_DD, narrow_sD, time_rT = self._of_head(rows, int(memory["seed"]))
        utility, places = [], []
        for hidden_TD in rows.hidden:
            if len(hidden_TD) > self.length:
                raise ValueError(
                    f"a row has {len(hidden_TD)} tokens, more than UDS's projection is made for: set parameters.length to the "
                    "longest row's (text.max_length)"
                )
            hidden_TD = hidden_TD.float()
            utility.append(torch.linalg.svdvals(hidden_TD @ root_DD.T).sum())
            places.append((time_rT[:, : len(hidden_TD)] @ hidden_TD @ narrow_sD.T).flatten())
        score_B, place_BZ = torch.stack(utility), torch.stack(places)
        buffer_MZ = memory["buffer"].to(place_BZ.device)
        if len(buffer_MZ):
            score_B = score_B + self.diversity * torch.cdist(place_BZ, buffer_MZ).mean(-1)
        index_K = score_B.sort(descending=True, stable=True).indices[:take]
        memory["buffer"] = torch.cat([buffer_MZ, place_BZ[index_K]])[-self.memory_rows :]
        return index_K

    def _of_head(self, rows: Rows, seed: int):
        weight_VD = rows.weight_VD
        key = (weight_VD.data_ptr(), weight_VD._version, seed)
        if rows.cache.get("key") != key:
            wide_VD, device = weight_VD.detach().float(), weight_VD.device
            generator = torch.Generator().manual_seed(seed)
            narrow_sV = projection(len(wide_VD), self.projected_vocabulary, generator)
            time_rT = projection(self.length, self.projected_length, generator)
            root_DD = torch.linalg.qr(wide_VD, mode="r").R
            rows.cache.update(key=key, found=(root_DD, narrow_sV.to(device) @ wide_VD, time_rT.to(device)))
        return rows.cache["found"]


def projection(size: int, kept: int, generator: torch.Generator) -> torch.Tensor:
    """[kept, size]: ``x -> sqrt(size/kept) · Re(FFT(signs · x))[rows]``, signs and rows drawn, rows with replacement."""
    sign_V = torch.randint(0, 2, (size,), generator=generator) * 2.0 - 1.0
    row_s = torch.randint(0, size, (kept,), generator=generator)
    turn_sV = (row_s[:, None] * torch.arange(size)) % size  # whole turns are taken off in integers, where none is lost
    return math.sqrt(size / kept) * (turn_sV.double() * (2 * math.pi / size)).cos().float() * sign_V
