# SPDX-License-Identifier: Apache-2.0
"""What a Pod says about itself: whether it runs, why not, and what its container left behind. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from thinkrec_crds import group
from thinkrec_crds.conditions import Reason
from thinkrec_operator.manifests.train_job import NODE
from thinkrec_operator.manifests.training import CONTAINER

CONTAINERS = (CONTAINER, NODE)
"""Names that the container of a stage has: in what we write, and in a TrainJob's runtime."""

_PULL = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
_START = frozenset({"CreateContainerError", "RunContainerError", "CreateContainerConfigError", "StartError"})
_SECRET_MISSING = re.compile(r'secrets? "?[^"]*"? not found|references non-existent secret', re.IGNORECASE)
_SECRET_LIKE = re.compile(
    r"(?i)((?:secret|token|password|passwd|api[_-]?key|authorization|signature|credential)[\w-]*['\"]?\s*[=:]\s*"
    r"['\"]?(?:bearer\s+)?)[^\s,;&'\"]+"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b|\b(?:hf_|sk-)[\w-]{8,}|(?<=://)[^\s/@:]+:[^\s/@]+(?=@)"
)
MAX_MESSAGE = 512


@dataclass(frozen=True, slots=True)
class PodRecord:
    """The part of a Pod that decisions depend on."""

    name: str
    uid: str
    version: int
    job: str | None
    """Name of the Job it belongs to."""
    key: str
    """Key of its stage; Pods of a JobSet or TrainJob are told by it, for their own Jobs have other names."""
    component: str
    phase: str
    ready: bool
    created: datetime | None
    deleting: bool
    restarts: int
    reason: str | None = None
    """Why it does not run, as a reason of conditions.py."""
    message: str = ""
    exit_code: int | None = None
    """Of the main container's last end."""
    left: str = ""
    """Its termination message."""
    variant: str = ""
    """Of an experiment: whom it serves."""

    @property
    def finished(self) -> bool:
        """Return whether it will never run again."""
        return self.phase in ("Succeeded", "Failed")


def pod_record(body: Mapping[str, Any]) -> PodRecord:
    """Return the record of a Pod."""
    meta, status = body["metadata"], body.get("status") or {}
    labels = meta.get("labels") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or ()}
    ended = _ended(status.get("containerStatuses") or ())
    reason, message = _trouble(status, conditions)
    return PodRecord(
        name=meta["name"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        job=labels.get("batch.kubernetes.io/job-name"),
        key=labels.get(group.LABEL_STAGE_KEY, ""),
        component=labels.get(group.LABEL_COMPONENT, ""),
        phase=status.get("phase", "Pending"),
        ready=conditions.get("Ready", {}).get("status") == "True",
        created=moment(meta.get("creationTimestamp")),
        deleting=meta.get("deletionTimestamp") is not None,
        restarts=sum(item.get("restartCount", 0) for item in status.get("containerStatuses") or ()),
        reason=reason,
        message=without_secrets(message),
        exit_code=ended.get("exitCode"),
        left=ended.get("message") or "",
        variant=labels.get(group.LABEL_VARIANT, ""),
    )


def moment(text: str | None) -> datetime | None:
    """Return an RFC 3339 time as a value."""
    return datetime.fromisoformat(text) if text else None


def without_secrets(text: str, length: int = MAX_MESSAGE) -> str:
    """Return the text, shortened, with everything that looks like a credential masked."""
    return _SECRET_LIKE.sub(lambda found: f"{found.group(1) or ''}***", text.strip())[:length]


def _ended(statuses: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the newest end of our own container (a mesh or an agent may have put others beside it)."""
    for status in sorted(statuses, key=lambda item: item.get("name") not in CONTAINERS):
        for state in (status.get("state") or {}, status.get("lastState") or {}):
            if found := state.get("terminated"):
                ended: Mapping[str, Any] = found
                return ended
    return {}


def _trouble(status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> tuple[str | None, str]:
    """Return the most concrete reason why the Pod does not do its work, with a sentence."""
    if status.get("reason") == "Evicted":
        return Reason.POD_EVICTED.value, status.get("message") or Reason.POD_EVICTED.meaning
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for container in containers:
        if (found := _container_trouble(container)) is not None:
            return found
    if conditions.get("DisruptionTarget", {}).get("status") == "True":
        return Reason.PREEMPTED.value, conditions["DisruptionTarget"].get("message") or Reason.PREEMPTED.meaning
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Reason.UNSCHEDULABLE.value, scheduled.get("message") or Reason.UNSCHEDULABLE.meaning
    return None, ""


def _container_trouble(container: Mapping[str, Any]) -> tuple[str, str] | None:
    name, state, last = container.get("name", ""), container.get("state") or {}, container.get("lastState") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or last.get("terminated") or {}
    why = waiting.get("reason", "")
    if ended.get("reason") == "OOMKilled":
        return Reason.OOM_KILLED.value, f"container {name} used more memory than its limit"
    if why in _PULL:
        text = waiting.get("message") or why
        return Reason.IMAGE_PULL_ERROR.value, f"image {container.get('image', '')} of container {name}: {text}"
    if why in _START:
        text = waiting.get("message") or why
        kind = Reason.SECRET_NOT_FOUND if _SECRET_MISSING.search(text) else Reason.CONTAINER_START_ERROR
        return kind.value, f"container {name}: {text}"
    # Between two crashes it runs or has just ended: the same trouble, told the same, until it is ready.
    restarted = container.get("restartCount", 0) > 0 and not container.get("ready") and ended.get("exitCode", 0) != 0
    if why == "CrashLoopBackOff" or restarted:
        told = _last_line(ended.get("message") or "")
        return Reason.CRASH_LOOP_BACK_OFF.value, f"container {name} ended with {ended.get('exitCode')}: {told}"
    if ended.get("reason") in ("StartError", "ContainerCannotRun"):
        return Reason.CONTAINER_START_ERROR.value, f"container {name}: {ended.get('message') or 'cannot run'}"
    return None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it left no message"
