# SPDX-License-Identifier: Apache-2.0
"""`python -m thinkrec_trainer ship-events`: closed segments of a folder become tables in the store, then they go.

It runs beside a gateway and shares its folder; it has the store's credentials, which the gateway never sees. A segment
is removed only when all its tables are stored. Killed before that, the next round stores them again under the same
names with the same content. While the store is away nothing is removed, attempts become rarer, and the folder's limit
is the gateway's matter.

In the end (SIGTERM, or --final) it also takes what a gateway leaves open, as soon as that has let go of it.
"""

from __future__ import annotations

import fcntl
import logging
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from thinkrec_crds.artifact import ExitCode
from thinkrec_crds.event_log import SEGMENT_PATTERN, WRITERS_LOCK, ShipProgress, closed_name, is_open
from thinkrec_trainer.errors import BadInput, StageError, Temporary
from thinkrec_trainer.events.layout import SCHEMAS, table_name, unreadable_name
from thinkrec_trainer.events.segment import Tables, read_segment, segment_id
from thinkrec_trainer.logs import masked, secret_values
from thinkrec_trainer.store import Blobs

_log = logging.getLogger(__name__)
FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 300.0
"""Attempts become no rarer than this: a store that comes back is used again within five minutes."""
POLL_SECONDS = 0.2


@dataclass(slots=True)
class Counts:
    """What was shipped since the start."""

    segments: int = 0
    events: int = 0
    exposures: int = 0
    mirrored: int = 0
    unreadable: int = 0

    def add(self, tables: Tables) -> None:
        """Count one segment."""
        self.segments += 1
        self.events += tables.rows("feedback")
        self.exposures += tables.rows("exposure")
        self.mirrored += tables.rows("mirror")
        self.unreadable += len(tables.unreadable)


@dataclass(slots=True)
class Shipper:
    """One folder, one store. Not thread-safe; two of them on one folder do each other no harm."""

    folder: Path
    blobs: Blobs
    model: str
    write: Callable[[str], None]
    """Takes a progress line."""
    counts: Counts = field(default_factory=Counts)
    failures: int = 0
    """Rounds that have failed in a row."""

    def round(self) -> StageError | None:
        """Ship what is closed, oldest first; return what stopped it, or None. Nothing is lost either way."""
        before, error = self.counts.segments, None
        for path in self._closed():
            error = self._try(path)
            if error is not None:
                break
        self.failures = 0 if error is None else self.failures + 1
        if error is not None or self.counts.segments > before:
            self._report(error)
        return error

    def left(self) -> list[Path]:
        """Return the segments in the folder, oldest first."""
        return sorted(self.folder.glob(SEGMENT_PATTERN))

    def retry_seconds(self, jitter: Callable[[], float] = random.random) -> float:
        """Return the wait after a failure: doubled each time up to a cap, of which a random half to all is waited."""
        longest = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(self.failures - 1, 30))
        return longest * (0.5 + 0.5 * jitter())

    def _closed(self) -> Iterator[Path]:
        for path in self.left():
            if not is_open(path.name):
                yield path
            elif (taken := take_abandoned(path)) is not None:
                _log.warning("%s was left open by a gateway that is gone; its whole lines are shipped", path.name)
                yield taken

    def _try(self, path: Path) -> StageError | None:
        try:
            self._ship(path)
        except StageError as error:
            return error
        except FileNotFoundError:
            return None  # another shipper was faster
        except OSError as error:
            return Temporary(f"segment {path}: {error.strerror or error}")
        return None

    def _ship(self, path: Path) -> None:
        segment, tables = segment_id(path), read_segment(path)
        with tempfile.TemporaryDirectory(prefix="thinkrec-ship-") as scratch:
            for name, file in self._files(tables, segment, Path(scratch)):
                self.blobs.upload(name, file)
        path.unlink()
        self.counts.add(tables)
        if tables.cut:
            _log.info("%s ended in the middle of a line of %d bytes: never acknowledged", path.name, tables.cut)
        if tables.unreadable:
            told = unreadable_name(self.model, segment)
            _log.warning("%d lines of %s are no events; they are in %s", len(tables.unreadable), path.name, told)

    def _files(self, tables: Tables, segment: str, scratch: Path) -> Iterator[tuple[str, Path]]:
        """Yield (name in the store, local file) of everything that a segment becomes; each file is used at once."""
        file = scratch / "file"
        for kind in SCHEMAS:
            for hour, part, table in tables.parts(kind):
                table.write_parquet(file, compression="zstd")
                yield table_name(self.model, kind, hour, part, segment), file
        if tables.unreadable:
            file.write_bytes(b"".join(tables.unreadable))
            yield unreadable_name(self.model, segment), file

    def _report(self, error: StageError | None) -> None:
        sizes, oldest = _waiting(self.left())
        retry = None
        if error is not None:
            retry = round(self.retry_seconds(lambda: 1.0), 1)
            _log.warning(
                "%d segments (%d bytes) wait; attempt %d failed, the next one is in %g s at the latest: %s",
                *(len(sizes), sum(sizes), self.failures, retry, error),
            )
        progress = ShipProgress(
            segments=self.counts.segments,
            events=self.counts.events,
            exposures=self.counts.exposures,
            mirrored=self.counts.mirrored,
            unreadable=self.counts.unreadable,
            waiting_segments=len(sizes),
            waiting_bytes=sum(sizes),
            oldest_seconds=round(oldest, 1),
            retry_seconds=retry,
            message=masked(str(error or ""), secret_values()),
        )
        self.write(progress.to_json())


def take_abandoned(path: Path) -> Path | None:
    """Close an open segment that no gateway holds any more; return its new path, or None while it is held."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return path.rename(path.with_name(closed_name(path.name)))
    return None  # its gateway has just closed it


def has_writers(folder: Path) -> bool:
    """Return whether a gateway lives that may still write into the folder."""
    with suppress(FileNotFoundError), (folder / WRITERS_LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def ship_once(shipper: Shipper) -> int:
    """Ship what is closed now; return the exit code."""
    error = shipper.round()
    return ExitCode.DONE if error is None else error.exit_code


def ship_rest(shipper: Shipper, seconds: float) -> int:
    """Ship everything, waiting up to `seconds` for gateways to let go and for the store; return the exit code."""
    deadline = time.monotonic() + seconds
    while True:
        error = shipper.round()
        if not shipper.left() and not has_writers(shipper.folder):
            return ExitCode.DONE
        pause = POLL_SECONDS if error is None else shipper.retry_seconds()
        if time.monotonic() + pause > deadline:
            break
        time.sleep(pause)
    _log.error(
        "%d segments stay in %s%s: start again with --final, or keep the folder",
        *(len(shipper.left()), shipper.folder, ", which a gateway still writes to" * has_writers(shipper.folder)),
    )
    return ExitCode.TEMPORARY if error is None else error.exit_code


def ship_until_stopped(shipper: Shipper, interval: float, grace: float) -> int:
    """Ship until SIGTERM or SIGINT, then what is left; return the exit code.

    A store that refuses (wrong credentials, no bucket) is tried again like one that is away: were this container to
    end, its pod would no longer be ready, and the gateway beside it would lose its traffic.
    """
    with _stopping() as stopped:
        while not stopped.is_set():
            error = shipper.round()
            stopped.wait(interval if error is None else shipper.retry_seconds())
    return ship_rest(shipper, grace)


def require_folder(folder: Path) -> None:
    """Raise BadInput where there is no folder to ship from."""
    if not folder.is_dir():
        raise BadInput(f"--folder {folder} is no folder: give the gateway's THINKREC_EVENTS_DIR")


def _waiting(paths: list[Path]) -> tuple[list[int], float]:
    """Return the sizes of the segments that are still there, and the age of the oldest in seconds."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            found.append(path.stat())
    return [stat.st_size for stat in found], max((time.time() - stat.st_mtime for stat in found), default=0.0)


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and SIGINT set."""
    arrived = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        arrived.set()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield arrived
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
