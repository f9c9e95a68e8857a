# SPDX-License-Identifier: Apache-2.0
"""One closed segment -> typed tables. Every line is checked; what is no event is kept as it is, and stops nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from thinkrec_crds.event_log import CLOSED_SUFFIX, Exposure, StoredEvent
from thinkrec_trainer.events.layout import SCHEMAS, Kind, hour_of, user_part

BLOCK_ROWS = 20_000
"""Rows are kept as Python objects only so long: they take ten times the memory of a column."""
_EXPOSURE_MARK = b'"record":"Exposure"'

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
    tables = Tables({"feedback": [], "exposure": []})
    gathered: dict[Kind, list[Row]] = {"feedback": [], "exposure": []}
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                tables.cut = len(line)
                continue
            kind: Kind = "exposure" if _EXPOSURE_MARK in line else "feedback"
            try:
                gathered[kind].append(_PARSERS[kind](line))
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


def _feedback(line: bytes) -> Row:
    event = StoredEvent.model_validate_json(line)
    return (
        hour_of(event.received_at),
        user_part(event.user_id),
        event.event_id,
        event.user_id,
        event.item_id,
        event.type,
        event.value,
        _in_utc(event.occurred_at),
        event.generation,
        _in_utc(event.received_at),
    )


def _exposure(line: bytes) -> Row:
    seen = Exposure.model_validate_json(line)
    return (
        hour_of(seen.at),
        user_part(seen.user_id),
        seen.exposure_id,
        seen.experiment,
        seen.variant,
        seen.user_id,
        seen.bucket,
        seen.weights,
        seen.served_by,
        seen.revision,
        seen.fallback,
        seen.fallback_reason,
        seen.degraded,
        _in_utc(seen.at),
        seen.latency_milliseconds,
        seen.error,
        seen.empty,
    )


def _in_utc(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


_PARSERS: dict[Kind, Callable[[bytes], Row]] = {"feedback": _feedback, "exposure": _exposure}
