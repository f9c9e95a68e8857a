# SPDX-License-Identifier: Apache-2.0
"""Builds small data sets in every format and runs the dataset stage on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest

from support.stages import make_context
from thinkrec_crds.stages import Columns, DatasetParameters, ItemColumns, ItemSource
from thinkrec_trainer.context import StageResult
from thinkrec_trainer.dataset import run

Format = Literal["Parquet", "CSV", "JSONLines", "RecBole"]
Row = tuple[Any, ...]
RATING_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
RECBOLE_TYPES = {"rating": "float", "timestamp": "float", "genres": "token_seq", "title": "token_seq"}
SUFFIX = {"Parquet": "parquet", "CSV": "csv", "JSONLines": "jsonl", "RecBole": "inter"}


@dataclass(frozen=True)
class Outcome:
    """What the stage left."""

    result: StageResult
    folder: Path

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.folder / f"{name}.parquet")

    def rows(self) -> pl.DataFrame:
        """All rows of all splits with the user's own ids."""
        parts = [self.table(name).with_columns(split=pl.lit(name)) for name in ("train", "validation", "test")]
        users, items = self.table("users"), self.table("items")
        joined = pl.concat(parts).join(users.select("user_index", "user_id"), on="user_index")
        return joined.join(items.select("item_index", "item_id"), on="item_index").sort("user_index", "position")

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.result.counts)

    def statistics(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads((self.folder / "statistics.json").read_text())
        return body


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Row], kind: Format) -> Path:
    """Write rows in a format; None is an empty cell (JSON Lines: null)."""
    if kind == "Parquet":
        pl.DataFrame([dict(zip(columns, row, strict=True)) for row in rows], infer_schema_length=None).write_parquet(
            path
        )
        return path
    if kind == "JSONLines":
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    else:
        separator = "\t" if kind == "RecBole" else ","
        header = [f"{c}:{RECBOLE_TYPES.get(c, 'token')}" if kind == "RecBole" else c for c in columns]
        lines = [separator.join("" if c is None else str(c) for c in row) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n")
    return path


RunDataset = Callable[..., Outcome]
ITEMS: Sequence[Row] = [
    ("i1", "One", "Drama|War"),
    ("i2", "Two", "Comedy"),
    ("i3", "Three", None),
    ("i4", "Four", "War"),
]
GOOD: Sequence[Row] = [("u1", "i1", 5, 100), ("u1", "i2", 1, 200), ("u1", "i3", 4, 300), ("u2", "i1", 2, 50)]


@pytest.fixture
def run_dataset(tmp_path: Path) -> RunDataset:
    """Return a function that writes ratings and items (or takes ready files) and runs the stage on them."""

    def go(
        ratings: Sequence[Row] | Path = GOOD,
        items: Sequence[Row] | Path = ITEMS,
        *,
        kind: Format = "CSV",
        item_kind: Format = "CSV",
        columns: Columns | None = None,
        item_columns: ItemColumns | None = None,
        seed: int = 0,
        **fields: Any,
    ) -> Outcome:
        number = len(list(tmp_path.glob("run-*")))
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        if not isinstance(ratings, Path):
            ratings = write_table(folder / f"ratings.{SUFFIX[kind]}", RATING_COLUMNS, ratings, kind)
        if not isinstance(items, Path):
            items = write_table(folder / f"items.{SUFFIX[item_kind]}", ("item_id", "title", "genres"), items, item_kind)
        parameters = DatasetParameters(
            storage_uri=ratings.as_uri(),
            revision="1",
            format=kind,
            columns=columns or Columns(),
            items=ItemSource(
                storage_uri=items.as_uri(),
                format=item_kind,
                columns=item_columns or ItemColumns(attributes=("genres",)),
            ),
            **fields,
        )
        context = make_context(parameters, folder, seed=seed)
        return Outcome(run(context), context.output)

    return go
