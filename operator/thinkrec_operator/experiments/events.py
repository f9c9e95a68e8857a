# SPDX-License-Identifier: Apache-2.0
"""Events of an experiment, on transitions only. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

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
    found = [*_start(before, after), *_users(before, after), *_stalled(before, after), *_end(before, after)]
    return tuple(Event(event.type, event.reason, event.message[:_MAX_MESSAGE]) for event in found)


def _start(before: ExperimentStatus, after: ExperimentStatus) -> Iterator[Event]:
    if before.start_time is None and after.start_time is not None:
        rows = ", ".join(f"{row.name} = {row.resolved_revision}" for row in after.variants)
        yield Event("Normal", "ExperimentStarted", f"The variants are {rows}.")


def _users(before: ExperimentStatus, after: ExperimentStatus) -> Iterator[Event]:
    """Tell when users begin to be shared out, of each step of a canary, and of a guardrail that was not violated."""
    shares = ", ".join(f"{row.name} {row.weight} %" for row in after.variants)
    step, ended = after.current_step_index, after.conclusion is not None
    if before.traffic_start_time is None and after.traffic_start_time is not None:
        yield Event("Normal", "TrafficStarted", f"Users are shared out: {shares}.")
    elif step is not None and step != before.current_step_index and not ended:
        yield Event("Normal", "StepStarted", f"Step {step + 1} of the canary: {shares}.")
    now, then = after.analysis, before.analysis
    if now is not None and now.violations and not ended and not (then is not None and then.violations):
        broken = ", ".join(f"{row.name} of {row.variant}" for row in now.guardrails if row.violated)
        yield Event("Warning", Reason.GUARDRAIL_VIOLATED.value, f"{broken}; it is tolerated so far.")


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
    rolled_back = after.condition(ConditionType.ROLLED_BACK)
    if rolled_back is not None and rolled_back.status == "True":
        kind: Literal["Normal", "Warning"] = "Warning" if told.reason in _WARNINGS else "Normal"
        yield Event(kind, "RolledBack", rolled_back.message)
    promoted = after.condition(ConditionType.PROMOTED)
    if promoted is not None and promoted.status == "True":
        yield Event("Normal", "Promoted", promoted.message)
