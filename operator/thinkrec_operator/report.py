# SPDX-License-Identifier: Apache-2.0
"""The rest of a model's status: stages, experts, metrics, revisions and replicas. Pure."""

from __future__ import annotations

import math
from typing import Any

from thinkrec_crds.fields import as_decimal, as_optional_decimal
from thinkrec_crds.group import (
    ANNOTATION_RECONCILE_REQUESTED,
    LABEL_COMPONENT,
    LABEL_MODEL,
)
from thinkrec_crds.model_status import ArtifactStatus, Condition, MetricValue, ModelStatus, StageStatus
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator import schedule
from thinkrec_operator.names import artifact_uri, label_value
from thinkrec_operator.observed import JobObservation, Observed
from thinkrec_operator.revisions import decided_revision
from thinkrec_operator.status import Facts
from thinkrec_operator.work import StageView, retrain_token, scheduled_token


def status_of(facts: Facts, conditions: tuple[Condition, ...], expert_count: int | None) -> ModelStatus:
    """Return the whole status."""
    observed, before = facts.observed, facts.observed.model.status
    rows = [_row(observed, view) for view in facts.views]
    serving = observed.serving
    annotations = observed.model.metadata.annotations or {}
    follows = observed.model.spec.serving.update_policy == "OnExperiment"
    return ModelStatus(
        observed_generation=observed.generation,
        conditions=conditions,
        latest_revision=facts.made.name if facts.made else before.latest_revision,
        promotion=decided_revision(observed) if follows else None,
        serving_revision=facts.target.name if facts.rolled_out and facts.target else before.serving_revision,
        stages=tuple(row for row in rows if row.kind != StageKind.EXPERT.value),
        experts=tuple(row for row in rows if row.kind == StageKind.EXPERT.value),
        expert_count=expert_count,
        progress_percent=overall_percent(facts),
        gate=_artifact(observed, facts.views, StageKind.GATE),
        bundle=_artifact(observed, facts.views, StageKind.BUNDLE),
        metrics=_metrics(facts) or before.metrics,
        last_training_time=facts.made.data.created_time if facts.made else before.last_training_time,
        last_schedule_time=schedule.time_of(scheduled_token(observed)),
        next_schedule_time=facts.next_schedule_time,
        last_handled_retrain_at=retrain_token(observed) or before.last_handled_retrain_at,
        last_handled_reconcile_at=annotations.get(ANNOTATION_RECONCILE_REQUESTED) or before.last_handled_reconcile_at,
        replicas=serving.replicas if serving else None,
        ready_replicas=serving.ready_replicas if serving else None,
        selector=selector(observed),
        url=serving.url if serving else None,
    )


def selector(observed: Observed) -> str:
    """Return the label selector of the serving pods."""
    return f"{LABEL_MODEL}={label_value(observed.model.metadata.name)},{LABEL_COMPONENT}=serving"


def overall_percent(facts: Facts) -> int:
    """Return the share of the stages done, each counted alike; a running stage counts by its own progress."""
    total = len(facts.views) + (0 if facts.complete else 3)  # at least one expert, the bundle, the evaluation
    done = sum(1.0 if view.result is not None else _share(view.job) for view in facts.views)
    return math.floor(100 * done / total)


def _share(job: JobObservation | None) -> float:
    progress = job.progress if job is not None and job.active else None
    if progress is None or progress.total <= 0:
        return 0.0
    return min(1.0, max(0.0, progress.step / progress.total))


def _row(observed: Observed, view: StageView) -> StageStatus:
    old = observed.model.status
    before = next((s for s in (*old.stages, *old.experts) if s.name == view.stage.title), None)
    known = before if before is not None and before.key == view.stage.key else None
    job, done = view.job, view.result is not None
    progress = job.progress if job is not None and job.active and not done else None
    eta = progress.eta_seconds if progress is not None else None
    fields = dict[str, Any](
        name=view.stage.title,
        kind=view.stage.kind.value,
        key=view.stage.key,
        job_name=view.job_name if job is not None else (known.job_name if known else None),
        state=view.state,
        reason=view.reason,
        message=view.message or None,
        progress_percent=100 if done else math.floor(100 * _share(job)) if progress else None,
        estimated_remaining_seconds=math.ceil(eta) if eta is not None and math.isfinite(eta) and eta >= 0 else None,
        attempts=job.attempts if job is not None else (known.attempts if known else 0),
        start_time=job.start_time if job is not None else (known.start_time if known else None),
        completion_time=job.completion_time if job is not None else (known.completion_time if known else None),
        artifact_uri=_uri(observed, view.stage.kind, view.stage.key) if done else None,
        digest=view.result.digest if view.result is not None else None,
    )
    if known is not None and all(getattr(known, name) == value for name, value in fields.items()):
        return known  # a steady model makes no new objects
    return StageStatus(**fields)


def _uri(observed: Observed, kind: StageKind, key: str) -> str:
    return artifact_uri(observed.model.spec.artifacts.storage_uri, kind, key)


def _artifact(observed: Observed, views: tuple[StageView, ...], kind: StageKind) -> ArtifactStatus | None:
    for view in views:
        if view.stage.kind is kind and view.result is not None:
            return ArtifactStatus(artifact_uri=_uri(observed, kind, view.stage.key), digest=view.result.digest)
    return None


def _metrics(facts: Facts) -> tuple[MetricValue, ...]:
    if facts.made is None:
        return ()
    values = facts.made.evaluation.result.metrics
    return tuple(
        MetricValue(
            name=name,
            value=as_decimal(values[name.lower()]),
            lower=as_optional_decimal(values.get(f"{name.lower()}_lower")),
            upper=as_optional_decimal(values.get(f"{name.lower()}_upper")),
            baseline=as_optional_decimal(values.get(f"collaborative_{name.lower()}")),
        )
        for name in facts.observed.model.spec.evaluation.metrics
        if math.isfinite(values.get(name.lower(), math.nan))
    )
