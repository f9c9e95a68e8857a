# SPDX-License-Identifier: Apache-2.0
"""The dataset stage, top to bottom: open, clean, split, index, write. File formats: docs/artifacts.md."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import polars as pl

from thinkrec_crds.stages import DatasetParameters
from thinkrec_trainer.context import StageContext, StageResult
from thinkrec_trainer.dataset.catalogue import Catalogue, index_catalogue, read_catalogue
from thinkrec_trainer.dataset.formats import Source, explained, open_source, open_table
from thinkrec_trainer.dataset.interactions import Cleaning, Interactions, clean
from thinkrec_trainer.dataset.splits import SMALLEST_SPLIT_USER, SPLITS, split_rows
from thinkrec_trainer.dataset.summary import summarise
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.fetch import source_digest

STEPS = 5


def run(context: StageContext) -> StageResult:
    """Read ratings and items, validate, split in time, write.

    Errors: BadInput, each defined in docs/data.md; Interrupted between two steps.
    """
    parameters = context.spec.parameters
    if not isinstance(parameters, DatasetParameters):
        raise BadInput(f"stage dataset got parameters of stage {parameters.stage}")
    ratings_path = context.fetch(parameters.storage_uri)
    context.checkpoint.raise_if_interrupted()
    items_path = context.fetch(parameters.items.storage_uri)
    _done(context, 1, "sources are here")
    with tempfile.TemporaryDirectory(prefix="thinkrec-utf8-") as scratch:
        ratings = open_source(ratings_path, parameters.format, "ratings", Path(scratch))
        items = open_source(items_path, parameters.items.format, "items", Path(scratch))
        catalogue = _read_items(items, parameters)
        _done(context, 2, "item file read")
        interactions = _read_ratings(ratings, parameters, catalogue, context.spec.seed)
    _done(context, 3, f"{interactions.rows.height} interactions kept")
    counts = _write(context, parameters, interactions, catalogue)
    context.progress.update(STEPS, STEPS, "written")  # finished: publishing takes less than starting again
    latin1 = {"latin1_files": ratings.latin1_files + items.latin1_files}
    return StageResult(
        counts={**interactions.counts, **catalogue.counts, **counts, **latin1},
        source_digests={"ratings": _digest(ratings), "items": _digest(items)},
    )


def _done(context: StageContext, step: int, message: str) -> None:
    """Report a step and stop here if asked to; nothing is saved, for a whole run takes minutes at most."""
    context.progress.update(step, STEPS, message)
    context.checkpoint.raise_if_interrupted()


def _read_items(source: Source, parameters: DatasetParameters) -> Catalogue:
    columns = parameters.items.columns
    wanted = {"items.columns.item": columns.item, "items.columns.title": columns.title}
    wanted |= {f"items.columns.attributes[{i}]": name for i, name in enumerate(columns.attributes)}
    table = open_table(source, wanted)
    with explained(source):
        return read_catalogue(table, columns)


def _read_ratings(source: Source, parameters: DatasetParameters, catalogue: Catalogue, seed: int) -> Interactions:
    columns = parameters.columns
    wanted = {f"columns.{field}": str(getattr(columns, field)) for field in ("user", "item", "rating", "timestamp")}
    table = open_table(source, wanted)
    cleaning = Cleaning(columns, parameters.label_threshold, parameters.max_users, seed)
    with explained(source):
        return clean(table, cleaning, catalogue.frame["item"])


def _digest(source: Source) -> str:
    """Digest of the bytes as they were found, before any decoding."""
    origin = source.origin
    return source_digest(origin[0] if len(origin) == 1 else origin[0].parent)


def _write(
    context: StageContext, parameters: DatasetParameters, interactions: Interactions, catalogue: Catalogue
) -> dict[str, int]:
    """Write every file of the artifact; return the counts that are not about single rows."""
    liked = pl.col("rating") >= parameters.label_threshold
    rows = split_rows(interactions.rows, parameters.split).with_columns(liked=liked)
    users = _users(rows, interactions.users)
    indexed, fallbacks = index_catalogue(catalogue, interactions.items)
    items = _items(rows, indexed)
    for name in SPLITS:
        part = rows.filter(pl.col("split") == name)
        columns = ["user_index", "item_index", "rating", "liked", "timestamp", "position"]
        part.select(columns).sort("user_index", "position").write_parquet(context.output / f"{name}.parquet")
    users.write_parquet(context.output / "users.parquet")
    items.drop("all_rows").write_parquet(context.output / "items.parquet")
    text = json.dumps(summarise(rows, users, items), indent=1, ensure_ascii=False)
    (context.output / "statistics.json").write_text(text + "\n", encoding="utf-8")
    small = rows.group_by("user_index").len().filter(pl.col("len") < SMALLEST_SPLIT_USER).height
    sizes = {f"{name}_rows": rows.filter(pl.col("split") == name).height for name in SPLITS}
    return {"users": users.height, "items": items.height, "small_users": small, **sizes, **fallbacks}


def _users(rows: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    counted = rows.group_by("user_index").agg(
        [(pl.col("split") == name).sum().cast(pl.Int32).alias(f"{name}_rows") for name in SPLITS]
    )
    index = pl.DataFrame({"user_index": pl.Series(range(len(ids)), dtype=pl.Int32), "user_id": ids})
    joined = index.join(counted, on="user_index", how="left", maintain_order="left")
    return joined.with_columns(warm=pl.col("train_rows") > 0)


def _items(rows: pl.DataFrame, indexed: pl.DataFrame) -> pl.DataFrame:
    counted = rows.group_by("item_index").agg(
        (pl.col("split") == "train").sum().cast(pl.Int32).alias("train_rows"),
        pl.len().cast(pl.Int32).alias("all_rows"),
    )
    joined = indexed.join(counted, on="item_index", how="left", maintain_order="left")
    filled = joined.with_columns(pl.col("train_rows", "all_rows").fill_null(0))
    columns = ["item_index", "item_id", "title", "attributes", "train_rows", "warm", "digest", "all_rows"]
    return filled.with_columns(warm=pl.col("train_rows") > 0).select(columns)
