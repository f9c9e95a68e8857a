# SPDX-License-Identifier: Apache-2.0
"""The item file: id, title, attributes. Every item of the ratings gets a title, if need be a made-up one (counted)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from thinkrec_crds.stages import ItemColumns
from thinkrec_trainer.dataset.formats import MALFORMED, Table
from thinkrec_trainer.dataset.values import identifier, words

DIGEST_DIGITS = 32
"""Hex digits of an item's digest: 128 bits, far beyond accidental collision."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The rows of the item file."""

    frame: pl.DataFrame
    """item str (unique), title str or null, attributes list[str]."""
    counts: Mapping[str, int]
    """item_rows_read, item_missing_ids, item_malformed_lines, duplicate_items."""


def read_catalogue(table: Table, columns: ItemColumns) -> Catalogue:
    """Read the item file; of rows with the same id the first is kept, the others are counted."""
    schema = table.frame.collect_schema()
    lists = [
        words(name, schema[name], sequence=name in table.sequences, json_cells=table.json_cells)
        for name in columns.attributes
    ]
    frame = table.frame.select(
        (pl.col(MALFORMED) if MALFORMED in schema else pl.lit(value=False)).alias("malformed"),
        identifier(columns.item).alias("item"),
        identifier(columns.title).alias("title"),
        (pl.concat_list(lists) if lists else pl.lit([], dtype=pl.List(pl.String))).alias("attributes"),
    ).collect(engine="streaming")
    sound = frame.filter(~pl.col("malformed"))
    named = sound.filter(pl.col("item").is_not_null()).drop("malformed")
    unique = named.unique("item", keep="first", maintain_order=True)
    counts = {
        "item_rows_read": frame.height,
        "item_malformed_lines": frame.height - sound.height,
        "item_missing_ids": sound.height - named.height,
        "duplicate_items": named.height - unique.height,
    }
    return Catalogue(unique, counts)


def index_catalogue(catalogue: Catalogue, items: pl.Series) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return item_index, item_id, title, attributes, digest for every id of `items`, and the fallback counts."""
    index = pl.DataFrame({"item_index": pl.Series(range(len(items)), dtype=pl.Int32), "item_id": items})
    known = catalogue.frame.rename({"item": "item_id"}).with_columns(known=pl.lit(value=True))
    joined = index.join(known, on="item_id", how="left", maintain_order="left")
    counts = {
        "items_without_metadata": joined["known"].null_count(),
        "items_without_title": joined.filter(pl.col("known") & pl.col("title").is_null()).height,
    }
    filled = joined.with_columns(
        pl.col("title").fill_null(pl.format("Item {}", "item_id")), pl.col("attributes").fill_null([])
    ).drop("known")
    digests = [item_digest(title, attributes) for title, attributes in filled.select("title", "attributes").iter_rows()]
    return filled.with_columns(digest=pl.Series(digests, dtype=pl.String)), counts


def item_digest(title: str, attributes: Sequence[str]) -> str:
    """Return the digest of what keywords are made from; the same item in another data set has the same one."""
    text = "\x1f".join([title, *attributes])
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]
