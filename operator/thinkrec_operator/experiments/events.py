# SPDX-License-Identifier: Apache-2.0
"""Events of an experiment, on transitions only. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from thinkrec_crds.conditions import ConditionType, Reason
from thinkrec_crds.experiment_status import ExperimentStatus
from thinkrec_operator.plan import Event

_MAX_MESSAGE = 1024
_WARNINGS = (
    Reason.OFFLINE_GATE_FAILED.value,
    Reason.GUARDRAIL_VIOLATED.value,
    Reason.SAMPLE_RATIO_MISMATCH.value,
    Reason.DEADLINE_EXCEEDED.value,
)
"""Outcomes that somebody should look at."""


def events_between(before: ExperimentStatus, after: ExperimentStatus) -> tuple[Event, ...]:
    """Return what happened from one status to the next."""
    found = [*_start(before, after), *_stalled(before, after), *_end(before, after)]
    return tuple(Event(event.type, event.reason, event.message[:_MAX_MESSAGE]) for event in found)


def _start(before: ExperimentStatus, after: ExperimentStatus) -> Iterator[Event]:
    if before.start_time is None and after.start_time is not None:
        rows = ", ".join(f"{row.name} = {row.resolved_revision}" for row in after.variants)
        yield Event("Normal", "ExperimentStarted", f"The variants are {rows}.")


def _stalled(before: ExperimentStatus, after: ExperimentStatus) -> Iterator[Event]:
    new = after.condition(ConditionType.STALLED)
    old = before.condition(ConditionType.STALLED)
    if new is not None and (old is None or old.reason != new.reason):
        yield Event("Warning", new.reason, new.message)


def _end(before: ExperimentStatus, after: ExperimentStatus) -> Iterator[Event]:
    told = after.conclusion
    if told is None or before.conclusion is not None:
        return
    yield Event("Warning" if told.reason in _WARNINGS else "Normal", told.reason, told.message)
    promoted = after.condition(ConditionType.PROMOTED)
    if promoted is not None and promoted.status == "True":
        yield Event("Normal", "Promoted", promoted.message)
