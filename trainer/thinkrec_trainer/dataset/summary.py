# SPDX-License-Identifier: Apache-2.0
"""`statistics.json`: what the report and a person want to know about a data set. Pure."""

from __future__ import annotations

import datetime
from typing import Any

import polars as pl

from thinkrec_trainer.dataset.splits import SPLITS

TOP_ITEMS = 20
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


def summarise(rows: pl.DataFrame, users: pl.DataFrame, items: pl.DataFrame) -> dict[str, Any]:
    """Return the statistics of split rows (split, liked, rating, timestamp), users and items, as JSON values."""
    return {
        "users": users.height,
        "items": items.height,
        "ratedItems": rows["item_index"].n_unique(),
        "rows": {name: _split_summary(rows.filter(pl.col("split") == name)) for name in SPLITS},
        "density": rows.height / (users.height * items.height),
        "positiveShare": rows["liked"].mean(),
        "ratingHistogram": _histogram(rows),
        "historyLength": _quantiles(rows.group_by("user_index").len()["len"]),
        "itemRatings": _quantiles(items["all_rows"]),
        "topItems": _top(items),
        "timeRange": [_iso(rows["timestamp"].min()), _iso(rows["timestamp"].max())],
        "coldUsers": int((~users["warm"]).sum()),
        "coldItems": int((~items["warm"]).sum()),
        "coldRows": {name: _cold_rows(rows, users, items, name) for name in SPLITS[1:]},
    }


def _split_summary(part: pl.DataFrame) -> dict[str, Any]:
    return {
        "rows": part.height,
        "users": part["user_index"].n_unique(),
        "items": part["item_index"].n_unique(),
        "positiveShare": part["liked"].mean(),
        "timeRange": [_iso(part["timestamp"].min()), _iso(part["timestamp"].max())],
    }


def _histogram(rows: pl.DataFrame) -> list[dict[str, float]]:
    """Count each rating value; scales with more than 50 values are rounded to whole numbers."""
    rating = pl.col("rating") if rows["rating"].n_unique() <= 50 else pl.col("rating").round()
    found = rows.select(rating=rating).group_by("rating").len().sort("rating")
    return [{"rating": float(value), "rows": count} for value, count in found.iter_rows()]


def _quantiles(values: pl.Series) -> dict[str, float]:
    return {f"{share:g}": float(values.quantile(share, "nearest") or 0) for share in QUANTILES}


def _top(items: pl.DataFrame) -> list[dict[str, Any]]:
    best = items.sort(["train_rows", "item_index"], descending=[True, False]).head(TOP_ITEMS)
    return [
        {"itemId": row["item_id"], "title": row["title"], "trainRows": row["train_rows"]}
        for row in best.iter_rows(named=True)
    ]


def _cold_rows(rows: pl.DataFrame, users: pl.DataFrame, items: pl.DataFrame, split: str) -> dict[str, int]:
    part = rows.filter(pl.col("split") == split)
    cold_users = users.filter(~pl.col("warm"))["user_index"]
    cold_items = items.filter(~pl.col("warm"))["item_index"]
    return {
        "coldUser": part.filter(pl.col("user_index").is_in(cold_users.implode())).height,
        "coldItem": part.filter(pl.col("item_index").is_in(cold_items.implode())).height,
    }


def _iso(seconds: object) -> str | None:
    if not isinstance(seconds, int):
        return None
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return str(seconds)  # a time beyond the calendar is shown as it is
