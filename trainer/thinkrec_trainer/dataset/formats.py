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
import uuid
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


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one role."""

    role: Role
    kind: Format
    origin: tuple[Path, ...]
    """As the user named them: messages speak of these."""
    files: tuple[Path, ...]
    """To read: `origin`, with those that are not UTF-8 replaced by a decoded copy."""

    @property
    def latin1_files(self) -> int:
        """How many were decoded as Latin-1."""
        return sum(old != new for old, new in zip(self.origin, self.files, strict=True))

    @property
    def shown(self) -> str:
        """The origin in a message."""
        return str(self.origin[0]) if len(self.origin) == 1 else f"{self.origin[0].parent} ({len(self.origin)} files)"


def open_source(path: Path, kind: Format, role: Role, scratch: Path) -> Source:
    """Find the files of a source and make text readable as UTF-8; copies go to `scratch`.

    A file that is not UTF-8 is read as Latin-1, with a warning. Errors: BadInput (no file, several where one is meant,
    empty, compressed).
    """
    found = _source_files(path, kind, role)
    for file in found:
        _check_plain(file, kind, role)
    files = [file if kind == "Parquet" or _is_utf8(file) else _decoded(file, scratch) for file in found]
    return Source(role, kind, tuple(found), tuple(files))


def _source_files(path: Path, kind: Format, role: Role) -> list[Path]:
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


def open_table(source: Source, wanted: Mapping[str, str]) -> Table:
    """Open lazily; `wanted` maps what the user's spec calls a column (`columns.user`) to its name in the file.

    Errors: BadInput listing the columns present when one is missing, or when the file cannot be read.
    """
    with explained(source):
        if source.kind == "JSONLines":
            return _open_json_lines(source, wanted)
        table = _SCANNERS[source.kind](list(source.files))
        present = {_bare(name): name for name in table.frame.collect_schema().names()}
        _check_columns(wanted, list(present), source)
        columns = [pl.col(present[name]).alias(name) for name in dict.fromkeys(wanted.values())]
        return Table(table.frame.select(columns), table.sequences)


def _check_columns(wanted: Mapping[str, str], present: list[str], source: Source) -> None:
    """Raise BadInput naming every missing column, the field that asks for it, and the closest name there is."""
    missing = {field: name for field, name in wanted.items() if name not in present}
    if missing:
        lines = [f"{field}: {name!r}{_closest(name, present)}" for field, name in missing.items()]
        raise BadInput(f"{source.role}: {source.shown} has no column {'; '.join(lines)}. Columns present: {present}")


@contextlib.contextmanager
def explained(source: Source) -> Iterator[None]:
    """Turn a reader's failure into BadInput with the file and the format."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadInput(f"{source.role}: {source.shown} cannot be read as {source.kind}: {reason}") from error


def _scan_parquet(files: list[Path]) -> Table:
    return Table(pl.scan_parquet(files))


def _scan_csv(files: list[Path]) -> Table:
    return Table(pl.scan_csv(files, infer_schema=False))


def _scan_recbole(files: list[Path]) -> Table:
    frame = pl.scan_csv(files, infer_schema=False, separator="\t", quote_char=None)
    sequences = {_bare(name) for name in frame.collect_schema().names() if name.endswith(":token_seq")}
    return Table(frame, frozenset(sequences))


_SCANNERS = {"Parquet": _scan_parquet, "CSV": _scan_csv, "RecBole": _scan_recbole}


def _open_json_lines(source: Source, wanted: Mapping[str, str]) -> Table:
    """Each line is matched by path, so that a broken line is one broken row and not a broken file."""
    _check_columns(wanted, _first_keys(source), source)
    line = pl.col("line")
    columns = [line.str.json_path_match(f"$['{_quoted(name)}']").alias(name) for name in dict.fromkeys(wanted.values())]
    malformed = line.str.json_path_match("$").fill_null("").str.starts_with("{").not_().alias(MALFORMED)
    lines = pl.concat([pl.scan_lines(path, name="line") for path in source.files]).filter(line.str.strip_chars() != "")
    return Table(lines.select([*columns, malformed]), json_cells=True)


def _first_keys(source: Source) -> list[str]:
    with source.files[0].open("rb") as handle:
        for line in handle:
            try:
                body = json.loads(line)
            except ValueError:
                continue
            if isinstance(body, dict):
                return list(body)
    raise BadInput(
        f"{source.role}: {source.shown} holds no line that is a JSON object: JSONLines wants one object per line"
    )


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


def _decoded(path: Path, scratch: Path) -> Path:
    _log.warning("%s is not valid UTF-8 and is read as Latin-1", path)
    target = scratch / f"{uuid.uuid4().hex}-{path.name}"
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
