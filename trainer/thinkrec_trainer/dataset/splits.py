# SPDX-License-Identifier: Apache-2.0
"""Splitting in time. Pure: interactions in, the same rows with `split` and `position` out."""

from __future__ import annotations

from typing import Literal

import polars as pl

from thinkrec_trainer.errors import BadInput

SPLITS = ("train", "validation", "test")
HELD_OUT = 10
"""One row in ten is validation and one in ten is test (method.md: 80/10/10). Whole numbers keep the cut exact."""
SMALLEST_SPLIT_USER = 3
"""Rows a user needs to appear in every split; users with fewer train only."""


def split_rows(rows: pl.DataFrame, how: Literal["PerUserTemporal", "GlobalTemporal"]) -> pl.DataFrame:
    """Return `rows` (sorted by user, time, item) with position (i32) and split (`train`, `validation`, `test`).

    PerUserTemporal: of a user's n rows the last max(1, floor(n/10)) are test, as many before them validation; users
    with fewer than three rows train only. GlobalTemporal: cut-off times at 80 % and 90 % of rows, ties together.
    """
    placed = rows.with_columns(position=pl.int_range(pl.len(), dtype=pl.Int32).over("user_index"))
    return placed.with_columns(split=_per_user() if how == "PerUserTemporal" else _global(rows))


def _per_user() -> pl.Expr:
    total = pl.len().over("user_index").cast(pl.Int64)
    held_out = pl.max_horizontal(total // HELD_OUT, 1)
    from_end = total - pl.col("position")  # 1 is the newest row
    return (
        pl.when((total < SMALLEST_SPLIT_USER) | (from_end > 2 * held_out))
        .then(pl.lit("train"))
        .when(from_end > held_out)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("test"))
    )


def _global(rows: pl.DataFrame) -> pl.Expr:
    times = rows["timestamp"].sort()
    first_validation = times[len(times) * (HELD_OUT - 2) // HELD_OUT]
    first_test = times[len(times) * (HELD_OUT - 1) // HELD_OUT]
    if not times[0] < first_validation < first_test:
        raise BadInput(
            f"split GlobalTemporal needs different times at 0, 80 and 90 % of the rows, got {times[0]}, "
            f"{first_validation}, {first_test} (Unix seconds): check columns.timestamp or use PerUserTemporal"
        )
    time = pl.col("timestamp")
    return (
        pl.when(time < first_validation)
        .then(pl.lit("train"))
        .when(time < first_test)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("test"))
    )
