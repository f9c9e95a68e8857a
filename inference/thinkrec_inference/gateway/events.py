# SPDX-License-Identifier: Apache-2.0
"""Feedback that is on disk before it is acknowledged: JSON lines in segments, fsync, idempotent by eventId.

Appends share an fsync (group commit): a writer thread takes all that has come together while it stored the batch
before, and answers everybody in it at once. Nobody waits for company: a lone append is written immediately.

The same eventId with the same content is a duplicate and changes nothing; with other content it is a conflict. Ids are
remembered in bounded memory (`known_ids`), as far back as the folder reaches at a start. What is sent again after that,
or to another replica, is stored again: a reader of all segments removes duplicates by eventId.

The folder is bounded too: beyond `max_bytes` feedback gets 503 until the shipper has made room. Exposures, which nobody
waits for, are let go before that (from nine tenths on, so that feedback has the rest) and counted; they are written
with the next feedback, or after a second, and a kill may lose that second of them.

A start opens a new segment, so a line that a crash cut short stays the last one of its file and is skipped.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from thinkrec_crds.event_log import Exposure, Mirrored
from thinkrec_inference.gateway.known_ids import REMEMBERED, KnownIds, fingerprint
from thinkrec_inference.gateway.schemas import Event
from thinkrec_inference.gateway.segments import Segments, lock_as_writer, segment_paths, whole_lines
from thinkrec_inference.refusal import Refused

log = logging.getLogger(__name__)
SEGMENT_BYTES = 64 * 1024 * 1024
SEGMENT_SECONDS = 60.0
FOLDER_BYTES = 512 * 1024 * 1024
QUEUE_BYTES = 16 * 1024 * 1024
"""Waiting for a disk that hangs, at most; then feedback gets 503."""
EXPOSURE_QUEUE_BYTES = QUEUE_BYTES // 4
EXPOSURE_SHARE = 0.9
"""Of the folder's limit, beyond which exposures are let go."""
LINGER_SECONDS = 1.0
"""Exposures alone wait so long for company: an fsync each would keep a disk busy for lines that nobody waits for."""
RECOUNT_SECONDS = 0.25
"""A full folder is measured again at most this often."""
RETRY_SECONDS = 30
_TIME_MARK = ', "receivedAt"'

Answer = tuple[int, int]
"""(accepted, duplicates)."""


@dataclass(frozen=True, slots=True)
class Line:
    """One event as it will be stored."""

    event_id: str
    event: int
    """Fingerprint of the id."""
    content: int
    """Fingerprint of everything but the time of reception."""
    data: bytes


@dataclass(slots=True)
class Waiter:
    """A caller who wants to know that its events are on disk."""

    answer: Answer
    after: Batch | None
    """An earlier batch that holds some of them: should it fail, this caller must send them again."""
    future: Future[Answer] = field(default_factory=Future)


@dataclass(slots=True)
class Batch:
    """What will share an fsync."""

    lines: list[bytes] = field(default_factory=list)
    contents: dict[int, int] = field(default_factory=dict)
    waiters: list[Waiter] = field(default_factory=list)
    size: int = 0
    due: float = float("inf")
    """When it is written at the latest (monotonic seconds)."""
    error: Refused | None = None

    def add(self, data: bytes) -> None:
        """Take one line."""
        self.lines.append(data)
        self.size += len(data)


class EventLog:
    """An append-only folder of segments; thread-safe. One per folder and process."""

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
        max_bytes: int = FOLDER_BYTES,
        remembered: int = REMEMBERED,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.max_bytes = max_bytes
        self.segments = Segments(folder, segment_bytes, segment_seconds)
        self._lock = lock_as_writer(folder)
        self._known = known_in(folder, remembered)
        self._used = self.segments.bytes_used()
        self._counted = 0.0
        self._gathering, self._writing = Batch(), Batch()
        self._changed = threading.Condition()
        self._closing = False
        self._writer: threading.Thread | None = None

    @property
    def bytes_used(self) -> int:
        """Return the folder's size; what was shipped since the last count is still in it."""
        return self._used

    def append(self, events: Sequence[Event]) -> Answer:
        """Write the new events and return (accepted, duplicates) once they are durable."""
        return self.submit(events).result()

    def submit(self, events: Sequence[Event]) -> Future[Answer]:
        """Queue the new events; the future is done once they are durable. It does not wait for the disk.

        A conflict (409) or a full folder or disk (503) stores nothing. 503 for a duplicate of what is just being
        written, and could not be, may come with new events that were stored: sending again is harmless.
        """
        lines = [_line(event) for event in events]
        with self._changed:
            if self._closing:
                raise Refused(503, "the gateway is going down", "Send the events again.", retry_after=1)
            fresh = self._fresh(lines)
            self._make_room(sum(len(line.data) for line in fresh))
            waiter = Waiter((len(fresh), len(lines) - len(fresh)), self._batch_before(lines))
            waiter.future.set_running_or_notify_cancel()  # a caller who leaves does not take back what is queued
            self._gathering.contents |= {line.event: line.content for line in fresh}
            for line in fresh:
                self._gathering.add(line.data)
            self._gathering.waiters.append(waiter)
            self._wake(0.0)
        return waiter.future

    def offer(self, record: Exposure | Mirrored) -> bool:
        """Queue a record of the gateway's own without waiting for anything; return whether there was room for it."""
        data = record.to_json().encode() + b"\n"
        most = EXPOSURE_SHARE * self.max_bytes - len(data)
        with self._changed:
            if self._closing or self._gathering.size + len(data) > EXPOSURE_QUEUE_BYTES:
                return False
            if self._used > most and self._recount() > most:
                return False
            self._used += len(data)
            self._gathering.add(data)
            self._wake(LINGER_SECONDS)
        return True

    def close(self) -> None:
        """Write what is queued and close the open segment."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        if self._writer is not None:
            self._writer.join()
        os.close(self._lock)

    def _fresh(self, lines: Sequence[Line]) -> list[Line]:
        fresh: dict[int, Line] = {}
        for line in lines:
            known = self._content_of(line.event)
            if known is None and line.event in fresh:
                known = fresh[line.event].content
            if known is None:
                fresh[line.event] = line
            elif known != line.content:
                raise Refused(
                    409,
                    f"event {line.event_id!r} was sent before with other content",
                    "Give every event an eventId of its own, and send an event again unchanged.",
                )
        return list(fresh.values())

    def _content_of(self, event: int) -> int | None:
        found = (self._known.get(event), self._writing.contents.get(event), self._gathering.contents.get(event))
        return next((content for content in found if content is not None), None)

    def _batch_before(self, lines: Sequence[Line]) -> Batch | None:
        return self._writing if any(line.event in self._writing.contents for line in lines) else None

    def _make_room(self, size: int) -> None:
        """Count `size` bytes as used; Refused (503) when the folder or the queue would exceed its limit."""
        if self._used + size > self.max_bytes and self._recount() + size > self.max_bytes:
            raise Refused(
                503,
                f"the events folder holds {self._used} of at most {self.max_bytes} bytes",
                "Send them again later. They wait there for the store: look at the log of the container that ships "
                "them, or raise THINKREC_EVENTS_MAX_BYTES.",
                retry_after=RETRY_SECONDS,
            )
        if self._gathering.size + size > QUEUE_BYTES:
            raise Refused(503, "the disk of the events folder does not keep up", "Send them later.", retry_after=5)
        self._used += size

    def _recount(self) -> int:
        """Return the folder's size and what is queued; measured now, unless it has just been."""
        if time.monotonic() - self._counted >= RECOUNT_SECONDS:
            self._used = self.segments.bytes_used() + self._gathering.size + self._writing.size
            self._counted = time.monotonic()
        return self._used

    def _wake(self, patience: float) -> None:
        """Have the writer look, after `patience` seconds at the latest; start it with the first line."""
        self._gathering.due = min(self._gathering.due, time.monotonic() + patience)
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_all, name="event-log", daemon=True)
            self._writer.start()
        self._changed.notify_all()

    def _write_all(self) -> None:
        while (batch := self._next()) is not None:
            error = self._write(batch)
            with self._changed:
                batch.error = error
                if error is None:
                    self._known.update(batch.contents)
                else:
                    self._counted = 0.0  # what was cut off again, or not, must be measured
                self._writing = Batch()
            _answer(batch)
        self.segments.close()

    def _next(self) -> Batch | None:
        """Wait for a batch that is due, or an empty one when a segment is; None at the end."""
        with self._changed:
            while not self._closing and (wait := self._patience()) > 0:
                self._changed.wait(None if wait == float("inf") else wait)
            if self._closing and not self._gathering.lines and not self._gathering.waiters:
                return None
            self._writing, self._gathering = self._gathering, Batch()
            return self._writing

    def _patience(self) -> float:
        closes_in = self.segments.closes_in()
        return min(self._gathering.due - time.monotonic(), float("inf") if closes_in is None else closes_in)

    def _write(self, batch: Batch) -> Refused | None:
        try:
            if batch.lines:
                self.segments.write(b"".join(batch.lines))
            else:
                self.segments.close_if_due()
        except OSError as error:
            log.warning("%d bytes of events cannot be stored: %s", batch.size, error)
            return _not_stored(str(error.strerror))
        except Exception:  # a defect: were the thread to end by it, all later appends would wait for ever
            log.exception("%d bytes of events cannot be stored", batch.size)
            return _not_stored("a defect of the gateway, see its log")
        return None


def _not_stored(why: str) -> Refused:
    remedy = "Send them again later; free space in the events folder."
    return Refused(503, f"the events cannot be stored: {why}", remedy, retry_after=RETRY_SECONDS)


def read_events(folder: Path) -> Iterator[Event]:
    """Yield the stored feedback, oldest segment first; a line that is none is skipped with a warning."""
    for path in segment_paths(folder):
        lines, rest = whole_lines(path)
        if rest:
            log.warning("%s ends in the middle of a line of %d bytes; it was never acknowledged", path, len(rest))
        for number, line in enumerate(lines, 1):
            try:
                body = {key: value for key, value in dict(json.loads(line)).items() if key != "receivedAt"}
                if "record" not in body:
                    yield Event.model_validate(body)
            except (TypeError, ValueError):  # pydantic's is a ValueError
                log.warning("line %d of %s is no event of this version and is skipped", number, path)


def known_in(folder: Path, limit: int) -> KnownIds:
    """Return the ids of the newest feedback in the folder, as many as are remembered anyway."""
    newest: list[dict[int, int]] = []
    for path in reversed(segment_paths(folder)):
        newest.append(_contents(path))
        if sum(map(len, newest)) >= limit // 2:
            break
    known = KnownIds(limit)
    for contents in reversed(newest):
        known.update(contents)
    return known


def _contents(path: Path) -> dict[int, int]:
    """Return id -> content of a segment, from the text of its lines: a start must not take minutes."""
    found = {}
    for line in whole_lines(path)[0]:
        content, mark, _ = line.rpartition(_TIME_MARK.encode())
        if mark and line.startswith(b'{"eventId": '):
            try:
                event_id = json.loads(content + b"}")["eventId"]
            except ValueError:
                continue
            found[fingerprint(event_id.encode())] = fingerprint(content)
    return found


def _line(event: Event) -> Line:
    body = event.model_dump(mode="json", by_alias=True, exclude_none=True)
    content = json.dumps(body, ensure_ascii=False)[:-1].encode()
    data = content + f'{_TIME_MARK}: "{datetime.now(UTC).isoformat()}"}}\n'.encode()
    return Line(event.event_id, fingerprint(event.event_id.encode()), fingerprint(content), data)


def _answer(batch: Batch) -> None:
    for waiter in batch.waiters:
        error = batch.error or (waiter.after.error if waiter.after is not None else None)
        if error is None:
            waiter.future.set_result(waiter.answer)
        else:
            waiter.future.set_exception(Refused(error.detail.status, str(error), error.detail.remedy, retry_after=30))
