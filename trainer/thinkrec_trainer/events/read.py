# SPDX-License-Identifier: Apache-2.0
"""Events and exposures of a time range, each once, as Polars LazyFrames that stream.

Tables are first brought into a cache by the store's own client, so that credentials, retries and errors are the same as
everywhere (of a store in a folder they are linked, not copied); what a compaction removes meanwhile stays there. Only
the hours and parts that were asked for are touched: a shard of an Indexed Job asks for its parts and sees everything of
their users.

Duplicates (an event sent twice, a segment shipped twice) are removed by user and id. A plain `unique` keeps every row
in memory; here the ids are read once to find those that occur more than once, which are few, and only rows with such an
id are compared while all others stream by. Ids are compared by a 64-bit hash first; a collision costs a comparison, no
row.
"""

from __future__ import annotations

import os.path
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import polars as pl

from thinkrec_trainer.errors import BadInput, Temporary
from thinkrec_trainer.events.layout import IDENTITY, PARTS, SCHEMAS, TIME, Kind, hour_of, kind_folder, require_model
from thinkrec_trainer.store import Blob
from thinkrec_trainer.store.blobs import MissingBlob

ALL_PARTS = tuple(range(PARTS))
ATTEMPTS = 5
DOWNLOADS = 8
"""At once: tables of one part and minute are small, so a download is mostly waiting."""


class Tables(Protocol):
    """What a reader needs of a store (`thinkrec_trainer.store.Blobs` has it)."""

    @property
    def uri(self) -> str:
        """The root."""

    @property
    def folder(self) -> Path | None:
        """The root as a local folder, or None for remote storage."""

    def list(self, prefix: str = "") -> Sequence[Blob]:
        """Return the blobs whose name starts with `prefix`, sorted by name."""

    def download(self, name: str, to: Path) -> None:
        """Write the content to a local file; raise MissingBlob when there is none."""


class ListedOnce:
    """A store whose names are asked for once: 16 parts that are read one after the other share a list.

    When one of the names turns out to be gone (a compaction put another table in its place) the next list is a new one.
    """

    def __init__(self, blobs: Tables) -> None:
        """Read from these."""
        self._blobs = blobs
        self._listed: dict[str, Sequence[Blob]] = {}

    @property
    def uri(self) -> str:
        """The root."""
        return self._blobs.uri

    @property
    def folder(self) -> Path | None:
        """The root as a local folder, or None for remote storage."""
        return self._blobs.folder

    def list(self, prefix: str = "") -> Sequence[Blob]:
        """Return the blobs whose name starts with `prefix`, as they were when this was first asked."""
        if prefix not in self._listed:
            self._listed[prefix] = self._blobs.list(prefix)
        return self._listed[prefix]

    def download(self, name: str, to: Path) -> None:
        """Write the content to a local file; raise MissingBlob when there is none."""
        try:
            self._blobs.download(name, to)
        except MissingBlob:
            self._listed.clear()
            raise


@dataclass(frozen=True, slots=True)
class EventTables:
    """All kinds; columns in `layout`."""

    events: pl.LazyFrame
    exposures: pl.LazyFrame
    mirrored: pl.LazyFrame


def parts_of_shard(index: int, count: int) -> tuple[int, ...]:
    """Return the parts that shard `index` of `count` reads: all shards together read each part once.

    With more shards than parts (16), the surplus ones have none.
    """
    if not 0 <= index < count:
        raise BadInput(f"shard {index} of {count}: the index must be from 0 to {count - 1}")
    return tuple(range(index, PARTS, count))


def scan_events(
    blobs: Tables, model: str, start: datetime, end: datetime, *, cache: Path, parts: Sequence[int] = ALL_PARTS
) -> EventTables:
    """Return what gateways of `model` received from `start` up to, not including, `end` (aware datetimes).

    `blobs` is the root that was shipped to. Bounds are compared with the gateways' clocks, which a late event passes
    later. A time or part without tables gives empty frames. BadInput for a bound without a time zone.
    """
    for bound in (start, end):
        if bound.tzinfo is None:
            raise BadInput(f"the bound {bound.isoformat()} names no time zone: which hour it is in is unknown")
    require_model(model)
    frames = {kind: _scan(blobs, model, kind, start, end, parts, cache) for kind in SCHEMAS}
    return EventTables(frames["feedback"], frames["exposure"], frames["mirror"])


def _scan(
    blobs: Tables, model: str, kind: Kind, start: datetime, end: datetime, parts: Sequence[int], cache: Path
) -> pl.LazyFrame:
    files = _local_tables(blobs, model, kind, start, end, parts, cache)
    if not files:
        return pl.LazyFrame(schema=SCHEMAS[kind])
    moment = pl.col(TIME[kind])
    inside = (moment >= start.astimezone(UTC)) & (moment < end.astimezone(UTC))
    return without_duplicates(rows_of(files, kind).filter(inside), IDENTITY[kind])


def rows_of(files: Sequence[Path], kind: Kind) -> pl.LazyFrame:
    """Return the rows of tables that any version has written: a column that one lacks is null."""
    return pl.scan_parquet(list(files), schema=SCHEMAS[kind], missing_columns="insert", extra_columns="ignore")


def without_duplicates(rows: pl.LazyFrame, identity: str) -> pl.LazyFrame:
    """Return the first row of each user and id, in no particular order; the ids are read now, the rows later."""
    digest = pl.col(identity).hash().alias("_digest")
    counted = rows.select(digest).group_by("_digest").len()
    repeated = counted.filter(pl.col("len") > 1).select("_digest").collect(engine="streaming").lazy()
    marked = rows.with_columns(digest)
    once = marked.join(repeated, on="_digest", how="anti")
    first = marked.join(repeated, on="_digest", how="semi", maintain_order="left")
    return pl.concat([once, first.unique(["user_id", identity], keep="first", maintain_order=True)]).drop("_digest")


def list_tables(blobs: Tables, model: str, kind: Kind, start: datetime, end: datetime) -> list[Blob]:
    """Return the tables of the hours from that of `start` to that of `end`, by name: hour, part, segment."""
    folder = kind_folder(model, kind)
    first, last = (f"{folder}hour={hour_of(bound)}" for bound in (start, end))
    shared = os.path.commonprefix([first, last])  # noqa: RUF071 - of characters: hours share the date's beginning
    listed = blobs.list(shared)  # once, and then the little that does not belong is left out
    return [blob for blob in listed if first <= blob.name[: len(first)] <= last and blob.name.endswith(".parquet")]


def fetch_tables(blobs: Tables, tables: Sequence[Blob], cache: Path) -> list[Path]:
    """Return a local file for each table, in the same order; MissingBlob when one is gone."""
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        return list(pool.map(lambda blob: _fetched(blobs, blob, cache), tables))


def _local_tables(
    blobs: Tables, model: str, kind: Kind, start: datetime, end: datetime, parts: Sequence[int], cache: Path
) -> list[Path]:
    wanted = {f"part={part:02d}" for part in parts}
    for _ in range(ATTEMPTS):
        listed = list_tables(blobs, model, kind, start, end)
        with suppress(MissingBlob):  # a compaction has just put another table in its place
            return fetch_tables(blobs, [blob for blob in listed if blob.name.split("/")[-2] in wanted], cache)
    raise Temporary(f"tables below {blobs.uri}/{kind_folder(model, kind)} vanish as they are read; try again")


def _fetched(blobs: Tables, blob: Blob, cache: Path) -> Path:
    """Return the cached file; its name carries the content's digest, so one of that size is the same."""
    target = cache / blob.name
    if not target.is_file() or target.stat().st_size != blob.size:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{uuid.uuid4().hex}")
        if not _linked(blobs, blob.name, scratch):
            blobs.download(blob.name, scratch)
        scratch.replace(target)
    return target


def _linked(blobs: Tables, name: str, target: Path) -> bool:
    """Link a table of a store in a folder; False where there is no such store, or it is on another file system."""
    if blobs.folder is None:
        return False
    try:
        os.link(blobs.folder / name, target)
    except OSError:
        return False
    return True
