# SPDX-License-Identifier: Apache-2.0
"""A Job and its Pods as one observation. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from thinkrec_crds import group
from thinkrec_crds.artifact import Progress, TerminationMessage
from thinkrec_crds.conditions import Reason
from thinkrec_crds.spec_training import TrainingBackend
from thinkrec_operator.cluster.pods import PodRecord, moment, without_secrets
from thinkrec_operator.manifests.training import ANNOTATION_GENERATION, ANNOTATION_STAGE_KEY
from thinkrec_operator.observed import JobObservation, JobState

_RULE = "FailJobSetFailurePolicyAction"
"""Our rule ended the JobSet: its Job's deadline passed, or a Pod's exit code was final, which is told by that code."""
_FAILED_REASONS = {
    "BackoffLimitExceeded": Reason.BACKOFF_LIMIT_EXCEEDED,
    "MaxFailedIndexesExceeded": Reason.BACKOFF_LIMIT_EXCEEDED,
    "FailedIndexes": Reason.BACKOFF_LIMIT_EXCEEDED,
    "DeadlineExceeded": Reason.DEADLINE_EXCEEDED,
    "ReachedMaxRestarts": Reason.BACKOFF_LIMIT_EXCEEDED,  # of a JobSet, as the next two
    "FailedJobs": Reason.BACKOFF_LIMIT_EXCEEDED,
    _RULE: Reason.DEADLINE_EXCEEDED,
}
MAX_ERROR = 2048
_QUEUED = ("Job", "JobSet", "TrainJob")
_MORE_CONCRETE = frozenset({Reason.OOM_KILLED, Reason.POD_EVICTED, Reason.CONTAINER_START_ERROR})
"""Causes in a Pod that say more than "failed too often"."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The part of a Job (or of what stands for one: JobSet, TrainJob) that decisions depend on."""

    kind: TrainingBackend
    name: str
    uid: str
    version: int
    owner: str
    """uid of the model."""
    component: str
    key: str
    generation: int
    retrain: str | None
    scheduled: str | None
    suspended: bool
    queue: str | None
    succeeded: bool
    failed: bool
    failures: int
    active: int
    running: int
    completions: int
    """Pods that must succeed."""
    started: datetime | None
    ended: datetime | None
    reason: str = ""
    """Of the condition with which it failed."""
    message: str = ""
    deleting: bool = False

    @property
    def finished(self) -> bool:
        """Return whether its controller is done with it."""
        return self.succeeded or self.failed


@dataclass(frozen=True, slots=True)
class QueueRecord:
    """What Kueue's Workload says about a Job that waits."""

    workload: str
    job: str
    version: int
    reason: str
    message: str


def job_record(body: Mapping[str, Any]) -> JobRecord:
    """Return the record of a Job."""
    meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or () if item.get("status") == "True"}
    failure = conditions.get("Failed") or {}
    succeeded = "Complete" in conditions or "Completed" in conditions  # of a Job and TrainJob, of a JobSet
    annotations, labels = meta.get("annotations") or {}, meta.get("labels") or {}
    ended = status.get("completionTime") or (failure or conditions.get("Completed") or {}).get("lastTransitionTime")
    return JobRecord(
        kind=body.get("kind") or "Job",
        name=meta["name"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        owner=owner_uid(meta),
        component=labels.get(group.LABEL_COMPONENT, ""),
        key=annotations.get(ANNOTATION_STAGE_KEY, ""),
        generation=_number(annotations.get(ANNOTATION_GENERATION)),
        retrain=annotations.get(group.ANNOTATION_RETRAIN_REQUESTED),
        scheduled=annotations.get(group.ANNOTATION_SCHEDULED_FOR),
        suspended=bool(spec.get("suspend")),
        queue=labels.get(group.LABEL_KUEUE_QUEUE),
        succeeded=succeeded,
        failed=bool(failure),
        failures=status.get("failed") or status.get("restarts") or 0,  # of a Job in Pods, of a JobSet in whole runs
        active=status.get("active") or 0,
        running=status.get("ready") or 0,
        completions=_completions(spec),
        started=moment(status.get("startTime") or meta.get("creationTimestamp")),
        ended=moment(ended) if succeeded or failure else None,
        reason=failure.get("reason", ""),
        message=failure.get("message", ""),
        deleting=meta.get("deletionTimestamp") is not None,
    )


def _completions(spec: Mapping[str, Any]) -> int:
    """Return how many Pods must succeed: of a Job, of the only Job within a JobSet, of a TrainJob."""
    inner = next((job["template"]["spec"] for job in spec.get("replicatedJobs") or ()), spec)
    found: int | None = inner.get("completions") or (spec.get("trainer") or {}).get("numNodes")
    return found or 1


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else 0  # edited by hand: no generation


def owner_uid(meta: Mapping[str, Any]) -> str:
    """Return the uid of the controlling owner."""
    return next((ref["uid"] for ref in meta.get("ownerReferences") or () if ref.get("controller")), "")


def queue_record(body: Mapping[str, Any]) -> QueueRecord | None:
    """Return why a Workload of Kueue waits, or None where it belongs to no Job or was admitted."""
    meta = body["metadata"]
    owner = next((ref for ref in meta.get("ownerReferences") or () if ref.get("kind") in _QUEUED), None)
    if owner is None:
        return None
    conditions = {item["type"]: item for item in (body.get("status") or {}).get("conditions") or ()}
    told = conditions.get("QuotaReserved") or {}
    evicted = conditions.get("Evicted") or {}
    said = evicted if evicted.get("status") == "True" else told
    waits = told.get("status") != "True"
    return QueueRecord(
        workload=meta["name"],
        job=owner["name"],
        version=int(meta["resourceVersion"]),
        reason=said.get("reason") or Reason.WAITING_FOR_QUOTA.value if waits else "",
        message=said.get("message") or "" if waits else "",
    )


def observe_job(
    job: JobRecord,
    pods: Iterable[PodRecord],
    *,
    model_uid: str,
    queue: QueueRecord | None = None,
    progress: Progress | None = None,
) -> JobObservation:
    """Return one Job as decisions see it."""
    own = sorted(pods, key=lambda pod: (pod.created or datetime.min.replace(tzinfo=UTC), pod.name))
    ended = next((pod for pod in reversed(own) if pod.exit_code is not None), None)
    told = termination(job, own)
    waits = job.suspended and bool(job.queue)
    reason, message = _why(job, own, queue if waits else None)
    return JobObservation(
        name=job.name,
        key=job.key,
        backend=job.kind,
        state=_state(job, own, told),
        generation=job.generation,
        retrain=job.retrain,
        scheduled=job.scheduled,
        attempts=_attempts(job, own),
        failures=job.failures,
        exit_code=ended.exit_code if ended else None,
        reason=reason,
        message=message,
        queued=waits,
        start_time=job.started,
        completion_time=job.ended,
        termination=told,
        progress=progress,
        deleting=job.deleting or job.owner not in ("", model_uid),
    )


def _attempts(job: JobRecord, pods: Sequence[PodRecord]) -> int:
    """Return how often the work was begun; the Pods of one attempt on several nodes or shards count once."""
    if job.kind == "JobSet":  # the Pods of a run that failed are taken away, and the runs counted
        return job.failures + any(pod.phase != "Pending" for pod in pods)
    failed = sum(pod.phase == "Failed" for pod in pods)
    begun = any(pod.phase in ("Running", "Succeeded") for pod in pods)
    return max(failed + begun, job.failures)


def termination(job: JobRecord, pods: Sequence[PodRecord]) -> TerminationMessage | None:
    """Return the newest message of the Job's Pods, one that names a digest before one that does not."""
    found = [message for pod in reversed(pods) if (message := _parsed(pod.left)) is not None]
    published = (message for message in found if message.digest is not None and message.key == job.key)
    return next(published, found[0] if found else None)


def pods_of(job: JobRecord, pods: Iterable[PodRecord]) -> list[PodRecord]:
    """Return the Pods of a Job; those of a JobSet or TrainJob carry the key, for their own Jobs have other names."""
    by_key = job.kind != "Job"
    return [pod for pod in pods if (pod.key == job.key if by_key else pod.job == job.name)]


def published(pod: PodRecord) -> TerminationMessage | None:
    """Return what a Pod that succeeded says it published, or None; it stays true when Pod and Job are gone."""
    told = _parsed(pod.left) if pod.phase == "Succeeded" else None
    return told if told is not None and told.digest is not None else None


def is_lost(job: JobRecord, pods: Sequence[PodRecord]) -> bool:
    """Return whether a Job succeeded but a Pod that could say with what is gone."""
    if not job.succeeded or job.deleting or sum(pod.finished for pod in pods) >= job.completions:
        return False
    told = termination(job, pods)
    return told is None or told.digest is None


def _parsed(text: str) -> TerminationMessage | None:
    if not text.startswith("{"):
        return None
    try:
        told = TerminationMessage.from_json(text)
    except ValidationError:
        return None  # another program's words; the exit code still tells
    return told.model_copy(update={"error": without_secrets(told.error, MAX_ERROR)}) if told.error else told


def _state(job: JobRecord, pods: Sequence[PodRecord], told: TerminationMessage | None) -> JobState:
    if job.failed:
        return JobState.FAILED
    silent = (told is None or told.digest is None) and any(not pod.finished for pod in pods)
    if job.succeeded and not silent and pods:
        return JobState.SUCCEEDED
    # Succeeded, but the watch of Pods is behind the watch of Jobs: what was published is not known yet.
    at_work = job.running > 0 or job.succeeded or any(pod.phase in ("Running", "Succeeded") for pod in pods)
    return JobState.RUNNING if at_work else JobState.PENDING


def _why(job: JobRecord, pods: Sequence[PodRecord], queue: QueueRecord | None) -> tuple[str | None, str]:
    """Return why the Job failed or does not run, the most concrete cause first."""
    troubled = next((pod for pod in reversed(pods) if pod.reason is not None), None)
    if job.failed:
        if troubled is not None and troubled.reason in _MORE_CONCRETE:
            return troubled.reason, f"{troubled.message} (Pod {troubled.name})"
        reason = _FAILED_REASONS.get(job.reason)
        message = f"{Reason.DEADLINE_EXCEEDED.meaning} {job.message}" if job.reason == _RULE else job.message
        return (reason.value if reason else None), message
    if job.succeeded:
        return None, ""
    if job.suspended:
        return _why_suspended(job, queue)
    stuck = next((pod for pod in pods if pod.reason is not None and not pod.finished), None)
    newest = stuck or (pods[-1] if pods else None)  # of several at work, the one that keeps the others waiting
    if newest is not None and newest.reason is not None:
        return newest.reason, f"{newest.message} (Pod {newest.name})"
    if newest is not None and newest.exit_code not in (None, 0):
        told = _parsed(newest.left)
        return None, (told.error if told and told.error else f"Pod {newest.name} ended with {newest.exit_code}")
    return None, ""


def _why_suspended(job: JobRecord, queue: QueueRecord | None) -> tuple[str, str]:
    if job.queue is None:
        return Reason.SUSPENDED.value, f"Job {job.name} was suspended by hand; set its `spec.suspend` to false."
    if queue is not None and queue.reason:
        return queue.reason, queue.message
    return Reason.WAITING_FOR_QUOTA.value, f"queue {job.queue} has not admitted Job {job.name} yet"
