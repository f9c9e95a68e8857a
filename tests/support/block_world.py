# SPDX-License-Identifier: Apache-2.0
"""A data set whose truth is a checkerboard: users and items have groups, and a user likes exactly their group's items.

Every user rates `RATED` items in random order; the last user has no train row (cold), the last item is never rated.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from support.llm_stages import seal
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_trainer.context import LocalArtifact
from thinkrec_trainer.dataset.summary import summarise

GROUPS, USERS, ITEMS, RATED = 3, 61, 46, 36
COLD_USER, COLD_ITEM = USERS - 1, ITEMS - 1
TRAIN, VALIDATION = 26, 5
SCHEMA = {
    "user_index": pl.Int32,
    "item_index": pl.Int32,
    "rating": pl.Float32,
    "liked": pl.Boolean,
    "timestamp": pl.Int64,
    "position": pl.Int32,
}


def user_groups() -> npt.NDArray[np.int64]:
    """(USERS,) the true groups; uneven, so that their order by size is known: 0 is the largest."""
    return np.concatenate([np.repeat([0, 1, 2], [26, 20, 14]), [0]])


def item_groups() -> npt.NDArray[np.int64]:
    """(ITEMS,) the true groups."""
    return np.arange(ITEMS) % GROUPS


def title(item: int) -> str:
    """Title of an item; item 1 has characters that a page must escape."""
    colour = ("Red", "Green", "Blue")[item % GROUPS]
    return f"{colour} <i>Film</i> & {item}" if item == 1 else f"{colour} Film {item}"


def table(seed: int = 0) -> pl.DataFrame:
    """All rows with their split."""
    generator = np.random.default_rng(seed)
    rows = []
    for user in range(USERS):
        for position, item in enumerate(generator.permutation(ITEMS - 1)[:RATED].tolist()):
            liked = bool(user_groups()[user] == item_groups()[item])
            split = "test" if user == COLD_USER else _split(position)
            rows.append((user, item, 5.0 if liked else 2.0, liked, 1000 + position, position, split))
    return pl.DataFrame(rows, schema=SCHEMA | {"split": pl.String}, orient="row")


def _split(position: int) -> str:
    return "train" if position < TRAIN else "validation" if position < TRAIN + VALIDATION else "test"


def write_block_world(folder: Path, *, rows: pl.DataFrame | None = None) -> LocalArtifact:
    """Write and seal a `dataset` artifact of these rows."""
    folder.mkdir(parents=True)
    rows = table() if rows is None else rows
    for split in ("train", "validation", "test"):
        rows.filter(pl.col("split") == split).drop("split").write_parquet(folder / f"{split}.parquet")
    counts = {split: np.bincount(_column(rows, split, "user_index"), minlength=USERS) for split in _SPLITS}
    users = {f"{split}_rows": count.astype(np.int32) for split, count in counts.items()}
    index = np.arange(USERS, dtype=np.int32)
    pl.DataFrame(
        {"user_index": index, "user_id": [f"u{i}" for i in index], **users, "warm": counts["train"] > 0}
    ).write_parquet(folder / "users.parquet")
    _write_items(folder, np.bincount(_column(rows, "train", "item_index"), minlength=ITEMS))
    _write_statistics(folder, rows)
    return seal(folder, StageKind.DATASET)


_SPLITS = ("train", "validation", "test")


def _column(rows: pl.DataFrame, split: str, name: str) -> npt.NDArray[np.int32]:
    return rows.filter(pl.col("split") == split)[name].to_numpy()


def _write_items(folder: Path, train_rows: npt.NDArray[np.int64]) -> None:
    index = np.arange(ITEMS, dtype=np.int32)
    pl.DataFrame(
        {
            "item_index": index,
            "item_id": [f"i{i}" for i in index],
            "title": [title(i) for i in index.tolist()],
            "attributes": [[("red", "green", "blue")[i % GROUPS]] for i in index],
            "train_rows": train_rows.astype(np.int32),
            "warm": train_rows > 0,
            "digest": [str(i) for i in index],
        }
    ).write_parquet(folder / "items.parquet")


def _write_statistics(folder: Path, rows: pl.DataFrame) -> None:
    users, items = (pl.read_parquet(folder / f"{name}.parquet") for name in ("users", "items"))
    counted = items.with_columns(all_rows=pl.lit(0, pl.Int32))
    (folder / "statistics.json").write_text(json.dumps(summarise(rows, users, counted)), encoding="utf-8")
