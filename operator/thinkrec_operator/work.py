# SPDX-License-Identifier: Apache-2.0
"""Where each stage stands and what must run next: graph + Jobs + finished work -> views. Pure.

Retries of one stage are the Job's own (back-off limit, pod failure policy), in the cluster as on a laptop. A Job that
finally failed is replaced, alone and under the same key, once the spec's generation or the retrain token is another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from thinkrec_crds.artifact import ExitCode, TerminationMessage
from thinkrec_crds.conditions import Reason
from thinkrec_crds.group import ANNOTATION_RETRAIN_REQUESTED
from thinkrec_crds.model_status import StageState
from thinkrec_crds.spec_training import TrainingBackend
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator import revisions, schedule
from thinkrec_operator.graph import SERVING_ROLE, Comparator, Graph, Stage, build_graph
from thinkrec_operator.names import job_name
from thinkrec_operator.observed import JobObservation, JobState, Observed

FINAL_EXIT_CODES = (ExitCode.USAGE, ExitCode.BAD_INPUT)
"""After these no retry can help: the Job ends at once."""

Results = Mapping[str, TerminationMessage]


@dataclass(frozen=True, slots=True)
class StageView:
    """One stage and where it stands."""

    stage: Stage
    job_name: str
    state: StageState
    job: JobObservation | None = None
    result: TerminationMessage | None = None
    reason: str | None = None
    message: str = ""
    start: bool = False
    """Its inputs are there and nothing works on it: create its Job now."""
    replace: bool = False
    """Its Job failed under another generation or token: delete it, then start again."""


def retrain_token(observed: Observed) -> str | None:
    """Return the retrain annotation in force."""
    return (observed.model.metadata.annotations or {}).get(ANNOTATION_RETRAIN_REQUESTED) or None


def scheduled_token(observed: Observed) -> str | None:
    """Return the token of the newest scheduled run, whoever remembers it: status, a Job of it, or the lineage."""
    if observed.scheduled is not None:
        return observed.scheduled
    last, newest = observed.model.status.last_schedule_time, revisions.newest(observed.revisions)
    told = [job.scheduled for job in observed.jobs]
    told += [schedule.token(last) if last else None, newest.data.handled_schedule if newest else None]
    return max((text for text in told if schedule.time_of(text) is not None and text), default=None)


def finished_work(observed: Observed) -> dict[str, TerminationMessage]:
    """Return key -> published result of everything known to be finished, whoever tells it."""
    found: dict[str, TerminationMessage] = {}
    for record in observed.revisions:
        for result in (*record.data.results.values(), record.evaluation.result):
            found[result.key] = result
    found.update(observed.completed)
    for job in observed.jobs:
        if (message := published(job)) is not None:
            found[job.key] = message
    found.update((told.key, told) for told in _told_by_status(observed, found))
    return found


def _told_by_status(observed: Observed, known: Results) -> Iterator[TerminationMessage]:
    """Yield what only status remembers, of Jobs that are gone already: a training may outlast the time they are kept.

    An evaluation is asked for again, since status holds only a part of what it measured.
    """
    status = observed.model.status
    rows = () if observed.settings.laptop else (*status.stages, *status.experts)  # there the store itself is looked at
    for row in rows:
        done = row.state in ("Succeeded", "Reused") and row.kind is not StageKind.EVALUATE
        if done and row.digest and row.key not in known:
            groups = {"groups": status.expert_count} if row.kind is StageKind.GATE and status.expert_count else {}
            yield TerminationMessage(key=row.key, kind=row.kind, digest=row.digest, uri=row.artifact_uri, counts=groups)


def published(job: JobObservation) -> TerminationMessage | None:
    """Return what a Job that succeeded published, or None."""
    message = job.termination
    if job.state is not JobState.SUCCEEDED or message is None or message.digest is None or message.key != job.key:
        return None
    return message


def current_graph(observed: Observed, results: Results) -> Graph:
    """Return the graph of the spec as far as finished work lets it be known."""
    return graph_for(observed, results, effective_retrain(observed, results))


def graph_for(observed: Observed, results: Results, retrain: str | None) -> Graph:
    """Return the graph under one retrain token, with the gate's K and the evaluation's comparator filled in."""
    spec = observed.model.spec
    graph = build_graph(spec, retrain=retrain)
    groups = None
    if graph.expert_count is None:
        groups = chosen_groups(graph, results)
        graph = build_graph(spec, retrain=retrain, groups=groups)
    bundle = graph.find(StageKind.BUNDLE)
    if bundle is None or (compared := revisions.comparator(observed, bundle.key)) is None:
        return graph
    return build_graph(spec, retrain=retrain, groups=groups, comparator=compared)


def chosen_groups(graph: Graph, results: Results) -> int | None:
    """Return the K that the gate stage reported, or None while it is not finished or reported none."""
    gate = graph.find(StageKind.GATE)
    result = results.get(gate.key) if gate else None
    return result.counts.get("groups") or None if result else None


def effective_retrain(observed: Observed, results: Results) -> str | None:
    """Return the token that enters the dataset's key.

    A new token, of the annotation or of a scheduled run, asks for new keys only when the spec's work is already done;
    otherwise it merely retries what failed. An old token stays in force, so that removing the annotation does not bring
    an older revision back.
    """
    newest = revisions.newest(observed.revisions)
    if newest is None:
        return None
    handled = newest.data
    asked = (retrain_token(observed), handled.handled_retrain), (scheduled_token(observed), handled.handled_schedule)
    new = next((token for token, known in asked if token is not None and token != known), None)
    return new if new is not None and spec_is_done(observed, results) else handled.retrain


def handled_tokens(observed: Observed) -> revisions.Handled:
    """Return the tokens that a revision made now answers."""
    return revisions.Handled(retrain_token(observed), scheduled_token(observed))


def spec_is_done(observed: Observed, results: Results) -> bool:
    """Return whether a revision of this spec exists already, so that training again only repeats it."""
    newest = revisions.newest(observed.revisions)
    if newest is None:
        return False
    bundle = graph_for(observed, results, newest.data.retrain).find(StageKind.BUNDLE)
    return bundle is not None and any(record.bundle.key == bundle.key for record in observed.revisions)


def compared_bundle(observed: Observed, graph: Graph) -> Comparator | None:
    """Return the bundle that the graph's evaluation compares with."""
    bundle = graph.find(StageKind.BUNDLE)
    return revisions.comparator(observed, bundle.key) if bundle else None


def view_stages(observed: Observed, graph: Graph, results: Results) -> tuple[StageView, ...]:
    """Return every stage of the graph and where it stands."""
    jobs = {job.key: job for job in observed.jobs}
    return tuple(_view(observed, stage, jobs.get(stage.key), results) for stage in graph.stages)


def _view(observed: Observed, stage: Stage, job: JobObservation | None, results: Results) -> StageView:
    name = job.name if job else job_name(observed.model.metadata.name, stage.title, stage.key)
    result = results.get(stage.key)
    if result is not None:
        reused = job is None and not _was_done_here(observed, stage)
        return StageView(stage, name, "Reused" if reused else "Succeeded", job, result)
    if job is None:
        return _failed_before(observed, stage, name) or _waiting(observed, stage, name, results)
    if job.deleting:
        gone = StageView(stage, name, "Pending", job, message="waits until the old Job is gone")
        return _failed_before(observed, stage, name) or gone
    return _active(stage, name, job) if job.active else _failed(observed, stage, name, job)


def backend(observed: Observed) -> TrainingBackend:
    """Return the kind that is created for a stage."""
    return "Job" if observed.settings.laptop else observed.model.spec.training.backend


def backend_missing(observed: Observed) -> bool:
    """Return whether the cluster does not know that kind."""
    wish = backend(observed)
    return wish != "Job" and wish not in observed.kinds


def _was_done_here(observed: Observed, stage: Stage) -> bool:
    status = observed.model.status
    return any(s.key == stage.key and s.state == "Succeeded" for s in (*status.stages, *status.experts))


def _waiting(observed: Observed, stage: Stage, name: str, results: Results) -> StageView:
    missing = [item.role for item in stage.inputs if item.key not in results]
    if missing:
        return StageView(stage, name, "Pending", message=f"waits for {', '.join(missing)}")
    if observed.model.spec.suspend:
        return StageView(stage, name, "Suspended", reason=Reason.SUSPENDED.value, message=Reason.SUSPENDED.remedy)
    if backend_missing(observed):
        reason = Reason.BACKEND_NOT_INSTALLED
        message = f"`spec.training.backend` is {backend(observed)}: {reason.meaning}"
        return StageView(stage, name, "Pending", reason=reason.value, message=message)
    return StageView(stage, name, "Pending", start=True)


def _active(stage: Stage, name: str, job: JobObservation) -> StageView:
    state: StageState = "Running"
    if job.queued:
        state = "Queued"
    elif job.state is JobState.PENDING:
        state = "Retrying" if job.attempts else "Pending"
    return StageView(stage, name, state, job, reason=job.reason, message=job.message)


def _failed(observed: Observed, stage: Stage, name: str, job: JobObservation) -> StageView:
    changed = job.generation != observed.generation or job.retrain != retrain_token(observed)
    if changed and not observed.model.spec.suspend and not backend_missing(observed):
        return StageView(stage, name, "Pending", job, replace=True, message="starts again")
    reason, message = failure_of(stage, job)
    return StageView(stage, name, "Failed", job, reason=reason, message=message)


def _failed_before(observed: Observed, stage: Stage, name: str) -> StageView | None:
    """Return the failure that status remembers after its Job was removed (TTL), while nothing changed since.

    On a laptop a run that is started again tries again.
    """
    status = observed.model.status
    rows = (*status.stages, *status.experts)
    row = next((row for row in rows if row.key == stage.key and row.state == "Failed"), None)
    handled = status.last_handled_retrain_at if retrain_token(observed) else None
    same = status.observed_generation == observed.generation and handled == retrain_token(observed)
    if row is None or not same or observed.settings.laptop or observed.model.spec.suspend:
        return None
    return StageView(stage, name, "Failed", reason=row.reason, message=row.message or "")


def failure_of(stage: Stage, job: JobObservation) -> tuple[str, str]:
    """Return why a Job finally failed: a reason of conditions.py, and the stage's own sentence where it left one."""
    told = job.termination
    message = (told.error if told and told.error else job.message) or _exit_sentence(job)
    if job.exit_code == ExitCode.BAD_INPUT:
        usual = Reason.DATASET_INVALID if stage.kind is StageKind.DATASET else Reason.INVALID_SPEC
        return (told.reason if told and told.reason else usual.value), message
    if job.exit_code == ExitCode.USAGE:
        return Reason.INVALID_SPEC.value, f"{ExitCode.USAGE.meaning} {message} {ExitCode.USAGE.remedy}"
    if job.state is JobState.SUCCEEDED:
        return Reason.TRAINING_FAILED.value, (
            f"Job {job.name} succeeded but left no termination message with a digest; "
            "does its image speak the stage protocol?"
        )
    return job.reason or Reason.BACKOFF_LIMIT_EXCEEDED.value, message


def _exit_sentence(job: JobObservation) -> str:
    code = "no exit code" if job.exit_code is None else f"exit code {job.exit_code}"
    return f"Job {job.name} failed with {code} after {job.attempts} attempts"


def at_work(view: StageView) -> bool:
    """Return whether a Job works on the stage, or waits to, whose result is not known yet."""
    return view.job is not None and view.job.active and not view.job.deleting and view.result is None


def inputs_known(view: StageView, results: Results) -> bool:
    """Return whether a Job at work can be described again: a finished Job it reads from may be gone already."""
    return all(item.key in results or item.role == SERVING_ROLE for item in view.stage.inputs)
