# SPDX-License-Identifier: Apache-2.0
"""What the language-model stages read of the data: each user's interactions in time order, and what is said of items.

The test split never enters here, except where `splits` names it (the bundle's serving histories).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from thinkrec_crds.prompt import ItemText
from thinkrec_trainer.blocks import Row
from thinkrec_trainer.context import LocalArtifact
from thinkrec_trainer.errors import BadInput

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
LEARNING_SPLITS = ("train", "validation")


@dataclass(frozen=True, slots=True)
class Timelines:
    """N interactions of U users, sorted by user, then time."""

    offsets: Ints
    """(U + 1,): user u's rows are offsets[u] .. offsets[u + 1]."""
    items: Ints
    """(N,)"""
    liked: Bools
    """(N,)"""
    train_rows: Ints
    """(U,): so many of a user's first rows are train rows."""

    @property
    def users(self) -> int:
        """U."""
        return len(self.offsets) - 1

    def lengths(self) -> Ints:
        """Return (U,) rows of each user."""
        return np.diff(self.offsets)

    def rows(self, user_index: int) -> list[Row]:
        """Return one user's rows, oldest first."""
        span = slice(int(self.offsets[user_index]), int(self.offsets[user_index + 1]))
        return [
            Row(item, liked) for item, liked in zip(self.items[span].tolist(), self.liked[span].tolist(), strict=True)
        ]

    def later_positions(self, user_index: int) -> range:
        """Return the positions after the user's train rows."""
        return range(int(self.train_rows[user_index]), int(self.offsets[user_index + 1] - self.offsets[user_index]))


def read_timelines(dataset: LocalArtifact, splits: Sequence[str] = LEARNING_SPLITS) -> Timelines:
    """Read the splits of a `dataset` artifact; `splits` must be in time order, beginning with train."""
    users = pl.read_parquet(dataset.file("users.parquet"), columns=["user_index"]).height
    columns = ["user_index", "item_index", "liked", "position"]
    parts = [
        pl.read_parquet(dataset.file(f"{name}.parquet"), columns=columns).with_columns(pl.lit(number).alias("split"))
        for number, name in enumerate(splits)
    ]
    table = pl.concat(parts).sort("user_index", "position")
    if not table.height:
        raise BadInput(f"dataset {dataset.manifest.key} has no row in {list(splits)}: check spec.dataset.storageUri")
    owner = table["user_index"].to_numpy().astype(np.int64)
    return Timelines(
        offsets=np.searchsorted(owner, np.arange(users + 1)),
        items=table["item_index"].to_numpy().astype(np.int64),
        liked=table["liked"].to_numpy().astype(np.bool_),
        train_rows=np.bincount(owner[table["split"].to_numpy() == 0], minlength=users),
    )


def read_catalogue(dataset: LocalArtifact, keywords: LocalArtifact) -> tuple[ItemText, ...]:
    """Return what the prompt says of each item, by item index."""
    items = pl.read_parquet(dataset.file("items.parquet"), columns=["item_index", "title"])
    words = pl.read_parquet(keywords.file("keywords.parquet"), columns=["item_index", "keywords"])
    table = items.join(words, on="item_index", how="left", validate="1:1").sort("item_index")
    if table["item_index"].to_list() != list(range(table.height)):
        raise BadInput(f"dataset {dataset.manifest.key}: item indices must be 0..{table.height - 1} without a gap")
    return tuple(
        ItemText(index, title, tuple(given or ()))
        for index, title, given in table.select("item_index", "title", "keywords").iter_rows()
    )


@dataclass(frozen=True, slots=True)
class BlockIndex:
    """Every history block of the train rows, as (user, start, targets); a deck of these is an epoch."""

    users: Ints
    starts: Ints
    counts: Ints
    """Targets of each block; a user's last one may be shorter."""

    def __len__(self) -> int:
        return len(self.users)


def index_blocks(timelines: Timelines, users: Ints, *, size: int, history_length: int) -> BlockIndex:
    """Tile the train rows of `users` with blocks of `size` consecutive targets.

    A user's first min(history_length, half of the rows) rows serve as history only: a prompt with hardly any history is
    not what will be served, and would be a large share of the blocks of short users.
    """
    rows = timelines.train_rows[users]
    first = np.maximum(1, np.minimum(history_length, rows // 2))
    targets = np.maximum(0, rows - first)
    blocks = -(-targets // size)
    owner = np.repeat(np.arange(len(users)), blocks)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    starts = first[owner] + place * size
    return BlockIndex(users=users[owner], starts=starts, counts=np.minimum(size, rows[owner] - starts))
