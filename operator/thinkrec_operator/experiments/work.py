# SPDX-License-Identifier: Apache-2.0
"""Where each stage of an experiment stands and what runs next. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.conditions import Reason
from thinkrec_crds.experiment_status import ExperimentStage, ExperimentStatus
from thinkrec_crds.model_status import StageState
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator.experiments.children import name_of
from thinkrec_operator.experiments.observed import ObservedExperiment
from thinkrec_operator.experiments.stages import lineage
from thinkrec_operator.experiments.variants import Lineup
from thinkrec_operator.graph import Stage
from thinkrec_operator.observed import JobObservation, JobState
from thinkrec_operator.work import StageView, failure_of, published


def results(observed: ObservedExperiment, lineup: Lineup) -> dict[str, TerminationMessage]:
    """Return key -> published result of everything known to be finished: by lineage, store or Job."""
    found = lineage(lineup) | _told_by_status(observed) | dict(observed.completed)
    if observed.settings.laptop:
        found = last_look(observed.experiment.status) | found
    for job in observed.jobs:
        if (told := published(job)) is not None:
            found[job.key] = told
    return found


def _told_by_status(observed: ObservedExperiment) -> dict[str, TerminationMessage]:
    """Return what only status remembers, of Jobs that are gone; a comparison's numbers are more than it holds."""
    if observed.settings.laptop:  # there the store itself is looked at
        return {}
    status = observed.experiment.status
    rows = [row for row in status.stages if row.digest and row.kind not in ("compare", "analyse")]
    found = {
        row.key: TerminationMessage(key=row.key, kind=StageKind(row.kind), digest=row.digest, uri=row.artifact_uri)
        for row in rows
    }
    return found | last_look(status)


def last_look(status: ExperimentStatus) -> dict[str, TerminationMessage]:
    """Return the look that status tells of, as an input of the next one: without its numbers, which were dealt with."""
    told = status.analysis
    if told is None or told.key is None or told.digest is None:
        return {}
    kind = StageKind.ANALYSE
    return {told.key: TerminationMessage(key=told.key, kind=kind, digest=told.digest, uri=told.artifact_uri)}


def views(
    observed: ObservedExperiment, stages: tuple[Stage, ...], known: Mapping[str, TerminationMessage]
) -> tuple[StageView, ...]:
    """Return every stage and where it stands."""
    jobs = {job.key: job for job in observed.jobs}
    return tuple(_view(observed, stage, jobs.get(stage.key), known) for stage in stages)


def _view(
    observed: ObservedExperiment, stage: Stage, job: JobObservation | None, known: Mapping[str, TerminationMessage]
) -> StageView:
    view = StageView(stage, job.name if job else name_of(observed, stage), "Pending", job)
    if stage.key in known:
        return replace(view, state="Succeeded", result=known[stage.key])
    if observed.experiment.spec.suspend and (job is None or not job.active):
        return replace(view, state="Suspended", reason=Reason.SUSPENDED.value, message=Reason.SUSPENDED.remedy)
    if job is None and (before := _failed_before(observed, stage)) is not None:
        return replace(view, state="Failed", reason=before.reason, message=before.message or "")
    if job is None:
        missing = [item.role for item in stage.inputs if item.key not in known]
        return replace(view, message=f"waits for {', '.join(missing)}") if missing else replace(view, start=True)
    if job.deleting:
        return replace(view, message="waits until the old Job is gone")
    if job.active:
        running: StageState = "Running" if job.state is JobState.RUNNING else "Pending"
        return replace(view, state=running, reason=job.reason, message=job.message)
    if job.generation != observed.generation:
        return replace(view, replace=True, message="starts again")
    reason, message = failure_of(stage, job)
    return replace(view, state="Failed", reason=reason, message=message)


def _failed_before(observed: ObservedExperiment, stage: Stage) -> ExperimentStage | None:
    """Return the failure that status remembers after its Job was removed (TTL), while nothing changed since.

    On a laptop a run that is started again tries again.
    """
    status = observed.experiment.status
    row = next((row for row in status.stages if row.key == stage.key and row.state == "Failed"), None)
    return row if status.observed_generation == observed.generation and not observed.settings.laptop else None
