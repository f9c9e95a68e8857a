# SPDX-License-Identifier: Apache-2.0
"""Tables into the folders of an event log, where `thinkrec_trainer.events.read` finds them."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl

from thinkrec_trainer.context import LocalArtifact
from thinkrec_trainer.events.layout import HOUR, IDENTITY, TIME, Kind, table_name, user_part


def write_segment(root: Path, model: str, kind: Kind, rows: pl.DataFrame, segment: str) -> None:
    """Write one table per hour and part, its rows in the order of time."""
    hours = pl.col(TIME[kind]).dt.strftime(HOUR).alias("_hour")
    users = rows["user_id"].unique()
    parts = {user: user_part(user) for user in users.to_list()}
    placed = rows.with_columns(hours, pl.col("user_id").replace_strict(parts, return_dtype=pl.UInt8).alias("_part"))
    split = placed.sort(TIME[kind], IDENTITY[kind]).partition_by("_hour", "_part", as_dict=True, include_key=False)
    for (hour, part), table in split.items():
        path = root / table_name(model, kind, str(hour), int(part), segment)
        path.parent.mkdir(parents=True, exist_ok=True)
        table.write_parquet(path, compression="zstd")


def take_over(earlier: LocalArtifact, root: Path) -> None:
    """Copy the tables of an earlier simulation, whose segment has another name, so that one artifact holds both."""
    for entry in earlier.manifest.files:
        path = root / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(earlier.file(entry.path), path)
