# SPDX-License-Identifier: Apache-2.0
"""Packed history blocks as tensors: padded to one length, with the tree mask that keeps suffixes apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from thinkrec_trainer.blocks import PackedBlock


@dataclass(frozen=True, slots=True)
class Batch:
    """B blocks of at most T tokens. M targets, N predicted tokens and S soft slots count over the whole batch.

    `*_at` index the flattened (B*T) token axis.
    """

    ids: Tensor
    """(B, T) int64."""
    positions: Tensor
    """(B, T) int64; suffixes restart where their prefix ends."""
    mask: Tensor
    """(B, 1, T, T) bool, True = may attend."""
    score_at: Tensor
    """(M,) int64."""
    labels: Tensor
    """(M,) float32, 0 or 1."""
    score_weights: Tensor
    """(M,) float32."""
    text_at: Tensor
    """(N,) int64."""
    text_ids: Tensor
    """(N,) int64."""
    text_weights: Tensor
    """(N,) float32."""
    slot_at: Tensor
    """(S,) int64."""
    slot_rows: Tensor
    """(S,) int64: row of the soft table, users first, then items."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    @property
    def targets(self) -> int:
        """M."""
        return int(self.score_at.numel())


def tree_mask(segments: Tensor) -> Tensor:
    """Return (B, T, T) bool: token i sees j <= i in the prefix (segment 0) or in its own suffix.

    `segments` is (B, T) int64 with -1 for padding; a padding token sees itself only, because a row without any True
    would make the softmax NaN.
    """
    length = segments.shape[-1]
    query, key = segments.unsqueeze(-1), segments.unsqueeze(-2)
    seen = ((key == 0) & (query >= 0)) | ((key == query) & (query >= 0))
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=segments.device)
    return (seen & causal) | itself


def collate(blocks: Sequence[PackedBlock]) -> Batch:
    """Return the batch of some packed blocks."""
    if not blocks:
        raise ValueError("a batch needs at least one block")
    length = max(len(block.ids) for block in blocks)
    segments = _padded([block.segments for block in blocks], length, fill=-1)
    return Batch(
        ids=_padded([block.ids for block in blocks], length, fill=0),
        positions=_padded([block.positions for block in blocks], length, fill=0),
        mask=tree_mask(segments).unsqueeze(1),
        score_at=_flat([block.score_at for block in blocks], length),
        labels=_floats([block.labels for block in blocks]),
        score_weights=_floats([block.score_weights for block in blocks]),
        text_at=_flat([block.text_at for block in blocks], length),
        text_ids=_flat([block.text_ids for block in blocks], 0),
        text_weights=_floats([block.text_weights for block in blocks]),
        slot_at=_flat([block.slot_at for block in blocks], length),
        slot_rows=_flat([block.slot_rows for block in blocks], 0),
    )


def _padded(rows: Sequence[Sequence[int]], length: int, *, fill: int) -> Tensor:
    out = torch.full((len(rows), length), fill, dtype=torch.int64)
    for number, row in enumerate(rows):
        out[number, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return out


def _flat(rows: Sequence[Sequence[int]], stride: int) -> Tensor:
    return torch.tensor(
        [number * stride + value for number, row in enumerate(rows) for value in row], dtype=torch.int64
    )


def _floats(rows: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor([value for row in rows for value in row], dtype=torch.float32)
