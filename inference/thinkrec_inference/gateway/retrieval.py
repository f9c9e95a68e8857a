# SPDX-License-Identifier: Apache-2.0
"""Candidates from the bundle's collaborative vectors: dot product plus bias, seen items left out.

score(u, i) = item_vectors[i] . user_vectors[u] + item_bias[i]; the user's bias and the offset are the same for all
items and do not change the order. Without a vector for the user, the number of users who have an item ranks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from safetensors.numpy import load_file

from thinkrec_crds.bundle import INDEX_NAME, BundleIndex
from thinkrec_inference.gateway.schemas import Retrieval

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Users and items of one bundle, as arrays by index."""

    index: BundleIndex
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    item_row: Mapping[str, int]
    user_row: Mapping[str, int]
    seen: tuple[Indices, ...]
    """Item indices per user index."""
    warm: npt.NDArray[np.bool_]
    """(U,) the user has a group, so their vector means something."""
    user_vectors: Floats
    """(U, d)."""
    item_vectors: Floats
    """(I, d)."""
    item_bias: Floats
    """(I,)."""
    popularity: Floats
    """(I,) users who have the item in their history."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Return the names of the gate's slots, the general adapter last."""
        return (*(expert.name for expert in self.index.experts), "general")

    def has_seen(self, user_id: str) -> frozenset[str]:
        """Return the ids of the items that the user is known to have."""
        row = self.user_row.get(user_id)
        return frozenset() if row is None else frozenset(self.item_ids[i] for i in self.seen[row])


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the language model is to score, best first."""

    item_ids: tuple[str, ...]
    cf_rank: Mapping[str, int]
    """1-based places among the user's unseen items; empty for a cold start."""
    source: Retrieval


def load_catalogue(bundle: Path) -> Catalogue:
    """Read the bundle's tables and vectors; raise ValueError naming what is missing."""
    items = _columns(bundle / "items.parquet", "item_index", "item_id", "title")
    users = _columns(bundle / "users.parquet", "user_index", "user_id", "group", "seen_items")
    vectors = load_file(bundle / "collaborative.safetensors")
    item_ids = tuple(str(i) for i in items["item_id"])
    seen = tuple(np.asarray(row, dtype=np.int64) for row in users["seen_items"])
    _check_rows(bundle, "item_vectors", vectors["item_vectors"], len(item_ids))
    _check_rows(bundle, "user_vectors", vectors["user_vectors"], len(seen))
    return Catalogue(
        index=BundleIndex.from_json((bundle / INDEX_NAME).read_bytes()),
        item_ids=item_ids,
        titles=tuple(str(t) for t in items["title"]),
        item_row={item: row for row, item in enumerate(item_ids)},
        user_row={str(user): row for row, user in enumerate(users["user_id"])},
        seen=seen,
        warm=np.array([group is not None and group >= 0 for group in users["group"]], dtype=np.bool_),
        user_vectors=vectors["user_vectors"],
        item_vectors=vectors["item_vectors"],
        item_bias=vectors.get("item_bias", np.zeros(len(item_ids), dtype=np.float32)),
        popularity=_popularity(seen, len(item_ids)),
    )


def _columns(path: Path, key: str, *names: str) -> dict[str, list[Any]]:
    """Return the columns as lists, rows in the order of the index column `key`."""
    table = pl.read_parquet(path, columns=[key, *names]).sort(key)
    return table.to_dict(as_series=False)


def _check_rows(bundle: Path, name: str, matrix: Floats, rows: int) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != rows:
        raise ValueError(
            f"{bundle}/collaborative.safetensors: {name} has shape {matrix.shape}, its table has {rows} rows; "
            "publish the bundle again"
        )


def _popularity(seen: Sequence[Indices], items: int) -> Floats:
    everything = np.concatenate([np.unique(row) for row in seen]) if seen else np.zeros(0, dtype=np.int64)
    return np.bincount(everything, minlength=items).astype(np.float32)


def retrieve(catalogue: Catalogue, user_id: str, count: int) -> Candidates:
    """Return the user's best `count` unseen items by the collaborative vectors, or the most popular ones."""
    row = catalogue.user_row.get(user_id)
    if row is None or not catalogue.warm[row]:
        unseen = _order(catalogue.popularity, () if row is None else catalogue.seen[row])
        return Candidates(_ids(catalogue, unseen[:count]), {}, "Popularity")
    ranked = _collaborative_order(catalogue, row)
    ids = _ids(catalogue, ranked[:count])
    return Candidates(ids, {item: place for place, item in enumerate(ids, 1)}, "Collaborative")


def given(catalogue: Catalogue, user_id: str, item_ids: Sequence[str]) -> Candidates:
    """Return the caller's own candidates, in the given order and once each, with their collaborative places."""
    unique = tuple(dict.fromkeys(item_ids))
    row = catalogue.user_row.get(user_id)
    if row is None or not catalogue.warm[row]:
        return Candidates(unique, {}, "Given")
    wanted = set(unique)
    ranked = _ids(catalogue, _collaborative_order(catalogue, row))
    return Candidates(unique, {item: place for place, item in enumerate(ranked, 1) if item in wanted}, "Given")


def _collaborative_order(catalogue: Catalogue, row: int) -> Indices:
    scores = catalogue.item_vectors @ catalogue.user_vectors[row] + catalogue.item_bias  # (I,)
    return _order(scores, catalogue.seen[row])


def _order(scores: Floats, without: Indices | tuple[()]) -> Indices:
    """Return item indices by falling score, ties by index, leaving `without` out."""
    order = np.argsort(-scores, kind="stable")
    return order[~np.isin(order, without)]


def _ids(catalogue: Catalogue, rows: Indices) -> tuple[str, ...]:
    return tuple(catalogue.item_ids[int(row)] for row in rows)
