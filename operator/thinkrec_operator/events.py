# SPDX-License-Identifier: Apache-2.0
"""Events on transitions only: what differs between the status written last and the new one. Pure.

The same transition seen twice (a crash before the status was written) tells its event twice; a steady state tells none.
"""

from __future__ import annotations

from collections.abc import Iterator

from thinkrec_crds.conditions import ConditionType, Reason
from thinkrec_crds.model_status import Condition, ModelStatus, StageStatus
from thinkrec_operator.plan import Event

_MAX_MESSAGE = 1024
_TOLD_WHEN_TRUE = (ConditionType.TRAINING_SUCCEEDED, ConditionType.EVALUATED, ConditionType.SERVING_READY)
_WARNED_WHEN_FALSE = (ConditionType.EVALUATED, ConditionType.DATASET_READY)
_NO_FAILURE = (Reason.JOBS_RUNNING, Reason.SUSPENDED, Reason.PENDING, Reason.PROGRESSING, Reason.NO_REVISION)
_WARNED_WHEN_TRUE = (ConditionType.STALLED, ConditionType.STALE)


def events_between(before: ModelStatus, after: ModelStatus) -> tuple[Event, ...]:
    """Return what happened from one status to the next."""
    found = [*_stage_events(before, after), *_revision_events(before, after), *_condition_events(before, after)]
    return tuple(Event(event.type, event.reason, event.message[:_MAX_MESSAGE]) for event in found)


def _stage_events(before: ModelStatus, after: ModelStatus) -> Iterator[Event]:
    old = {(row.name, row.key): row.state for row in (*before.stages, *before.experts)}
    for row in (*after.stages, *after.experts):
        if old.get((row.name, row.key)) != row.state and (event := _stage_event(row)) is not None:
            yield event


def _stage_event(row: StageStatus) -> Event | None:
    where = f"Stage {row.name} ({row.key[:8]})"
    if row.state == "Succeeded":
        return Event("Normal", "StageSucceeded", f"{where} is done.")
    if row.state == "Reused":
        return Event("Normal", "StageReused", f"{where} was found in the store.")
    if row.state == "Retrying":
        return Event("Warning", "StageRetrying", f"{where} tries again: {row.message or row.reason or 'failed'}")
    if row.state == "Failed":
        return Event("Warning", "StageFailed", f"{where} failed: {row.message or row.reason}")
    return None


def _revision_events(before: ModelStatus, after: ModelStatus) -> Iterator[Event]:
    if after.latest_revision and after.latest_revision != before.latest_revision:
        yield Event("Normal", "RevisionCreated", f"Revision {after.latest_revision} was trained and evaluated.")
    if after.serving_revision and after.serving_revision != before.serving_revision:
        was = f" instead of {before.serving_revision}" if before.serving_revision else ""
        yield Event("Normal", "RevisionServing", f"Revision {after.serving_revision} serves{was}.")


def _condition_events(before: ModelStatus, after: ModelStatus) -> Iterator[Event]:
    for condition in after.conditions:
        old = before.condition(condition.type)
        if old is not None and (old.status, old.reason) == (condition.status, condition.reason):
            continue
        true, known = condition.status == "True", old is not None and old.status != "Unknown"
        warns = _WARNED_WHEN_TRUE if true else _WARNED_WHEN_FALSE if condition.status == "False" else ()
        if condition.type in warns or _fails_behind_what_serves(condition, after):
            yield Event("Warning", condition.reason, condition.message)
        elif true and condition.type in _TOLD_WHEN_TRUE and (old is None or old.status != "True"):
            yield Event("Normal", condition.type, condition.message)
        elif condition.type == ConditionType.SUSPENDED and known and old is not None and old.status != condition.status:
            yield Event("Normal", condition.reason, condition.message)


def _fails_behind_what_serves(condition: Condition, after: ModelStatus) -> bool:
    """Return whether something is wrong that no Stalled tells: with a repetition of what serves, or while it waits."""
    kinds = (ConditionType.TRAINING_SUCCEEDED, ConditionType.SERVING_READY)
    failed = condition.type in kinds and condition.status == "False"
    return failed and condition.reason not in _NO_FAILURE and not after.is_true(ConditionType.STALLED)
