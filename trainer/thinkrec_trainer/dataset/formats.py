# SPDX-License-Identifier: Apache-2.0
"""The four input formats as lazy tables of raw columns: Parquet, CSV, JSON Lines, RecBole atomic files.

Text formats deliver strings only; what a value means is decided in values.py, where a bad one can be counted. A source
is one file, or a folder whose files with the format's suffix are read in name order.
"""

from __future__ import annotations

import codecs
import contextlib
import difflib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from thinkrec_trainer.errors import BadInput

Format = Literal["Parquet", "CSV", "JSONLines", "RecBole"]
Role = Literal["ratings", "items"]

SUFFIXES: dict[Format, tuple[str, ...]] = {
    "Parquet": (".parquet", ".pq"),
    "CSV": (".csv",),
    "JSONLines": (".jsonl", ".ndjson"),
    "RecBole": (),
}
RECBOLE_SUFFIX: dict[Role, str] = {"ratings": ".inter", "items": ".item"}
CHUNK_BYTES = 1 << 20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd", b"PK": "zip"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Table:
    """A source opened lazily: one column per wanted name, raw values."""

    frame: pl.LazyFrame
    """The wanted columns under their own names and, for JSON Lines, `__malformed__`: the line is not a JSON object."""
    sequences: frozenset[str] = frozenset()
    """Columns whose cells hold several words separated by spaces (RecBole `token_seq`)."""
    json_cells: bool = False
    """Lists and objects in cells are JSON text (JSON Lines)."""


MALFORMED = "__malformed__"


def source_files(path: Path, kind: Format, role: Role) -> list[Path]:
    """Return the files of a source in name order. BadInput when there is none, or several where one is meant."""
    if path.is_file():
        return [path]
    suffixes = (RECBOLE_SUFFIX[role],) if kind == "RecBole" else SUFFIXES[kind]
    found = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in suffixes)
    if not found:
        there = sorted(p.name for p in path.iterdir())[:10]
        raise BadInput(f"{role}: folder {path} has no {' or '.join(suffixes)} file for format {kind}; it has {there}")
    if kind == "RecBole" and len(found) > 1:
        raise BadInput(
            f"{role}: folder {path} has several {suffixes[0]} files, {[p.name for p in found]}: name one file"
        )
    return found


def open_table(files: list[Path], kind: Format, wanted: Mapping[str, str], role: Role) -> Table:
    """Open `files` lazily; `wanted` maps what the user's spec calls a column (`columns.user`) to its name in the file.

    Errors: BadInput listing the columns present when one is missing, when the file is empty, compressed or unreadable.
    """
    for path in files:
        _check_plain(path, kind, role)
    with explained(files, kind, role):
        if kind == "JSONLines":
            return _open_json_lines(files, wanted, role)
        table = _SCANNERS[kind](files)
        present = {_bare(name): name for name in table.frame.collect_schema().names()}
        check_columns(wanted, list(present), files[0], role)
        columns = [pl.col(present[name]).alias(name) for name in dict.fromkeys(wanted.values())]
        return Table(table.frame.select(columns), table.sequences)


def check_columns(wanted: Mapping[str, str], present: list[str], path: Path, role: Role) -> None:
    """Raise BadInput naming every missing column, the field that asks for it, and the closest name there is."""
    missing = {field: name for field, name in wanted.items() if name not in present}
    if missing:
        lines = [f"{field}: {name!r}{_closest(name, present)}" for field, name in missing.items()]
        raise BadInput(f"{role}: {path} has no column {'; '.join(lines)}. Columns present: {present}")


@contextlib.contextmanager
def explained(files: list[Path], kind: Format, role: Role) -> Iterator[None]:
    """Turn a reader's failure into BadInput with the file and the format."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        names = files[0] if len(files) == 1 else f"{files[0].parent} ({len(files)} files)"
        reason = " ".join(str(error).split())[:300]
        raise BadInput(f"{role}: {names} cannot be read as {kind}: {reason}. Check the format and the file") from error


def as_utf8(files: list[Path], kind: Format, scratch: Path) -> tuple[list[Path], int]:
    """Return the files with those that are not UTF-8 replaced by a copy decoded as Latin-1, and how many there were."""
    if kind == "Parquet":
        return files, 0
    out = [path if _is_utf8(path) else _transcode(path, scratch / f"{i}-{path.name}") for i, path in enumerate(files)]
    replaced = [old for old, new in zip(files, out, strict=True) if old != new]
    for path in replaced:
        _log.warning("%s is not valid UTF-8 and is read as Latin-1", path)
    return out, len(replaced)


def _scan_parquet(files: list[Path]) -> Table:
    return Table(pl.scan_parquet(files))


def _scan_csv(files: list[Path]) -> Table:
    return Table(pl.scan_csv(files, infer_schema=False))


def _scan_recbole(files: list[Path]) -> Table:
    frame = pl.scan_csv(files, infer_schema=False, separator="\t", quote_char=None)
    sequences = {_bare(name) for name in frame.collect_schema().names() if name.endswith(":token_seq")}
    return Table(frame, frozenset(sequences))


_SCANNERS = {"Parquet": _scan_parquet, "CSV": _scan_csv, "RecBole": _scan_recbole}


def _open_json_lines(files: list[Path], wanted: Mapping[str, str], role: Role) -> Table:
    """Each line is matched by path, so that a broken line is one broken row and not a broken file."""
    check_columns(wanted, _first_keys(files[0], role), files[0], role)
    line = pl.col("line")
    columns = [line.str.json_path_match(f"$['{_quoted(name)}']").alias(name) for name in dict.fromkeys(wanted.values())]
    malformed = line.str.json_path_match("$").fill_null("").str.starts_with("{").not_().alias(MALFORMED)
    lines = pl.concat([pl.scan_lines(path, name="line") for path in files]).filter(line.str.strip_chars() != "")
    return Table(lines.select([*columns, malformed]), json_cells=True)


def _first_keys(path: Path, role: Role) -> list[str]:
    with path.open("rb") as handle:
        for line in handle:
            try:
                body = json.loads(line)
            except ValueError:
                continue
            if isinstance(body, dict):
                return list(body)
    raise BadInput(f"{role}: {path} holds no line that is a JSON object: JSONLines wants one object per line")


def _check_plain(path: Path, kind: Format, role: Role) -> None:
    with path.open("rb") as handle:
        head = handle.read(2)
    if not head:
        raise BadInput(f"{role}: {path} is empty: it needs at least a header and one row")
    if kind != "Parquet" and head in _COMPRESSED:
        raise BadInput(f"{role}: {path} is {_COMPRESSED[head]}-compressed: give it uncompressed, or as Parquet")


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as handle:
            while chunk := handle.read(CHUNK_BYTES):
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _transcode(path: Path, target: Path) -> Path:
    with path.open(encoding="latin-1", newline="") as source, target.open("w", encoding="utf-8", newline="") as out:
        while chunk := source.read(CHUNK_BYTES):
            out.write(chunk)
    return target


def _bare(name: str) -> str:
    """Return a RecBole header's name without its type; other names have no such suffix."""
    head, colon, kind = name.rpartition(":")
    return head if colon and kind in ("token", "token_seq", "float", "float_seq") else name


def _quoted(name: str) -> str:
    return name.replace("\\", "\\\\").replace("'", "\\'")


def _closest(name: str, present: list[str]) -> str:
    lowered = {other.lower(): other for other in present}
    match = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f" (did you mean {lowered[match[0]]!r}?)" if match else ""
