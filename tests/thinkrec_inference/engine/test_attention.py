# SPDX-License-Identifier: Apache-2.0
"""Attention in parts, merged, is attention over everything."""

from __future__ import annotations

import pytest
import torch

from thinkrec_inference.engine.attention import (
    Group,
    KeyValues,
    Layout,
    Run,
    attend,
    attend_by_definition,
    packed_attention,
)


class Layer(torch.nn.Module):
    layer_idx = 0


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("causal", [True, False])
def test_the_fast_kernel_agrees_with_the_definition(causal: bool) -> None:
    query, key, value = (random(2, 4, 7, 16, seed=s) for s in range(3))
    for fast, plain in zip(
        attend(query, key, value, scaling=0.3, causal=causal),
        attend_by_definition(query, key, value, scaling=0.3, causal=causal),
        strict=True,
    ):
        assert torch.allclose(fast, plain, atol=1e-6)


def dense(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Attention with a boolean mask (Q, all keys), grouped heads repeated: (Q, H, d)."""
    repeat = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(repeat, 0), value.repeat_interleave(repeat, 0)
    logits = (query @ key.transpose(1, 2) * scaling).masked_fill(~visible, -torch.inf)
    return (logits.softmax(-1) @ value).transpose(0, 1)


def test_pieces_see_themselves_causally_and_all_of_their_own_past() -> None:
    heads, groups, size, scaling = 4, 2, 8, 0.35
    past = [KeyValues((random(groups, n, size, seed=n),), (random(groups, n, size, seed=n + 50),)) for n in (5, 3, 1)]
    query = random(1, heads, 11, size, seed=7)
    key, value = random(1, groups, 11, size, seed=8), random(1, groups, 11, size, seed=9)
    # Two pieces of 2 and one of 3 go on from past 0 and 1, one of 4 from past 2.
    layout = Layout((Group((Run(0, 2, 2), Run(4, 1, 3)), (past[0], past[1])), Group((Run(7, 1, 4),), (past[2],))))
    found = packed_attention(Layer(), query, key, value, None, scaling=scaling, layout=layout)[0][0]

    keys = torch.cat([*(p.keys[0] for p in past), key[0]], 1)
    values = torch.cat([*(p.values[0] for p in past), value[0]], 1)
    visible = torch.zeros(11, 20, dtype=torch.bool)
    for start, length, seen in ((0, 2, slice(0, 8)), (2, 2, slice(0, 8)), (4, 3, slice(0, 8)), (7, 4, slice(8, 9))):
        for i in range(length):
            visible[start + i, seen] = True
            visible[start + i, 9 + start : 9 + start + i + 1] = True
    assert torch.allclose(found, dense(query[0], keys, values, visible, scaling), atol=1e-6)


def test_kept_keys_grow_by_what_is_written() -> None:
    first, second = (KeyValues((random(2, n, 4),), (random(2, n, 4, seed=1),)) for n in (3, 2))
    whole = first.extended(second)
    assert len(whole) == 5
    assert torch.equal(whole.keys[0][:, 3:], second.keys[0])
    assert whole.nbytes == first.nbytes + second.nbytes == 2 * 2 * 5 * 4 * 4
