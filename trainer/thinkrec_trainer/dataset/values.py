# SPDX-License-Identifier: Apache-2.0
"""What a raw cell means: ids, ratings, times, attribute lists. Polars expressions; null stands for "cannot be read"."""

from __future__ import annotations

import json

import polars as pl

MILLISECONDS_FROM = 1e11
"""A number of this size is no second count (it would be the year 5138): it counts milliseconds."""
MICROSECONDS_FROM = 1e14
NANOSECONDS_FROM = 1e17
_ZONED = ("%Y-%m-%d %H:%M:%S%.f%:z", "%Y-%m-%d %H:%M%:z")
_PLAIN = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")


def identifier(column: str) -> pl.Expr:
    """Return the id as text without surrounding space; null when empty."""
    text = pl.col(column).cast(pl.String, strict=False).str.strip_chars()
    return pl.when(text != "").then(text)


def number(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return the finite number (f64), else null."""
    cell = pl.col(column)
    value = (cell.str.strip_chars() if dtype == pl.String else cell).cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value)


def seconds(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return Unix seconds (i64, rounded down) of a date, a time, a number or ISO 8601 text, else null.

    Numbers from 1e11 on are milliseconds, from 1e14 microseconds, from 1e17 nanoseconds. Times without a zone are UTC.
    """
    cell = pl.col(column)
    if dtype.is_temporal():
        return cell.cast(pl.Datetime("us"), strict=False).dt.epoch("s")
    numeric = _unix_seconds(number(column, dtype))
    return pl.coalesce([numeric, _iso_seconds(cell.str.strip_chars())]) if dtype == pl.String else numeric


def words(column: str, dtype: pl.DataType, *, sequence: bool, json_cells: bool = False) -> pl.Expr:
    """Return the cell as list[str]: a list as it is, text split on `|`, else on `,`; RecBole's token_seq on spaces."""
    text = pl.col(column).cast(pl.List(pl.String) if isinstance(dtype, pl.List) else pl.String, strict=False)
    if isinstance(dtype, pl.List):
        parts = text
    elif sequence:
        parts = text.str.split(" ")
    elif json_cells:
        parts = text.map_elements(_json_words, return_dtype=pl.List(pl.String))
    else:
        parts = pl.when(text.str.contains("|", literal=True)).then(text.str.split("|")).otherwise(text.str.split(","))
    stripped = parts.list.eval(pl.element().str.strip_chars())
    return stripped.list.eval(pl.element().filter(pl.element() != "")).fill_null([])


def _json_words(cell: str) -> list[str]:
    """Return a JSON list's entries as text; other cells are split as in the text formats."""
    if cell.startswith("["):
        return [entry if isinstance(entry, str) else json.dumps(entry) for entry in json.loads(cell)]
    return cell.split("|" if "|" in cell else ",")


def _unix_seconds(value: pl.Expr) -> pl.Expr:
    size = value.abs()
    unit = (
        pl.when(size >= NANOSECONDS_FROM)
        .then(1e9)
        .when(size >= MICROSECONDS_FROM)
        .then(1e6)
        .when(size >= MILLISECONDS_FROM)
        .then(1e3)
        .otherwise(1.0)
    )
    return (value / unit).floor().cast(pl.Int64, strict=False)


def _iso_seconds(text: pl.Expr) -> pl.Expr:
    spaced = text.str.replace("T", " ", literal=True).str.replace(r"[Zz]$", "+00:00")
    zoned = [spaced.str.to_datetime(f, strict=False, time_unit="us", time_zone="UTC") for f in _ZONED]
    plain = [spaced.str.to_datetime(f, strict=False, time_unit="us") for f in _PLAIN]
    day = spaced.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    return pl.coalesce([found.dt.epoch("s") for found in [*zoned, *plain, day]])
