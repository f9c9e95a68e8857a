# SPDX-License-Identifier: Apache-2.0
"""Scores of (user, item) pairs by CF vectors, and what is left of users and items without a train row: nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from thinkrec_inference.engine.collaborative import Collaborative

_BLOCK = 65536
"""Pairs scored at once: bounds memory to 2 * 65536 * d numbers."""


def pair_scores(
    encoder: Collaborative, users: npt.NDArray[np.int64], items: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return (N,) logits of "liked" for N pairs of user and item indices, summed in fp64."""
    parts = [np.zeros(0)]
    for start in range(0, len(users), _BLOCK):
        user = torch.from_numpy(users[start : start + _BLOCK])
        item = torch.from_numpy(items[start : start + _BLOCK])
        dot = (encoder.user_vectors[user].double() * encoder.item_vectors[item].double()).sum(-1)
        parts.append((dot + encoder.user_bias[user] + encoder.item_bias[item] + encoder.offset).numpy())
    return np.concatenate(parts)


def without_cold(
    encoder: Collaborative, warm_users: npt.NDArray[np.bool_], warm_items: npt.NDArray[np.bool_]
) -> Collaborative:
    """Return the encoder with vector and bias zero where `warm_users` (U,) or `warm_items` (I,) is false."""
    users, items = torch.from_numpy(warm_users), torch.from_numpy(warm_items)
    return Collaborative(
        user_vectors=torch.where(users[:, None], encoder.user_vectors, 0.0),
        item_vectors=torch.where(items[:, None], encoder.item_vectors, 0.0),
        user_bias=torch.where(users, encoder.user_bias, 0.0),
        item_bias=torch.where(items, encoder.item_bias, 0.0),
        offset=encoder.offset,
    )
