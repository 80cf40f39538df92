"""Per-token losses of a frozen model: computed once per (weights, data), stored flat, shared by every run that asks.

Shapes: R response tokens of the data set, S samples, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sstoken.data import TokenData
from sstoken.records.files import atomic_write, order_metadata
from sstoken.selection import token_loss
from sstoken.training.collate import PackedCollator, segments_of
from sstoken.training.packing import forward, packed_attention
from sstoken.training.selftest import check_supported

FORMAT = "1"


class ReferenceMismatch(ValueError):
    """A reference file that does not belong to the data or weights at hand."""


@dataclass(frozen=True)
class ReferenceLosses:
    """Losses of one frozen model on one data set.

    loss_R: float32 (nats), response tokens of all samples in data order; memory-mapped when loaded.
    offset_S1: int64 [S+1]; sample s owns ``loss_R[offset[s]:offset[s+1]]``.
    """

    loss_R: torch.Tensor
    offset_S1: torch.Tensor
    tokens_sha256: str
    weights_sha256: str

    def sample(self, index: int) -> torch.Tensor:
        return self.loss_R[self.offset_S1[index] : self.offset_S1[index + 1]]

    def save(self, path: Path) -> None:
        metadata = {"format": FORMAT, "tokens_sha256": self.tokens_sha256, "weights_sha256": self.weights_sha256}
        with atomic_write(path) as temporary:
            save_file({"loss": self.loss_R, "offset": self.offset_S1}, temporary, metadata=metadata)
            order_metadata(temporary)

    @classmethod
    def load(cls, path: Path, *, data: TokenData | None = None, weights_sha256: str | None = None) -> ReferenceLosses:
        """Map a file; with ``data`` and ``weights_sha256`` given, refuse one that was made from others.

        Raises:
            ReferenceMismatch: names the file, what it was made from and what was asked for; with ``data`` also where a loss is
                not finite.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                loaded = cls(
                    file.get_tensor("loss"),
                    file.get_tensor("offset"),
                    metadata.get("tokens_sha256", ""),
                    metadata.get("weights_sha256", ""),
                )
        except Exception as error:
            raise ReferenceMismatch(
                f"{path}: not a readable file of reference losses ({error}); delete it to make it again"
            ) from error
        asked = {"tokens": data.sha256 if data is not None else None, "weights": weights_sha256}
        for what, wanted in asked.items():
            found = getattr(loaded, f"{what}_sha256")
            if wanted is not None and found != wanted:
                raise ReferenceMismatch(
                    f"{path}: these losses belong to other {what} (sha256 {found[:12] or 'unknown'}, here {wanted[:12]}); "
                    "delete the file to make it again"
                )
        if data is not None and not torch.equal(loaded.offset_S1, data.response_offset):
            raise ReferenceMismatch(f"{path}: offsets do not fit the data; delete the file to make it again")
        if data is not None and not math.isfinite(float(loaded.loss_R.sum(dtype=torch.float64))):
            raise ReferenceMismatch(f"{path}: holds losses that are not finite; delete the file to make it again")
        return loaded


def length_batches(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Sample indices in batches of at most ``tokens`` tokens (or one longer sample), similar lengths together."""
    order = np.argsort(lengths, kind="stable")
    batches, start, total = [], 0, 0
    for place, index in enumerate(order):
        if total and total + lengths[index] > tokens:
            batches.append(order[start:place])
            start, total = place, 0
        total += int(lengths[index])
    return [*batches, order[start:]] if len(order) else []


def without_prompts(data: TokenData) -> TokenData:
    """The responses alone, each sample's behind one token: the one before its first response token.

    What ``unconditional_loss`` is measured on.  Some token must stand before the first response token; of a rendered chat
    it is the end of the turn's mark.  Later turns follow on the earlier ones without what stood between.
    """
    mask_N = data.response_mask
    first_N = torch.zeros_like(mask_N)
    response_N = mask_N.nonzero()[:, 0]
    has_S = data.response_offset.diff() > 0
    first_N[response_N[data.response_offset[:-1][has_S]] - 1] = True
    kept_N = mask_N | first_N
    before_N1 = torch.cat([torch.zeros(1, dtype=torch.int64), kept_N.cumsum(0)])
    return replace(
        data,
        input_ids=data.input_ids[kept_N],
        offset=before_N1[data.offset],
        response_mask=mask_N[kept_N],
        truth=None if data.truth is None else data.truth[kept_N],
    )


@torch.no_grad()
def compute_losses(
    model: torch.nn.Module, data: TokenData, *, batch_tokens: int = 8192, chunk_size: int = 1024
) -> torch.Tensor:
    """``L(x_i) = -log p(x_i | x_<i)`` of every response token, in evaluation mode, without padding.

    Args:
        model: a causal language model on its device; its mode is put back.
        data: R response tokens.
        batch_tokens: tokens a forward pass. chunk_size: of ``token_loss``.

    Returns:
        loss_R, float32 on the CPU.

    Raises:
        FloatingPointError: a loss that is not a number, with the sample it belongs to.
    """
    check_supported(model)
    device = next(model.parameters()).device
    loss_R = torch.empty(int(data.response_offset[-1]), dtype=torch.float32)
    collate = PackedCollator()
    was_training = model.training
    model.eval()
    with packed_attention(model):
        for indices in length_batches(data.lengths.numpy(), batch_tokens):
            batch = collate([data.sample(int(i)) for i in indices])
            batch |= {name: value.to(device) for name, value in batch.items() if isinstance(value, torch.Tensor)}
            target_R = batch["input_ids"][batch["response_R"]]

            def project(hidden_RD, weight_VD, bias_V, target_R=target_R):
                return token_loss(hidden_RD, weight_VD, target_R, bias_V, chunk_size=chunk_size)

            found = forward(model, batch["input_ids"], batch["position_ids"], segments_of(batch), project).cpu()
            for index, part in zip(indices, found.split(batch["response_counts"]), strict=True):
                if not math.isfinite(float(part.sum())):
                    raise FloatingPointError(
                        f"the loss of sample {data.ids[int(index)]} is not finite under these weights"
                    )
                loss_R[data.response_offset[index] : data.response_offset[index + 1]] = part
    model.train(was_training)
    return loss_R
