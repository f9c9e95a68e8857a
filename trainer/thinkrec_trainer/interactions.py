# SPDX-License-Identifier: Apache-2.0
"""One split's rows as arrays, read from a `dataset` artifact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from thinkrec_trainer.context import LocalArtifact
from thinkrec_trainer.errors import BadInput


@dataclass(frozen=True, slots=True)
class Interactions:
    """N rows of one split, sorted by user, then time."""

    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    liked: npt.NDArray[np.bool_]
    user_count: int
    """U, all users of the data set."""
    item_count: int
    """I, all items of the data set."""

    def warm_users(self) -> npt.NDArray[np.bool_]:
        """Return (U,) whether the user has a row here."""
        return np.bincount(self.users, minlength=self.user_count) > 0

    def warm_items(self) -> npt.NDArray[np.bool_]:
        """Return (I,) whether the item has a row here."""
        return np.bincount(self.items, minlength=self.item_count) > 0

    def logit_of_mean(self) -> float:
        """Return the logit of the share of liked rows, smoothed by one row of each class: the best constant score."""
        liked = float(self.liked.sum())
        return float(np.log((liked + 1) / (len(self.liked) - liked + 1)))

    def __len__(self) -> int:
        return len(self.users)


def read_split(dataset: LocalArtifact, split: str) -> Interactions:
    """Read `train`, `validation` or `test`; raise BadInput for an index outside of users.parquet or items.parquet."""
    users = pl.read_parquet(dataset.file("users.parquet"), columns=["user_index"]).height
    items = pl.read_parquet(dataset.file("items.parquet"), columns=["item_index"]).height
    columns = ["user_index", "item_index", "liked", "position"]
    table = pl.read_parquet(dataset.file(f"{split}.parquet"), columns=columns).sort("user_index", "position")
    for column, count in (("user_index", users), ("item_index", items)):
        if table.height and not table[column].is_between(0, count - 1).all():
            raise BadInput(f"dataset {dataset.manifest.key}: {split}.parquet has a {column} outside of 0..{count - 1}")
    return Interactions(
        table["user_index"].to_numpy().astype(np.int64),
        table["item_index"].to_numpy().astype(np.int64),
        table["liked"].to_numpy().astype(np.bool_),
        users,
        items,
    )
