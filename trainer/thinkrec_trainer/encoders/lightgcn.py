# SPDX-License-Identifier: Apache-2.0
"""LightGCN: the only thing learnt is the first layer; the rest is averaging over neighbours.

Source: He et al. 2020 (arXiv 2002.02126), equations 3, 7 and 8: E(k+1) = D^-1/2 A D^-1/2 E(k), final E = mean of layers
0..3. Edges are the LIKED train rows only: averaging over disliked items would pull a user towards what they reject; the
disliked rows enter the loss as its negatives instead (the published ThinkRec tables do the same with their labels).
The score adds biases and an offset, because the labels are judged pointwise.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from thinkrec_inference.engine.collaborative import Collaborative
from thinkrec_trainer.encoders.data import Batch, normal
from thinkrec_trainer.encoders.fit import FitOptions
from thinkrec_trainer.interactions import Interactions

LAYERS = 3
INITIAL_STD = 0.1
"""The paper's own initialisation."""


def options(*, epochs: int, learning_rate: float, seed: int) -> FitOptions:
    """Return the loop's settings: each step passes over the whole graph, hence few, large batches and a larger rate."""
    return FitOptions(epochs, 10 * learning_rate, batch=8192, weight_decay=0.3, seed=seed)


class LightGcn:
    """Three averaging layers over the graph of likes; satisfies `fit.Encoder`."""

    def __init__(self, train: Interactions, *, dimension: int, seed: int, device: torch.device) -> None:
        """Draw the (U + I, d) first layer from `seed` and build the normalised adjacency of the liked rows."""
        generator = torch.Generator().manual_seed(seed)
        nodes = train.user_count + train.item_count
        self._rows = Batch.of(train, device)
        self._user_count = train.user_count
        self._graph = normalised_adjacency(train).to(device)
        self._nodes = normal((nodes, dimension), std=INITIAL_STD, generator=generator, device=device)
        self._bias = torch.zeros(nodes, device=device, requires_grad=True)
        self._offset = torch.full((1,), train.logit_of_mean(), device=device)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the first layer and the biases of users, then items."""
        return {"nodes": self._nodes, "bias": self._bias}

    def units(self) -> int:
        """Return the number of train rows."""
        return len(self._rows.users)

    def loss(self, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the mean cross-entropy of the rows at `index` on the averaged layers."""
        rows = self._rows.take(index)
        layers, items = self._averaged(), rows.items + self._user_count
        dot = (layers[rows.users] * layers[items]).sum(-1)
        logit = dot + self._bias[rows.users] + self._bias[items] + self._offset
        return functional.binary_cross_entropy_with_logits(logit, rows.liked)

    def vectors(self) -> Collaborative:
        """Return the averaged layers, split into users and items."""
        with torch.no_grad():
            layers = self._averaged().cpu()
        bias, cut = self._bias.detach().cpu(), self._user_count
        return Collaborative(layers[:cut], layers[cut:], bias[:cut], bias[cut:], self._offset.cpu())

    def _averaged(self) -> torch.Tensor:
        """(U + I, d) mean of layers 0..LAYERS."""
        layer = self._nodes
        total = layer
        for _ in range(LAYERS):
            layer = torch.sparse.mm(self._graph, layer)
            total = total + layer
        return total / (LAYERS + 1)


def normalised_adjacency(train: Interactions) -> torch.Tensor:
    """Return the (U + I, U + I) symmetric sparse COO matrix with 1 / sqrt(deg u * deg i) at each liked pair."""
    nodes = train.user_count + train.item_count
    pairs = np.unique(np.stack([train.users, train.items + train.user_count])[:, train.liked], axis=1)
    both = np.concatenate([pairs, pairs[::-1]], axis=1)
    degree = np.bincount(both[0], minlength=nodes).astype(np.float64)
    weight = 1.0 / np.sqrt(degree[both[0]] * degree[both[1]])
    entries = torch.from_numpy(weight.astype(np.float32))
    return torch.sparse_coo_tensor(torch.from_numpy(both), entries, (nodes, nodes), check_invariants=True).coalesce()
