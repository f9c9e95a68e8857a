# SPDX-License-Identifier: Apache-2.0
"""What the local driver keeps of its own: Job records, revisions, the serving process, the model's generation."""

from __future__ import annotations

from pydantic import AwareDatetime

from thinkrec_crds.artifact import Key, Progress, TerminationMessage
from thinkrec_crds.contract import Contract
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator.observed import EvaluationRecord, JobObservation, JobState, RevisionData, RevisionRecord


class ProcessRecord(Contract):
    """A process that was started; the start time tells it from a later one with the same id."""

    pid: int
    created: float
    """Seconds since 1970, as the operating system tells it."""


class JobRecord(Contract):
    """One Job: what a cluster would keep in its Job object."""

    name: str
    key: Key
    kind: StageKind
    title: str
    generation: int
    retrain: str | None = None
    state: JobState = JobState.PENDING
    attempts: int = 0
    failures: int = 0
    exit_code: int | None = None
    reason: str | None = None
    message: str = ""
    start_time: AwareDatetime | None = None
    completion_time: AwareDatetime | None = None
    next_attempt_time: AwareDatetime | None = None
    process: ProcessRecord | None = None
    termination: TerminationMessage | None = None

    def observed(self, *, progress: Progress | None, deleting: bool) -> JobObservation:
        """Return the record as a decision sees it."""
        return JobObservation(
            name=self.name,
            key=self.key,
            state=self.state,
            generation=self.generation,
            retrain=self.retrain,
            attempts=self.attempts,
            failures=self.failures,
            exit_code=self.exit_code,
            reason=self.reason,
            message=self.message,
            start_time=self.start_time,
            completion_time=self.completion_time,
            next_attempt_time=self.next_attempt_time,
            termination=self.termination,
            progress=progress,
            deleting=deleting,
        )


class StoredRevision(Contract):
    """A revision as a file."""

    name: str
    number: int
    data: RevisionData
    evaluation: EvaluationRecord

    @classmethod
    def of(cls, record: RevisionRecord) -> StoredRevision:
        """Return the file's content for a revision."""
        return cls(name=record.name, number=record.number, data=record.data, evaluation=record.evaluation)

    def record(self) -> RevisionRecord:
        """Return the revision."""
        return RevisionRecord(self.name, self.number, self.data, self.evaluation)


class ModelRecord(Contract):
    """What a cluster would add to the manifest's metadata."""

    uid: str
    generation: int
    spec_hash: str


class LockHolder(Contract):
    """Who works on a state folder, for the message that another one gets."""

    pid: int
    command: str
    started: AwareDatetime


class ServingRecord(Contract):
    """The serving process, for `thinkrec recommend` and `thinkrec status`."""

    revision: str
    spec_hash: str
    url: str
    process: ProcessRecord
    started: AwareDatetime
    ready: bool = False
