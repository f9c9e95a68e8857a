# SPDX-License-Identifier: Apache-2.0
"""The state folder of one model or experiment, written so that a crash leaves the old or the new, never half.

.thinkrec/<namespace>/<name>/                  of a model; of an experiment .thinkrec/<namespace>/experiment.<name>/
    lock               held by the driver at work
    model.json         uid and generation
    status.yaml        the status, as `kubectl get -o yaml` would show it
    events.jsonl       events, one a line
    jobs/<job>/        stage.json, record.json, termination.json, progress.jsonl
    logs/<stage>-<key>.log
    revisions/<name>.json
    serving.json, logs/serving.log
    fetched/<digest>/  bundle and base model of the server, where they are not on this machine
    serving/           the server's own folder: feedback events, its logs
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from thinkrec_crds.contract import Contract
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.experiment_status import ExperimentStatus
from thinkrec_crds.model import ThinkRecModel
from thinkrec_crds.model_status import ModelStatus
from thinkrec_operator.local.records import JobRecord, LockHolder, ModelRecord, ServingRecord, StoredRevision
from thinkrec_operator.names import content_hash
from thinkrec_operator.observed import RevisionRecord
from thinkrec_operator.plan import Event

STATE_FOLDER = ".thinkrec"

_C = TypeVar("_C", bound=Contract)
_S = TypeVar("_S", ModelStatus, ExperimentStatus)


class StateLocked(RuntimeError):  # noqa: N818 (the caller reads `except StateLocked`)
    """Another driver works on the same model."""


class StateDamaged(RuntimeError):  # noqa: N818 (the caller reads `except StateDamaged`)
    """A file of the state folder does not parse."""


class State:
    """Reads and writes one model's state folder."""

    def __init__(self, root: Path) -> None:
        """Use `root`; nothing is created until something is written."""
        self.root = root

    @property
    def status_file(self) -> Path:
        """Return where the status is."""
        return self.root / "status.yaml"

    @property
    def logs(self) -> Path:
        """Return the folder of logs."""
        return self.root / "logs"

    def job_folder(self, name: str) -> Path:
        """Return the folder of a Job."""
        return self.root / "jobs" / name

    def log_file(self, record: JobRecord) -> Path:
        """Return the log of a stage."""
        return self.logs / f"{record.title}-{record.key[:8]}.log"

    @contextmanager
    def locked(self, *, command: str, now: datetime) -> Iterator[None]:
        """Hold the folder; raise StateLocked naming the holder when another process does."""
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / "lock"
        with path.open("a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StateLocked(self._locked_message(path)) from error
            handle.truncate(0)
            handle.write(LockHolder(pid=os.getpid(), command=command, started=now).to_json())
            handle.flush()
            try:
                yield
            finally:
                handle.truncate(0)

    def holder(self) -> LockHolder | None:
        """Return who holds the folder now, or None."""
        path = self.root / "lock"
        if not path.is_file():
            return None
        with path.open() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _parsed(LockHolder, path)
        return None

    def _locked_message(self, path: Path) -> str:
        holder = _parsed(LockHolder, path)
        who = f"process {holder.pid} (`thinkrec {holder.command}`, since {holder.started:%H:%M:%S})" if holder else ""
        return f"{self.root} is in use by {who or 'another process'}: wait for it, or end it with `thinkrec stop`"

    def model_record(self, model: ThinkRecModel | ThinkRecExperiment) -> ModelRecord:
        """Return uid and generation; the generation rises when the spec differs from the one seen last."""
        spec_hash = content_hash(model.spec.model_dump(mode="json", by_alias=True))
        path = self.root / "model.json"
        old = _parsed(ModelRecord, path)
        if old is not None and old.spec_hash == spec_hash:
            return old
        uid, generation = (old.uid, old.generation + 1) if old else (str(uuid.uuid4()), 1)
        record = ModelRecord(uid=uid, generation=generation, spec_hash=spec_hash)
        write_text(path, record.to_json(indent=2) + "\n")
        return record

    def status(self) -> ModelStatus:
        """Return the status of the model written last."""
        return self._status(ModelStatus)

    def experiment_status(self) -> ExperimentStatus:
        """Return the status of the experiment written last."""
        return self._status(ExperimentStatus)

    def _status(self, type_: type[_S]) -> _S:
        try:
            body = yaml.safe_load(self.status_file.read_text())
            return type_.model_validate(body["status"])
        except FileNotFoundError:
            return type_()
        except (yaml.YAMLError, ValidationError, KeyError, TypeError):
            return type_()  # a view, rebuilt from the other files

    def write_status(self, model: ThinkRecModel | ThinkRecExperiment, status: ModelStatus | ExperimentStatus) -> bool:
        """Write status.yaml when it differs; return whether it did."""
        meta = {"name": model.metadata.name, "namespace": model.metadata.namespace}
        body = {
            "apiVersion": model.api_version,
            "kind": model.kind,
            "metadata": {**meta, "generation": status.observed_generation},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        text = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=120)
        if self.status_file.is_file() and self.status_file.read_text() == text:
            return False
        write_text(self.status_file, text, durable=False)  # a view, rebuilt from the other files
        return True

    def add_events(self, events: tuple[Event, ...], now: datetime) -> None:
        """Append events to the log of events."""
        if not events:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "events.jsonl").open("a") as handle:
            for event in events:
                line = {"time": f"{now:%Y-%m-%dT%H:%M:%SZ}", "type": event.type, "reason": event.reason}
                handle.write(_json_line({**line, "message": event.message}))

    def job_records(self) -> tuple[JobRecord, ...]:
        """Return every Job there is."""
        found = (_parsed(JobRecord, path) for path in sorted(self.root.glob("jobs/*/record.json")))
        return tuple(record for record in found if record is not None)

    def write_job(self, record: JobRecord) -> None:
        """Keep a Job's record."""
        write_text(self.job_folder(record.name) / "record.json", record.to_json(indent=2) + "\n")

    def forget_job(self, name: str) -> None:
        """Remove a Job; its log stays."""
        folder = self.job_folder(name)
        (folder / "record.json").unlink(missing_ok=True)  # first, so that a crash leaves no half Job
        shutil.rmtree(folder, ignore_errors=True)

    def revisions(self) -> tuple[RevisionRecord, ...]:
        """Return every revision there is, oldest first."""
        found = (_parsed(StoredRevision, path) for path in self.root.glob("revisions/*.json"))
        records = [stored.record() for stored in found if stored is not None]
        return tuple(sorted(records, key=lambda record: record.number))

    def write_revision(self, record: RevisionRecord) -> None:
        """Keep a revision."""
        path, text = self._revision_file(record.name), StoredRevision.of(record).to_json(indent=2) + "\n"
        if not path.is_file() or path.read_text() != text:
            write_text(path, text)

    def forget_revision(self, name: str) -> None:
        """Remove a revision's record; its artifacts stay in the store."""
        self._revision_file(name).unlink(missing_ok=True)

    def _revision_file(self, name: str) -> Path:
        return self.root / "revisions" / f"{name}.json"

    def serving(self) -> ServingRecord | None:
        """Return the serving process started last, alive or not."""
        return _parsed(ServingRecord, self.root / "serving.json")

    def write_serving(self, record: ServingRecord | None) -> None:
        """Keep the serving process, or forget it."""
        path = self.root / "serving.json"
        if record is None:
            path.unlink(missing_ok=True)
        else:
            write_text(path, record.to_json(indent=2) + "\n")


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def state_folder(owner: ThinkRecModel | ThinkRecExperiment, manifest: Path, chosen: Path | None) -> Path:
    """Return the state folder of a model or experiment: below `chosen`, else below `.thinkrec` beside the manifest."""
    base = chosen if chosen is not None else manifest.resolve().parent / STATE_FOLDER
    name = owner.metadata.name if isinstance(owner, ThinkRecModel) else f"experiment.{owner.metadata.name}"
    return base.resolve() / owner.metadata.namespace / name


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a file as a whole: a reader sees the old text or the new one; `durable` also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("w") as handle:
        handle.write(text)
        if durable:
            handle.flush()
            os.fsync(handle.fileno())
    scratch.replace(path)


def _parsed(type_: type[_C], path: Path) -> _C | None:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    if not text:
        return None
    try:
        return type_.from_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise StateDamaged(
            f"{path} cannot be used ({where}: {first['msg']}): remove it, or run `thinkrec clean`; "
            "published artifacts are found again"
        ) from error


def _json_line(body: dict[str, str]) -> str:
    return json.dumps(body, ensure_ascii=False) + "\n"
