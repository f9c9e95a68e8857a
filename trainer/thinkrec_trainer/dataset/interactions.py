# SPDX-License-Identifier: Apache-2.0
"""From raw ratings to compact, clean interactions. Every row read is either kept or counted under one reason.

The source is streamed several times (reasons, user ids, item ids, rows); what stays in memory is the ids and, of good
rows, indices, rating and time: 24 bytes a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from thinkrec_crds.stages import Columns
from thinkrec_trainer.dataset.formats import MALFORMED, Table
from thinkrec_trainer.dataset.values import identifier, number, seconds
from thinkrec_trainer.errors import BadInput

REASONS = (
    "malformed_lines",
    "missing_ids",
    "invalid_ratings",
    "negative_ratings",
    "invalid_timestamps",
    "unsampled_rows",
    "duplicates_dropped",
    "repeats_dropped",
)
"""Why a row was skipped, in the order of the checks; docs/data.md defines each."""


@dataclass(frozen=True, slots=True)
class Interactions:
    """Clean interactions, indexed."""

    rows: pl.DataFrame
    """user_index i32, item_index i32, rating f32, timestamp i64 (s); one row a pair, sorted by user, time, item."""
    users: pl.Series
    """User ids, sorted; the index is the row number."""
    items: pl.Series
    """Item ids of the ratings and of the item file, sorted."""
    counts: Mapping[str, int]
    """rows_read, rows_kept and every reason; rows_read = rows_kept + sum of the reasons."""


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What the spec says about rows."""

    columns: Columns
    label_threshold: float
    max_users: int | None
    seed: int


def clean(table: Table, cleaning: Cleaning, catalogue_ids: pl.Series) -> Interactions:
    """Validate, sample users, index and deduplicate. BadInput when no row is left, with the reasons."""
    judged = _judge(table, cleaning)
    faults = _count_faults(judged)
    good = judged.filter(pl.col("fault").is_null())
    if faults["rows_read"] == sum(faults[reason] for reason in REASONS):
        raise BadInput(_nothing_left(faults, table, cleaning))
    users = _sample(_distinct(good, "user"), cleaning)
    faults["unsampled_rows"] = _height(good.join(_index(users, "user"), on="user", how="anti"))
    kept = good.join(_index(users, "user"), on="user", how="inner")
    items = pl.concat([_distinct(kept, "item"), catalogue_ids]).unique().sort()
    rows = _deduplicate(_compact(kept, items), faults)
    if faults["rows_read"] != rows.height + sum(faults[reason] for reason in REASONS):
        raise RuntimeError(f"rows were lost: {rows.height} kept, {faults}")
    return Interactions(rows, users, items, {**faults, "rows_kept": rows.height})


def _judge(table: Table, cleaning: Cleaning) -> pl.LazyFrame:
    """Return row, user, item, rating, timestamp and `fault` (null: good) of every row."""
    schema, names = table.frame.collect_schema(), cleaning.columns
    values = table.frame.with_row_index("row").select(
        "row",
        (pl.col(MALFORMED) if MALFORMED in schema else pl.lit(value=False)).alias("malformed"),
        identifier(names.user).alias("user"),
        identifier(names.item).alias("item"),
        number(names.rating, schema[names.rating]).alias("rating"),
        seconds(names.timestamp, schema[names.timestamp]).alias("timestamp"),
    )
    # A threshold at or below zero says that the scale is signed; otherwise -1 and the like mark "not rated".
    negative = (pl.col("rating") < 0) if cleaning.label_threshold > 0 else pl.lit(value=False)
    return values.with_columns(
        fault=pl.when(pl.col("malformed"))
        .then(pl.lit("malformed_lines"))
        .when(pl.col("user").is_null() | pl.col("item").is_null())
        .then(pl.lit("missing_ids"))
        .when(pl.col("rating").is_null())
        .then(pl.lit("invalid_ratings"))
        .when(negative)
        .then(pl.lit("negative_ratings"))
        .when(pl.col("timestamp").is_null())
        .then(pl.lit("invalid_timestamps"))
    )


def _count_faults(judged: pl.LazyFrame) -> dict[str, int]:
    found = judged.group_by("fault").len().collect(engine="streaming")
    numbers = dict(zip(found["fault"].to_list(), found["len"].to_list(), strict=True))
    return {"rows_read": sum(numbers.values()), **{reason: numbers.get(reason, 0) for reason in REASONS}}


def _height(frame: pl.LazyFrame) -> int:
    return int(frame.select(pl.len()).collect(engine="streaming").item())


def _distinct(frame: pl.LazyFrame, column: str) -> pl.Series:
    return frame.select(column).unique().collect(engine="streaming")[column].sort()


def _sample(users: pl.Series, cleaning: Cleaning) -> pl.Series:
    """Keep the users with the smallest hash of (seed, id): a larger sample contains every smaller one."""
    if cleaning.max_users is None or cleaning.max_users >= len(users):
        return users
    order = sorted(users.to_list(), key=lambda user: hashlib.sha256(f"{cleaning.seed}:{user}".encode()).digest())
    return pl.Series("user", order[: cleaning.max_users], dtype=pl.String).sort()


def _index(ids: pl.Series, name: str) -> pl.LazyFrame:
    index = pl.Series(f"{name}_index", range(len(ids)), dtype=pl.Int32)
    return pl.LazyFrame({name: ids, f"{name}_index": index})


def _compact(kept: pl.LazyFrame, items: pl.Series) -> pl.DataFrame:
    return (
        kept.join(_index(items, "item"), on="item", how="inner")
        .select("row", "user_index", "item_index", pl.col("rating").cast(pl.Float32), "timestamp")
        .collect(engine="streaming")
    )


def _deduplicate(rows: pl.DataFrame, counts: dict[str, int]) -> pl.DataFrame:
    """Of equal (user, item, time) keep the row that came last; of a pair at several times keep the first time."""
    ordered = rows.sort("user_index", "item_index", "timestamp", "row")
    once = ordered.unique(["user_index", "item_index", "timestamp"], keep="last", maintain_order=True)
    first = once.unique(["user_index", "item_index"], keep="first", maintain_order=True)
    counts["duplicates_dropped"] = rows.height - once.height
    counts["repeats_dropped"] = once.height - first.height
    return first.drop("row").sort("user_index", "timestamp", "item_index")


def _nothing_left(faults: Mapping[str, int], table: Table, cleaning: Cleaning) -> str:
    if not faults["rows_read"]:
        return "ratings: the file has a header but no row"
    reasons = {reason: faults[reason] for reason in REASONS if faults[reason]}
    worst = max(reasons, key=lambda reason: reasons[reason])
    field = {"invalid_ratings": "rating", "negative_ratings": "rating", "invalid_timestamps": "timestamp"}.get(
        worst, "user"
    )
    column = str(getattr(cleaning.columns, field))
    shown = table.frame.select(column).head(3).collect()[column].to_list()
    total = faults["rows_read"]
    return f"ratings: none of {total} rows can be used, {reasons}; columns.{field} is {column!r}, first values {shown}"
