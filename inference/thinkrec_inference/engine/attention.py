# SPDX-License-Identifier: Apache-2.0
"""Attention over packed pieces of different length, each going on from keys and values that others share.

Several prompts' tokens lie in one sequence without padding. A piece sees itself causally, and all of its past: blocks
of keys and values computed before (a user's prefix, shared by all candidates). The parts are computed apart and merged
exactly by their log-sum-exp: softmax over a union is the lse-weighted mean of the softmaxes.

It is registered with transformers as an attention implementation, so every decoder that calls attention through that
interface runs packed, without its layers being written again here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

IMPLEMENTATION = "thinkrec_packed"
"""Name under which transformers finds it."""


@dataclass(frozen=True, slots=True, eq=False)
class KeyValues:
    """Keys and values of consecutive tokens, after rotary embedding, per layer (KV heads, tokens, head size)."""

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    def __len__(self) -> int:
        return int(self.keys[0].shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all layers."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    def extended(self, more: KeyValues) -> KeyValues:
        """Return these tokens followed by `more`."""
        return KeyValues(
            tuple(torch.cat(pair, 1) for pair in zip(self.keys, more.keys, strict=True)),
            tuple(torch.cat(pair, 1) for pair in zip(self.values, more.values, strict=True)),
        )


@dataclass(frozen=True, slots=True)
class Run:
    """`count` neighbouring pieces of `length` tokens each, from token `start`."""

    start: int
    count: int
    length: int

    @property
    def stop(self) -> int:
        """Token after the last."""
        return self.start + self.count * self.length


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Neighbouring runs whose pieces share one past."""

    runs: tuple[Run, ...]
    past: tuple[KeyValues, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Who sees what in one packed sequence."""

    groups: tuple[Group, ...]
    captured: list[tuple[torch.Tensor, torch.Tensor]] | None = field(default=None)
    """Takes each layer's (keys, values), (KV heads, T, head size), when the caller keeps them."""


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    layout: Layout,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend by `layout`: query (1, H, T, d), key and value (1, KV, T, d) -> (1, T, H, d); the mask is not used."""
    if layout.captured is not None:
        layout.captured.append((key[0], value[0]))
    layer = int(getattr(module, "layer_idx"))  # noqa: B009  # set by transformers on every attention module
    out = torch.empty(query.shape[2], query.shape[1], query.shape[3], dtype=query.dtype, device=query.device)
    for group in layout.groups:
        parts = [_own(query, key, value, run, scaling) for run in group.runs]
        start, stop = group.runs[0].start, group.runs[-1].stop
        mixed, lse = (torch.cat(part) if len(parts) > 1 else part[0] for part in zip(*parts, strict=True))
        for block in group.past:
            mixed, lse = _merge(mixed, lse, *_past(query[0, :, start:stop], block, layer, scaling))
        out[start:stop] = mixed
    return out[None], None


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scaling: float, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention (B, H, Q, d) and its log-sum-exp (B, H, Q) fp32, by a fused kernel where one yields both."""
    if query.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # type: ignore[no-any-return]
            query, key, value, 0.0, causal, scale=scaling
        )
    return attend_by_definition(query, key, value, scaling=scaling, causal=causal)


def attend_by_definition(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scaling: float, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same as `attend` with plain tensor operations: any device, any dtype, and the reference in tests."""
    logits = (query @ key.transpose(-1, -2)).float() * scaling
    if causal:
        later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(later, -torch.inf)
    lse = logits.logsumexp(-1)
    return torch.exp(logits - lse[..., None]).to(value.dtype) @ value, lse


def _own(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, run: Run, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the causal part of one run: (tokens, H, d) and (tokens, H)."""
    heads = query.shape[1]
    pieces = [_pieces(tensor, run, heads) for tensor in (query, key, value)]
    mixed, lse = attend(*pieces, scaling=scaling, causal=True)
    return mixed.transpose(1, 2).flatten(0, 1), lse.transpose(1, 2).flatten(0, 1)


def _pieces(tensor: torch.Tensor, run: Run, heads: int) -> torch.Tensor:
    """Return (count, heads, length, d) of a run; key and value heads are repeated for grouped queries."""
    tokens = tensor[0, :, run.start : run.stop]
    pieces = tokens.view(len(tokens), run.count, run.length, -1).transpose(0, 1)
    repeat = heads // len(tokens)
    return pieces if repeat == 1 else pieces.repeat_interleave(repeat, 1)


def _past(query: torch.Tensor, block: KeyValues, layer: int, scaling: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the attention of all queries (H, Q, d) to one block: (Q, H, d) and (Q, H).

    The queries of one key head are laid side by side as if they were more tokens, so the block is read once.
    """
    keys, values = block.keys[layer], block.values[layer]
    heads, tokens, size = query.shape
    folded = query.reshape(1, len(keys), -1, size)  # (1, KV, H / KV * Q, d)
    mixed, lse = attend(folded, keys[None], values[None], scaling=scaling, causal=False)
    return mixed.reshape(heads, tokens, size).transpose(0, 1), lse.reshape(heads, tokens).transpose(0, 1)


def _merge(
    one: torch.Tensor, one_lse: torch.Tensor, two: torch.Tensor, two_lse: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the attention over the union of two sets of keys, and its log-sum-exp; the weight is taken in fp32."""
    share = torch.sigmoid(two_lse - one_lse)[..., None]
    mixed = torch.lerp(one.float(), two.float(), share).to(one.dtype)
    return mixed, torch.logaddexp(one_lse, two_lse)


AttentionInterface.register(IMPLEMENTATION, packed_attention)
