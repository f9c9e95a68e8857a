# SPDX-License-Identifier: Apache-2.0
"""Many small tables of an hour and part -> one: a gateway leaves up to one a minute, and a reader asks for each.

A table is removed only after the one that holds its rows is stored, so whatever is killed, some table has each row, and
rows that two tables have are removed on reading as ever. Two compactions at once may both store a table; the next one
makes one of them. Segments that are shipped late add to their hour, and are taken in then.
"""

from __future__ import annotations

import logging
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from thinkrec_trainer.events.layout import IDENTITY, SCHEMAS, Kind, compacted_segment, require_model
from thinkrec_trainer.events.read import ALL_PARTS, fetch_tables, list_tables, rows_of
from thinkrec_trainer.store import Blob, Blobs
from thinkrec_trainer.store.blobs import MissingBlob

_log = logging.getLogger(__name__)


def compact(
    blobs: Blobs,
    model: str,
    *,
    days: float,
    settle_hours: float,
    now: datetime | None = None,
    parts: Sequence[int] = ALL_PARTS,
) -> dict[str, int]:
    """Compact all hours that ended between `days` and `settle_hours` ago; return counts of tables read and written."""
    wanted = {f"part={part:02d}" for part in parts}
    require_model(model)
    moment = now or datetime.now(UTC)
    start, end = moment - timedelta(days=days), moment - timedelta(hours=settle_hours + 1)
    counts = {"read": 0, "written": 0}
    for kind in SCHEMAS:
        places: dict[str, list[Blob]] = defaultdict(list)
        for blob in list_tables(blobs, model, kind, start, end):
            place = blob.name.rpartition("/")[0]
            if place.rpartition("/")[2] in wanted:
                places[place].append(blob)
        for place, tables in sorted(places.items()):
            if len(tables) > 1 and _compacted(blobs, kind, place, tables):
                counts["read"] += len(tables)
                counts["written"] += 1
    return counts


def _compacted(blobs: Blobs, kind: Kind, place: str, tables: Sequence[Blob]) -> bool:
    """Make one table of several; return False when another compaction was faster."""
    names = [blob.name for blob in tables]
    target = f"{place}/{compacted_segment(names)}.parquet"
    with tempfile.TemporaryDirectory(prefix="thinkrec-compact-") as folder:
        try:
            files = fetch_tables(blobs, tables, Path(folder))
        except MissingBlob:
            _log.info("%s: another compaction is at work", place)
            return False
        whole = Path(folder) / "whole.parquet"
        _joined(files, kind).write_parquet(whole, compression="zstd")
        blobs.upload(target, whole)
    blobs.delete(names)
    return True


def _joined(files: Sequence[Path], kind: Kind) -> pl.DataFrame:
    """Return the rows of all tables in their order, each id once; one hour of one part is small."""
    return rows_of(files, kind).unique(["user_id", IDENTITY[kind]], keep="first", maintain_order=True).collect()
