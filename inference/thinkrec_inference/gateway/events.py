# SPDX-License-Identifier: Apache-2.0
"""Feedback that is on disk before it is acknowledged: JSON lines in segments, fsync, idempotent by eventId.

A start opens a new segment, so a line that a crash cut short stays the last one of its file and is skipped. The same
eventId with the same content is a duplicate and changes nothing; with other content it is a conflict. Ids are
remembered as far back as the segments in the folder reach; replicas have folders of their own, and a reader of all of
them removes duplicates by eventId.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from thinkrec_inference.gateway.schemas import Event
from thinkrec_inference.refusal import Refused

log = logging.getLogger(__name__)
SEGMENT_BYTES = 64 * 1024 * 1024
"""A segment is closed beyond this size."""
DIGEST_BYTES = 16
"""Enough of a SHA-256 to tell two contents apart; one such digest per known event stays in memory."""


class EventLog:
    """An append-only folder of segments; thread-safe."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self.segment_bytes = segment_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._known = {event.event_id: _digest(event) for event in read_events(folder)}
        self._segment: FileIO | None = None

    def append(self, events: Sequence[Event]) -> tuple[int, int]:
        """Write the new events and return (accepted, duplicates) once they are durable.

        All or nothing: a conflict (409) or a full disk (503) leaves the log as it was.
        """
        with self._lock:
            fresh = self._fresh(events)
            if fresh:
                self._write(fresh)
                self._known.update({event_id: _digest(event) for event_id, event in fresh.items()})
            return len(fresh), len(events) - len(fresh)

    def close(self) -> None:
        """Close the open segment."""
        with self._lock:
            if self._segment is not None:
                self._segment.close()
                self._segment = None

    def _fresh(self, events: Sequence[Event]) -> dict[str, Event]:
        fresh: dict[str, Event] = {}
        for event in events:
            known = self._known.get(event.event_id) or (
                _digest(fresh[event.event_id]) if event.event_id in fresh else None
            )
            if known is None:
                fresh[event.event_id] = event
            elif known != _digest(event):
                raise Refused(
                    409,
                    f"event {event.event_id!r} was sent before with other content",
                    "Give every event an eventId of its own, and send an event again unchanged.",
                )
        return fresh

    def _write(self, fresh: dict[str, Event]) -> None:
        received = datetime.now(UTC).isoformat()
        data = b"".join(_line(event, received) for event in fresh.values())
        segment = self._open()
        start = segment.tell()
        try:
            _write_all(segment, data)
            os.fsync(segment.fileno())
        except OSError as error:
            segment.truncate(start)
            segment.seek(start)
            raise Refused(
                503,
                f"the events cannot be stored: {error.strerror}",
                "Send them again later; free space in the events folder.",
                retry_after=30,
            ) from error

    def _open(self) -> FileIO:
        if self._segment is not None and self._segment.tell() >= self.segment_bytes:
            self._segment.close()
            self._segment = None
        if self._segment is None:
            name = f"events-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{os.getpid()}.jsonl"
            self._segment = FileIO(self.folder / name, "x")
            _sync_folder(self.folder)
        return self._segment


def read_events(folder: Path) -> Iterator[Event]:
    """Yield the stored events, oldest segment first; a cut last line is skipped with a warning."""
    for path in sorted(folder.glob("events-*.jsonl")):
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                log.warning("%s ends in the middle of a line of %d bytes; it was never acknowledged", path, len(line))
                continue
            body = json.loads(line)
            body.pop("receivedAt", None)
            yield Event.model_validate(body)


def _write_all(segment: FileIO, data: bytes) -> None:
    """Write every byte: an unbuffered write may stop short when the disk fills up."""
    rest = memoryview(data)
    while rest:
        rest = rest[segment.write(rest) :]


def _line(event: Event, received: str) -> bytes:
    body = event.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps({**body, "receivedAt": received}, ensure_ascii=False).encode() + b"\n"


def _digest(event: Event) -> bytes:
    return hashlib.sha256(event.to_json().encode()).digest()[:DIGEST_BYTES]


def _sync_folder(folder: Path) -> None:
    """Make the new file's name durable too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
