# SPDX-License-Identifier: Apache-2.0
"""Why a model or an experiment cannot go on by itself, in words that its status, events and alerts share. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from thinkrec_crds.conditions import CANNOT_START, Reason
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator.observed import Refusal
from thinkrec_operator.work import StageView


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the operator cannot go on until something changes."""

    reason: str
    message: str
    kind: StageKind | None = None
    """The stage that failed; None when no stage is to blame."""
    cause: str = ""
    """What happened to the stage's Job, as a reason of conditions.py."""


def refused(refusal: Refusal) -> Failure:
    """Return what the apiserver said about a child that it refused, with the remedy."""
    reason = Reason.CHILD_REFUSED
    said = f"{refusal.kind} {refusal.name} was refused ({refusal.reason or 'no reason'}): {refusal.message}"
    return Failure(reason.value, f"{said}. {reason.remedy}")


def cannot_start(views: Iterable[StageView]) -> Failure | None:
    """Return why a Job waits for a person: nothing failed for good, and it goes on by itself once that is put right."""
    for view in views:
        reason = start_reason(view.reason)
        if reason is not None and view.job is not None and view.job.active:
            told = f"{view.stage.title}: {view.message}. {reason.remedy}"
            return Failure(reason.value, told, view.stage.kind, reason.value)
    return None


def start_reason(name: str | None) -> Reason | None:
    """Return the reason of that name if it is one that keeps Pods from starting until a person acts."""
    return next((reason for reason in CANNOT_START if reason == name), None)
