# SPDX-License-Identifier: Apache-2.0
"""Unfinished work in the store: `<parent of the artifact>/.checkpoints/<key>/<name>/`, files first, digests last.

A name is a sequence number and a random part, so that two attempts of one stage never write into the same checkpoint.

The newest whole checkpoint wins; a damaged one is passed over with a warning. A published artifact needs none, so the
protocol discards them then.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pydantic

from thinkrec_crds.artifact import FileEntry
from thinkrec_crds.contract import Contract
from thinkrec_crds.stages import StageSpec
from thinkrec_trainer.errors import Corrupt, Interrupted
from thinkrec_trainer.store import Blobs, join, open_blobs, parent
from thinkrec_trainer.store.artifacts import describe_files, download_files

INDEX = "checkpoint.json"
KEPT = 2
"""The last whole one and, in case it is damaged, the one before."""

_NAME = re.compile(r"^\d{8}-[0-9a-f]{8}$")
_log = logging.getLogger(__name__)


class CheckpointIndex(Contract):
    """Written last: a checkpoint without it is not whole."""

    files: tuple[FileEntry, ...]


@dataclass(slots=True)
class Checkpoints:
    """The checkpoints of one key. `work` is a local scratch folder."""

    blobs: Blobs
    work: Path
    period_seconds: float
    resume: bool = True
    clock: Callable[[], float] = time.monotonic
    _stop: threading.Event = field(default_factory=threading.Event)
    _last: float = 0.0

    def __post_init__(self) -> None:
        self._last = self.clock()

    @property
    def interrupted(self) -> bool:
        """True once `interrupt` was called (by the protocol's signal handler)."""
        return self._stop.is_set()

    def interrupt(self) -> None:
        """Ask the stage to save and stop."""
        self._stop.set()

    def raise_if_interrupted(self) -> None:
        """Raise Interrupted when asked to stop."""
        if self.interrupted:
            raise Interrupted("stopped by a signal; what was saved is continued by the next attempt")

    def due(self) -> bool:
        """True when the period has passed since the start or the last save."""
        return self.clock() - self._last >= self.period_seconds

    def load(self) -> Path | None:
        """Return a local folder with the newest whole checkpoint, or None."""
        if not self.resume:
            return None
        for name in reversed(self._whole()):
            try:
                return self._fetch(name)
            except Corrupt as error:
                _log.warning("checkpoint %s/%s is passed over: %s", self.blobs.uri, name, error)
        return None

    def save(self, write: Callable[[Path], None]) -> None:
        """Store what `write` puts into an empty folder, then remove all but the last two checkpoints."""
        folder = self.work / "save"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write(folder)
        whole = self._whole()
        name = f"{_sequence(whole[-1]) + 1 if whole else 1:08d}-{uuid.uuid4().hex[:8]}"
        self._store(folder, name)
        self._remove([*whole, name][:-KEPT])
        self._last = self.clock()

    def discard(self) -> None:
        """Remove every checkpoint of this key."""
        self.blobs.delete([blob.name for blob in self.blobs.list()])

    def _whole(self) -> list[str]:
        names = (blob.name.partition("/") for blob in self.blobs.list())
        return sorted(head for head, _, rest in names if rest == INDEX and _NAME.match(head))

    def _fetch(self, name: str) -> Path:
        data = self.blobs.read(f"{name}/{INDEX}") or b""
        try:
            index = CheckpointIndex.from_json(data)
        except pydantic.ValidationError as error:
            raise Corrupt(f"{INDEX} does not parse") from error
        target = self.work / f"load-{name}"
        moved = [e.model_copy(update={"object": f"{name}/{e.object or e.path}"}) for e in index.files]
        download_files(self.blobs, moved, target)
        return target

    def _store(self, folder: Path, name: str) -> None:
        entries = describe_files(folder, self.blobs)
        for entry in entries:
            self.blobs.upload(f"{name}/{entry.object or entry.path}", folder / entry.path)
        self.blobs.create(f"{name}/{INDEX}", CheckpointIndex(files=entries).to_json().encode())

    def _remove(self, names: list[str]) -> None:
        for name in names:
            blobs = [blob.name for blob in self.blobs.list(f"{name}/")]
            self.blobs.delete(sorted(blobs, key=lambda blob: not blob.endswith(INDEX)))  # the index goes first


def _sequence(name: str) -> int:
    return int(name.partition("-")[0])


def open_checkpoints(spec: StageSpec, work: Path, *, part: str | None = None) -> Checkpoints:
    """Return the checkpoints of a stage, where its spec wants them; those of one pod's `part` in a folder of its own.

    The whole stage's own checkpoints never lie in a part's folder, but are removed together with those of all parts.
    """
    options = spec.checkpoint
    if options.storage_uri:
        uri = join(options.storage_uri, spec.key)
    else:
        uri = join(parent(spec.output_uri), ".checkpoints", spec.key)
    return Checkpoints(
        blobs=open_blobs(join(uri, part) if part else uri, spec.store),
        work=work,
        period_seconds=float(options.period_seconds),
        resume=options.resume_policy == "Latest",
    )
