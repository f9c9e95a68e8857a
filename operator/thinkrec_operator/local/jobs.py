# SPDX-License-Identifier: Apache-2.0
"""Jobs as subprocesses: the stage protocol, limits and retries of a Job, without a cluster.

Every change of a Job is on disk before anything follows from it, so that a driver that is killed at any moment finds
each Job again as it was.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from thinkrec_crds.artifact import ExitCode, Progress, TerminationMessage
from thinkrec_crds.conditions import Reason
from thinkrec_operator.children import STAGE_FILE
from thinkrec_operator.local import processes, retry
from thinkrec_operator.local.budget import Start, to_start
from thinkrec_operator.local.environment import computing
from thinkrec_operator.local.progress import last_line, last_progress
from thinkrec_operator.local.records import JobRecord
from thinkrec_operator.local.state import State, write_text
from thinkrec_operator.manifests.quantities import memory_bytes
from thinkrec_operator.observed import JobObservation, JobState
from thinkrec_operator.plan import ChildKind, Deletion, JobChild

STAGE_COMMAND = (sys.executable, "-m", "thinkrec_trainer", "run")
_KILLED_BY_DRIVER = 128 + signal.SIGKILL


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How this machine runs Jobs."""

    folder: Path
    """Working directory of the stages: the manifest's folder, from which relative `file:` addresses count."""
    cpus: int
    retry_base_seconds: float = 2.0
    """First wait after a failure; the cluster waits 10 s."""
    command: Sequence[str] = STAGE_COMMAND
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass(slots=True)
class _Running:
    """A process at work."""

    child: JobChild
    process: subprocess.Popen[bytes]
    cpus: int
    why_ended: str | None = None
    message: str = ""
    kill_at: datetime | None = None


class JobRunner:
    """Keeps Jobs, starts them as CPUs get free, and watches over them."""

    def __init__(self, state: State, options: JobOptions) -> None:
        """Take over the records on disk; call `recover` before anything else."""
        self._state = state
        self._options = options
        self._records = {record.name: record for record in state.job_records()}
        self._wanted: dict[str, JobChild] = {}
        self._running: dict[str, _Running] = {}
        self._deleting: set[str] = set()

    @property
    def records(self) -> tuple[JobRecord, ...]:
        """Return every Job's record."""
        return tuple(self._records.values())

    @property
    def busy(self) -> bool:
        """Return whether a process is at work."""
        return bool(self._running)

    def observe(self) -> tuple[JobObservation, ...]:
        """Return every Job as a decision sees it."""
        return tuple(
            record.observed(progress=self._progress(record), deleting=record.name in self._deleting)
            for record in self._records.values()
        )

    def _progress(self, record: JobRecord) -> Progress | None:
        if record.state is not JobState.RUNNING:
            return None
        return last_progress(self._state.job_folder(record.name) / "progress.jsonl", record.key)

    def recover(self, now: datetime, *, grace_seconds: float = 30.0) -> None:
        """Put right what a driver that was killed left behind: end its processes, read what they still reported.

        An unfinished Job's `activeDeadlineSeconds` count anew, as when Kubernetes resumes a suspended Job: the time
        between two runs is not the stage's.
        """
        for record in self.records:
            if record.state is not JobState.RUNNING:
                continue
            if record.process is not None:
                processes.end_leftover(record.process, grace_seconds)
            told = self._termination(record)
            code = ExitCode.DONE if told is not None and told.digest is not None else ExitCode.INTERRUPTED
            policy = retry.RetryPolicy(0, self._options.retry_base_seconds)
            self._keep(retry.after(record, retry.AttemptEnd(code, told), policy, now))
        for record in self.records:
            if record.state is JobState.PENDING and record.start_time is not None:
                self._keep(record.model_copy(update={"start_time": None}))

    def retry_failed(self) -> None:
        """Forget Jobs that finally failed, so that running again tries them again."""
        for record in self.records:
            if record.state is JobState.FAILED or (record.state is JobState.SUCCEEDED and record.termination is None):
                self._forget(record.name)

    def forget(self, name: str) -> None:
        """Forget a finished Job whose artifact is gone."""
        if name not in self._running:
            self._forget(name)

    def apply(self, children: Sequence[JobChild], deletions: Sequence[Deletion], now: datetime) -> None:
        """Delete and create Jobs; a Job that exists is left as it is."""
        for deletion in deletions:
            if deletion.kind is ChildKind.JOB and deletion.name in self._records:
                self._delete(deletion.name, now)
        self._wanted = {child.name: child for child in children}
        for child in children:
            if child.name not in self._records:
                self._create(child)

    def start_waiting(self, now: datetime) -> bool:
        """Start Jobs whose CPUs are free and whose wait is over; return whether any started."""
        ready = [child for child in self._wanted.values() if self._may_start(child.name, now)]
        used = sum(running.cpus for running in self._running.values())
        starts = to_start(ready, used, self._options.cpus)
        for start in starts:
            self._start(start, now)
        return bool(starts)

    def poll(self, now: datetime) -> bool:
        """Look at every process; return whether any Job changed."""
        changed = False
        for name, running in list(self._running.items()):
            code = running.process.poll()
            if code is None:
                self._enforce_limits(self._records[name], running, now)
                continue
            del self._running[name]
            self._ended(name, running, code, now)
            changed = True
        return changed

    def stop(self, now: datetime) -> None:
        """Ask every process to write its checkpoint and end within its grace period."""
        for running in self._running.values():
            self._terminate(running, now)

    def kill(self) -> None:
        """End every process at once; the next start continues from the newest checkpoint."""
        for running in self._running.values():
            processes.send(running.process.pid, signal.SIGKILL)

    def _may_start(self, name: str, now: datetime) -> bool:
        record = self._records.get(name)
        if record is None or record.state is not JobState.PENDING or name in self._deleting:
            return False
        return record.next_attempt_time is None or record.next_attempt_time <= now

    def _create(self, child: JobChild) -> None:
        self._keep(
            JobRecord(
                name=child.name,
                key=child.stage.key,
                kind=child.stage.kind,
                title=child.title,
                generation=child.owner.generation,
                retrain=child.owner.retrain,
            )
        )

    def _start(self, start: Start, now: datetime) -> None:
        child, record = start.child, self._records[start.child.name]
        folder = self._state.job_folder(child.name)
        compute = child.stage.compute.model_copy(update={"threads": start.cpus})
        stage = child.stage.model_copy(update={"compute": compute})
        write_text(folder / STAGE_FILE, stage.to_json(indent=2) + "\n")
        (folder / "termination.json").unlink(missing_ok=True)
        begun = record.model_copy(
            update={
                "state": JobState.RUNNING,
                "attempts": record.attempts + 1,
                "start_time": record.start_time or now,
                "next_attempt_time": None,
                "reason": None,
                "message": "",
            }
        )
        self._keep(begun)  # before the process exists: an attempt is never uncounted
        process = processes.start(
            [*self._options.command, str(folder / STAGE_FILE)],
            folder=self._options.folder,
            environment=self._environment(folder, start.cpus),
            output=folder / "progress.jsonl",
            errors=self._state.log_file(record),
        )
        self._running[child.name] = _Running(child, process, start.cpus)
        self._keep(begun.model_copy(update={"process": processes.record_of(process.pid)}))

    def _environment(self, folder: Path, cpus: int) -> dict[str, str]:
        return {
            **computing(self._options.environment, cpus),
            "THINKREC_TERMINATION_PATH": str(folder / "termination.json"),
        }

    def _enforce_limits(self, record: JobRecord, running: _Running, now: datetime) -> None:
        if running.kill_at is not None:
            if now >= running.kill_at:
                processes.send(running.process.pid, signal.SIGKILL)
            return
        settings = running.child.settings
        limit = memory_bytes(settings.resources)
        if limit is not None and (used := processes.memory_used(running.process.pid)) > limit:
            running.why_ended = Reason.OOM_KILLED.value
            running.message = f"used {used >> 20} MiB, more than its memory limit of {limit >> 20} MiB"
            running.kill_at = now
            processes.send(running.process.pid, signal.SIGKILL)
        deadline, begun = settings.active_deadline_seconds, record.start_time
        if deadline is not None and begun is not None and (now - begun).total_seconds() > deadline:
            running.why_ended = Reason.DEADLINE_EXCEEDED.value
            running.message = f"ran longer than `activeDeadlineSeconds`, {deadline}"
            self._terminate(running, now)

    def _terminate(self, running: _Running, now: datetime) -> None:
        grace = running.child.settings.termination_grace_period_seconds
        running.kill_at = now + timedelta(seconds=grace)
        processes.send(running.process.pid, signal.SIGTERM)

    def _ended(self, name: str, running: _Running, code: int, now: datetime) -> None:
        if name in self._deleting:
            self._forget(name)
            return
        record = self._records[name]
        limit = running.child.settings.backoff_limit
        message = running.message or last_line(self._state.log_file(record))
        shown = _KILLED_BY_DRIVER if running.why_ended == Reason.OOM_KILLED else code
        end = retry.AttemptEnd(shown, self._termination(record), running.why_ended, message)
        self._keep(retry.after(record, end, retry.RetryPolicy(limit, self._options.retry_base_seconds), now))

    def _delete(self, name: str, now: datetime) -> None:
        running = self._running.get(name)
        if running is None:
            self._forget(name)
        elif name not in self._deleting:
            self._deleting.add(name)
            self._terminate(running, now)

    def _termination(self, record: JobRecord) -> TerminationMessage | None:
        path = self._state.job_folder(record.name) / "termination.json"
        try:
            found = TerminationMessage.from_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        return found if found.key == record.key else None

    def _keep(self, record: JobRecord) -> None:
        self._state.write_job(record)
        self._records[record.name] = record

    def _forget(self, name: str) -> None:
        self._state.forget_job(name)
        self._records.pop(name, None)
        self._deleting.discard(name)
