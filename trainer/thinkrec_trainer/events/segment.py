# SPDX-License-Identifier: Apache-2.0
"""One closed segment -> typed tables. Every line is checked; what is no event is kept as it is, and stops nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from thinkrec_crds.event_log import CLOSED_SUFFIX, Exposure, Mirrored, StoredEvent
from thinkrec_trainer.events.layout import SCHEMAS, TIME, Kind, hour_of, user_part

BLOCK_ROWS = 20_000
"""Rows are kept as Python objects only so long: they take ten times the memory of a column."""

Cell = str | float | int | bool | datetime | None
Row = tuple[Cell, ...]
"""Hour, part, then the columns of the kind."""
_PLACE = pl.Schema({"hour": pl.String(), "part": pl.UInt8()})


@dataclass(slots=True)
class Tables:
    """What a segment holds."""

    blocks: dict[Kind, list[pl.DataFrame]]
    unreadable: list[bytes] = field(default_factory=list)
    cut: int = 0
    """Bytes behind the last whole line: never acknowledged, dropped."""

    def rows(self, kind: Kind) -> int:
        """Return how many lines of that kind there are."""
        return sum(block.height for block in self.blocks[kind])

    def parts(self, kind: Kind) -> Iterator[tuple[str, int, pl.DataFrame]]:
        """Yield (hour, part, table), by hour and part; the lines of a table are in the order of the segment."""
        if not self.blocks[kind]:
            return
        split = pl.concat(self.blocks[kind]).partition_by("hour", "part", as_dict=True, include_key=False)
        for hour, part in sorted(split):
            yield str(hour), int(part), split[hour, part]


def segment_id(path: Path) -> str:
    """Return `<name>-<first 16 digits of the sha256>`: the same bytes in the same segment, the same id."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return f"{path.name.removesuffix(CLOSED_SUFFIX)}-{digest[:16]}"


def read_segment(path: Path) -> Tables:
    """Parse a closed segment."""
    tables = Tables({kind: [] for kind in SCHEMAS})
    gathered: dict[Kind, list[Row]] = {kind: [] for kind in SCHEMAS}
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                tables.cut = len(line)
                continue
            kind = _kind(line)
            try:
                gathered[kind].append(_row(kind, line))
            except (ValueError, OverflowError):  # pydantic's is a ValueError; a date may be beyond the calendar
                tables.unreadable.append(line)
            if len(gathered[kind]) == BLOCK_ROWS:
                _flush(tables, gathered, kind)
    for kind in gathered:
        _flush(tables, gathered, kind)
    return tables


def _flush(tables: Tables, gathered: dict[Kind, list[Row]], kind: Kind) -> None:
    if gathered[kind]:
        schema = pl.Schema({**_PLACE, **SCHEMAS[kind]})
        tables.blocks[kind].append(pl.DataFrame(gathered[kind], schema=schema, orient="row"))
        gathered[kind] = []


def _kind(line: bytes) -> Kind:
    """Return what a line says it is; within a text the quotes of a mark would be escaped."""
    return next((kind for mark, kind in _MARKS.items() if mark in line), "feedback")


def _row(kind: Kind, line: bytes) -> Row:
    record = _RECORDS[kind].model_validate_json(line)
    place = hour_of(getattr(record, TIME[kind])), user_part(record.user_id)
    return (*place, *(_cell(getattr(record, name)) for name in SCHEMAS[kind]))


def _cell(value: Cell) -> Cell:
    """Return a moment in UTC, and anything else as it is."""
    if not isinstance(value, datetime):
        return value
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_MARKS: dict[bytes, Kind] = {b'"record":"Exposure"': "exposure", b'"record":"Mirror"': "mirror"}
_RECORDS: dict[Kind, type[StoredEvent | Exposure | Mirrored]] = {
    "feedback": StoredEvent,
    "exposure": Exposure,
    "mirror": Mirrored,
}
