# SPDX-License-Identifier: Apache-2.0
"""A Deployment and its Pods as one observation. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from thinkrec_crds import group
from thinkrec_crds.conditions import Reason
from thinkrec_operator.cluster.pods import PodRecord, without_secrets
from thinkrec_operator.observed import ServingObservation


@dataclass(frozen=True, slots=True)
class Rollout:
    """Where the controller of a Deployment stands."""

    revision: str
    spec_hash: str
    current: bool
    replicas: int
    ready: int
    stuck: bool
    """It passed its own progress deadline."""
    refused: str
    """Why its Pods cannot even be created (a quota, an admission policy)."""


def rollout(body: Mapping[str, Any]) -> Rollout:
    """Return what a Deployment's status says."""
    meta, status = body["metadata"], body.get("status") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or ()}
    progress = conditions.get("Progressing") or {}
    replicas, updated = status.get("replicas") or 0, status.get("updatedReplicas") or 0
    seen = (status.get("observedGeneration") or 0) >= (meta.get("generation") or 0)
    failure = conditions.get("ReplicaFailure") or {}
    return Rollout(
        revision=(meta.get("labels") or {}).get(group.LABEL_REVISION, ""),
        spec_hash=(meta.get("annotations") or {}).get(group.ANNOTATION_SPEC_HASH, ""),
        current=seen and updated == replicas,
        replicas=replicas,
        ready=status.get("readyReplicas") or 0,
        stuck=seen and progress.get("reason") == "ProgressDeadlineExceeded",
        refused=failure.get("message") or "" if failure.get("status") == "True" else "",
    )


def observe_serving(name: str, found: Rollout, pods: Iterable[PodRecord], *, url: str | None) -> ServingObservation:
    """Return one Deployment as decisions see it, with the most telling reason of its Pods."""
    troubled = sorted((pod for pod in pods if pod.reason is not None and not pod.ready), key=lambda pod: pod.name)
    reason, message = _why(found, troubled[0] if troubled else None)
    return ServingObservation(
        name=name,
        revision=found.revision,
        spec_hash=found.spec_hash,
        current=found.current,
        replicas=found.replicas,
        ready_replicas=found.ready,
        reason=reason,
        message=message,
        stuck=found.stuck or bool(found.refused),
        url=url,
    )


def _why(found: Rollout, troubled: PodRecord | None) -> tuple[str | None, str]:
    if troubled is not None:
        return troubled.reason, f"{troubled.message} (Pod {troubled.name})"
    if found.refused:
        return Reason.CONTAINER_START_ERROR.value, without_secrets(found.refused)
    if found.stuck:
        return Reason.MODEL_LOAD_FAILED.value, "The pods run but did not become ready in time; read their logs."
    return None, ""
