# SPDX-License-Identifier: Apache-2.0
"""The files of the event log: one open segment, written and made durable by one thread, closed by size or age.

The names, and the lock that says whether a segment is still written, are a contract with whoever ships the segments
(`thinkrec_crds.event_log`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from thinkrec_crds.event_log import OPEN_SUFFIX, SEGMENT_PATTERN, WRITERS_LOCK, closed_name


@dataclass(slots=True)
class Segments:
    """The folder and its open segment. Not thread-safe."""

    folder: Path
    segment_bytes: int
    """A segment is closed beyond this size."""
    segment_seconds: float
    """And this long after its first line, so that quiet hours reach the store too."""
    clock: Callable[[], float] = time.monotonic
    _file: FileIO | None = None
    _path: Path | None = None
    _begun: float = 0.0

    def write(self, data: bytes) -> None:
        """Append `data` and return when it is on disk. OSError: nothing of it is left in the folder."""
        self.close_if_due()
        file = self._open()
        start = file.tell()
        try:
            _write_all(file, data)
            os.fsync(file.fileno())
        except OSError:
            # No further line goes into this file. Half a line may be left in it, and after a failed fsync the kernel
            # may call lost pages clean, so that a later success would prove nothing.
            with contextlib.suppress(OSError):
                file.truncate(start)
            file.seek(start)
            self.close()
            raise

    def closes_in(self) -> float | None:
        """Return the seconds until the open segment is due, or None without one."""
        return None if self._file is None else max(0.0, self._begun + self.segment_seconds - self.clock())

    def close_if_due(self) -> None:
        """Close the open segment when it is big or old enough."""
        if self._file is not None and (self._file.tell() >= self.segment_bytes or self.closes_in() == 0):
            self.close()

    def close(self) -> None:
        """Close the open segment: its new name says that it is whole. An empty one is removed."""
        if self._file is None or self._path is None:
            return
        with contextlib.suppress(FileNotFoundError):  # somebody emptied the folder
            if self._file.tell() == 0:
                self._path.unlink()
            else:
                self._path.rename(self._path.with_name(closed_name(self._path.name)))
                _sync_folder(self.folder)
        self._file.close()  # lets the lock go, after the renaming: an unlocked open segment is a dead gateway's
        self._file, self._path = None, None

    def bytes_used(self) -> int:
        """Return the size of everything in the folder, hidden files included."""
        total = 0
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # shipped meanwhile
                    total += entry.stat().st_size
        return total

    def _open(self) -> FileIO:
        if self._file is None:
            name = f"events-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{os.getpid()}-{secrets.token_hex(4)}{OPEN_SUFFIX}"
            hidden = self.folder / f".{name}"
            file = FileIO(hidden, "x")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # before anybody can see it under its name
                self._path = hidden.rename(self.folder / name)
                _sync_folder(self.folder)
            except OSError:
                file.close()
                raise
            self._file, self._begun = file, self.clock()
        return self._file


def lock_as_writer(folder: Path) -> int:
    """Say that this folder has a writer, until the returned descriptor is closed or the process is gone."""
    descriptor = os.open(folder / WRITERS_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def segment_paths(folder: Path) -> list[Path]:
    """Return all segments, oldest first."""
    return sorted(folder.glob(SEGMENT_PATTERN))


def whole_lines(path: Path) -> tuple[list[bytes], bytes]:
    """Return a segment's lines without their ends, and what stands behind the last end; empty when it was shipped."""
    try:
        *lines, rest = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], b""
    return lines, rest


def _write_all(file: FileIO, data: bytes) -> None:
    """Write every byte: an unbuffered write may stop short when the disk fills up."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _sync_folder(folder: Path) -> None:
    """Make names durable too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
