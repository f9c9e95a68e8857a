# SPDX-License-Identifier: Apache-2.0
"""User groups from CF vectors: standardise, cluster, order by size, describe by typical items. Pure functions.

Source: ThinkRec (arXiv 2505.15091): hierarchical clustering of users on standardised vectors. The groups are routed in
the space they were found in (docs/adr/0002-gate-space.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import cut_tree, linkage
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import silhouette_score

Matrix = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

WARD_LIMIT = 20_000
"""Users up to which Ward's distance matrix (8 * n^2 / 2 bytes: 1.6 GB there) is reasonable."""
SILHOUETTE_SAMPLE = 5_000
"""Users on which the silhouette is measured, which is quadratic."""
_CONSTANT = 1e-8
"""Standard deviation below which a dimension carries nothing and is only centred."""


@dataclass(frozen=True, slots=True)
class Standard:
    """(v - mean) / std per dimension."""

    mean: Matrix
    """(d,)"""
    std: Matrix
    """(d,); 1 where the dimension is constant."""

    @classmethod
    def of(cls, vectors: Matrix) -> Standard:
        """Measure mean and deviation of (n, d) vectors; raise ValueError when all vectors are equal."""
        std = vectors.std(axis=0)
        if not (std > _CONSTANT).any():
            raise ValueError(f"all {len(vectors)} user vectors are equal: there is nothing to group by")
        return cls(vectors.mean(axis=0), np.where(std > _CONSTANT, std, 1.0))

    def apply(self, vectors: Matrix) -> Matrix:
        """Return the standardised (n, d) vectors."""
        result: Matrix = (vectors - self.mean) / self.std
        return result


class Clusterer:
    """Cuts one set of vectors into any number of groups; Ward's tree is built once."""

    def __init__(self, vectors: Matrix, *, ward: bool, seed: int) -> None:
        self._vectors, self._seed = vectors, seed
        self._tree = linkage(vectors, method="ward") if ward and len(vectors) > 1 else None

    def cut(self, count: int) -> Labels:
        """Return (n,) labels 0..count-1, the largest group first (ties: the group with the lowest row first)."""
        if count == 1:
            return np.zeros(len(self._vectors), dtype=np.int64)
        if self._tree is not None:
            return by_size(cut_tree(self._tree, n_clusters=count)[:, 0])
        model = MiniBatchKMeans(n_clusters=count, random_state=self._seed, n_init=10, batch_size=4096)
        return by_size(model.fit_predict(self._vectors))

    def silhouette(self, labels: Labels) -> float:
        """Return the mean silhouette (Rousseeuw 1987), NaN for fewer than two groups or a group for every row."""
        if not 1 < len(np.unique(labels)) < len(labels):
            return float("nan")
        sample = min(len(labels), SILHOUETTE_SAMPLE)
        return float(silhouette_score(self._vectors, labels, sample_size=sample, random_state=self._seed))


def by_size(labels: npt.NDArray[np.integer[npt.NBitBase]]) -> Labels:
    """Renumber labels by falling size, ties by the lowest row: numbers then do not depend on the method."""
    found, first, inverse, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(found), dtype=np.int64)
    rank[order] = np.arange(len(found))
    result: Labels = rank[inverse]
    return result


def centroids(standardised: Matrix, labels: Labels) -> Matrix:
    """Return (K, d) means of the standardised vectors of each group."""
    count = int(labels.max()) + 1
    return np.stack([standardised[labels == group].mean(axis=0) for group in range(count)])


@dataclass(frozen=True, slots=True)
class Typical:
    """An item that a group likes more than everybody does."""

    item_index: int
    lift: float


LIFT_PRIOR = 5.0
"""Likes added to both sides of the ratio: an item with two likes must not be the most typical one."""


def typical_items(groups: Labels, items: Labels, *, group_count: int, item_count: int, top: int) -> list[list[Typical]]:
    """Return per group the `top` items by lift over N liked rows (`groups`, `items`: group and item of each row).

    lift = (likes of the group + 5) / (likes expected if the group liked as everybody does + 5); only items above 1.
    """
    flat = np.bincount(groups * item_count + items, minlength=group_count * item_count)
    likes = flat.reshape(group_count, item_count).astype(np.float64)
    expected = likes.sum(axis=1, keepdims=True) * likes.sum(axis=0) / max(1.0, likes.sum())
    lift = (likes + LIFT_PRIOR) / (expected + LIFT_PRIOR)
    best = np.argsort(-lift, axis=1, kind="stable")[:, :top]
    return [
        [Typical(item, float(lift[group, item])) for item in best[group].tolist() if lift[group, item] > 1]
        for group in range(group_count)
    ]
