# SPDX-License-Identifier: Apache-2.0
"""The decision: `reconcile(observed) -> Plan`. Pure and level-triggered.

No clock, API, environment or memory: what is to be done follows from what is there. Calling it twice, missing a call,
or stopping between two of a plan's writes leads to the same end.
"""

from __future__ import annotations

from dataclasses import replace

from thinkrec_crds.conditions import Reason
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_operator import children as build
from thinkrec_operator import report, revisions, status, work
from thinkrec_operator.deletion import farewell, wanted_finalizer
from thinkrec_operator.events import events_between
from thinkrec_operator.failure import Failure, cannot_start, refused, start_reason
from thinkrec_operator.graph import Graph
from thinkrec_operator.observed import JobState, Observed, RevisionRecord
from thinkrec_operator.plan import Child, ChildKind, ConfigMapChild, Deletion, DeploymentChild, Event, Plan
from thinkrec_operator.revisions import Choice
from thinkrec_operator.status import Facts
from thinkrec_operator.traffic import traffic_children
from thinkrec_operator.turn import Turn, take
from thinkrec_operator.unsupported import unsupported_fields
from thinkrec_operator.work import Results, StageView


def reconcile(observed: Observed) -> Plan:
    """Return what must exist, what must go, the status, the events, and when to look again."""
    if observed.model.metadata.deletion_timestamp is not None:
        return farewell(observed)
    before, results = observed.model.status, work.finished_work(observed)
    turn = take(observed, results)
    if turn.start is not None:
        observed = replace(observed, scheduled=turn.start)
    graph = work.current_graph(observed, results)
    views = work.view_stages(observed, graph, results)
    made = revisions.candidate(observed, graph, results, work.handled_tokens(observed))
    choice = revisions.choose(observed, made)
    facts = _facts(observed, graph, views, made, choice, turn)
    refused = facts.failure is not None and facts.failure.reason == Reason.LOCAL_URI_NOT_SUPPORTED
    children = _children(facts, graph, results, refused=refused)
    conditions = status.first_conditions(observed) if observed.first_visit else status.conditions(facts)
    written = report.status_of(facts, conditions, graph.expert_count)
    return Plan(
        children=tuple(children),
        deletions=_deletions(facts, graph, results, children),
        status=written,
        events=(*_first_warnings(observed), *turn.events, *events_between(before, written)),
        requeue_after=_requeue_after(facts),
        finalizer=wanted_finalizer(observed),
    )


def _first_warnings(observed: Observed) -> tuple[Event, ...]:
    """Return what the spec asks for in vain, once: a local driver says it at every start instead."""
    if not observed.first_visit or observed.settings.relative_files:
        return ()
    return tuple(Event("Warning", "FieldWithoutEffect", line) for line in unsupported_fields(observed.model.spec))


def _facts(
    observed: Observed,
    graph: Graph,
    views: tuple[StageView, ...],
    made: RevisionRecord | None,
    choice: Choice,
    turn: Turn,
) -> Facts:
    checked = None
    if made is not None:
        compared = made.evaluation.compared
        checked = revisions.check_gates(
            observed, made.evaluation.result.metrics, compared.revision if compared else None
        )
    background = _repeats_what_serves(observed, graph)
    return Facts(
        observed=observed,
        views=views,
        complete=graph.expert_count is not None,
        failure=_failure(observed, graph, views, choice, checked, turn),
        background=background,
        made=made,
        gates=checked,
        target=choice.target,
        rolled_out=_rolled_out(observed, choice.target),
        answers=_answers(observed),
        next_schedule_time=turn.next_time,
        held=choice.held,
    )


def _repeats_what_serves(observed: Observed, graph: Graph) -> bool:
    """Return whether the revision in service already is what the spec asks for, and this is only a retraining of it."""
    serving, dataset = revisions.serving_now(observed), graph.find(StageKind.DATASET)
    if serving is None or dataset is None or serving.data.results[StageKind.DATASET].key == dataset.key:
        return False
    return revisions.same_spec(serving, observed.model.spec)


def _failure(
    observed: Observed,
    graph: Graph,
    views: tuple[StageView, ...],
    choice: Choice,
    gates: revisions.GateCheck | None,
    turn: Turn,
) -> Failure | None:
    relative = None if observed.settings.relative_files else build.relative_uri(observed)
    if relative is not None:
        reason = Reason.LOCAL_URI_NOT_SUPPORTED
        return Failure(reason.value, f"{relative}: {reason.meaning} {reason.remedy}")
    if choice.pin_missing:
        reason, pin = Reason.REVISION_NOT_FOUND, observed.model.spec.serving.revision
        return Failure(reason.value, f"`spec.serving.revision` is {pin}: {reason.meaning} {reason.remedy}")
    if turn.problem:
        return Failure(Reason.INVALID_SPEC.value, f"{turn.problem}.")
    missing = next((view for view in views if view.reason == Reason.BACKEND_NOT_INSTALLED), None)
    if missing is not None:
        reason = Reason.BACKEND_NOT_INSTALLED
        return Failure(reason.value, f"{missing.message} {reason.remedy}", missing.stage.kind, reason.value)
    if observed.refusals:
        return refused(observed.refusals[0])
    failed = next((view for view in views if view.state == "Failed"), None)
    if failed is not None:
        return _stage_failure(failed)
    if (waits := cannot_start(views)) is not None:
        return waits
    if graph.expert_count is None and (gate := _finished(views, StageKind.GATE)):
        told = dict(gate.result.counts) if gate.result else {}
        message = f"stage gate published no count `groups` from 1 up; it published {told}"
        return Failure(Reason.TRAINING_FAILED.value, message, StageKind.GATE)
    if gates is not None and not gates.passed:
        return Failure(Reason.GATE_FAILED.value, f"{gates.message}. {Reason.GATE_FAILED.meaning}")
    return _serving_failure(observed, choice.target)


def _serving_failure(observed: Observed, target: RevisionRecord | None) -> Failure | None:
    """Return why the target's pods do not get ready by themselves, unless the spec was in force and answers on."""
    serving = observed.serving
    if serving is None or target is None or serving.revision != target.name or _rolled_out(observed, target):
        return None
    if _answers(observed) and status.was_ready(observed):
        return None
    if (reason := start_reason(serving.reason)) is not None:
        return Failure(reason.value, f"revision {target.name}: {serving.message}. {reason.remedy}")
    if not serving.stuck:
        return None
    told = f" {serving.reason}: {serving.message}" if serving.reason else ""
    return Failure(Reason.SERVING_NOT_READY.value, f"Revision {target.name} did not get ready in time.{told}")


def _finished(views: tuple[StageView, ...], kind: StageKind) -> StageView | None:
    return next((view for view in views if view.stage.kind is kind and view.result is not None), None)


def _stage_failure(view: StageView) -> Failure:
    """Return the failure of a stage: what only the user can put right keeps its own reason."""
    cause, message = view.reason or Reason.TRAINING_FAILED.value, f"{view.stage.title}: {view.message}"
    if view.stage.kind is StageKind.EVALUATE:
        return Failure(Reason.EVALUATION_FAILED.value, message, view.stage.kind, cause)
    stalling = cause in {item.value for item in status.STALLING}
    return Failure(cause if stalling else Reason.TRAINING_FAILED.value, message, view.stage.kind, cause)


def _answers(observed: Observed) -> bool:
    return observed.serving is not None and observed.serving.ready_replicas >= 1


def _rolled_out(observed: Observed, target: RevisionRecord | None) -> bool:
    serving = observed.serving
    if serving is None or target is None or serving.revision != target.name or not serving.current:
        return False
    if serving.spec_hash != build.pods_hash(observed, target):
        return False
    wanted = observed.model.spec.serving.effective_replicas
    return serving.ready_replicas >= wanted and (wanted > 0 or serving.replicas == 0)


def _children(facts: Facts, graph: Graph, results: Results, *, refused: bool) -> list[Child]:
    observed, found = facts.observed, list[Child]()
    compared = work.compared_bundle(observed, graph)
    for view in facts.views:
        if (view.start and not refused) or (work.at_work(view) and work.inputs_known(view, results)):
            found += build.stage_children(observed, view, results, compared)
    if facts.made is not None:
        found.append(build.revision_child(observed, facts.made))
    if facts.target is not None and observed.settings.serve and not refused:
        found += build.serving_children(observed, facts.target)
        found += traffic_children(observed)
    return found


def _deletions(facts: Facts, graph: Graph, results: Results, children: list[Child]) -> tuple[Deletion, ...]:
    observed, wanted = facts.observed, {stage.key for stage in graph.stages}
    found = [
        Deletion(ChildKind(view.job.backend), view.job_name, "it failed before the last change")
        for view in facts.views
        if view.replace and view.job is not None
    ]
    found += [
        Deletion(ChildKind(job.backend), job.name, "the spec no longer asks for its work")
        for job in observed.jobs
        if job.active and not job.deleting and job.key not in wanted
    ]
    kept = {child.name for child in children if isinstance(child, ConfigMapChild)}
    # A Job at work that cannot be described again reads a ConfigMap that we cannot name.
    if all(work.inputs_known(view, results) for view in facts.views if work.at_work(view)):
        found += [Deletion(ChildKind.CONFIG_MAP, n, "no Job reads it") for n in observed.config_maps if n not in kept]
    found += _unused(facts, children)
    keep = (facts.made, facts.target, revisions.serving_now(observed), revisions.newest(observed.revisions))
    found += [
        Deletion(ChildKind.CONTROLLER_REVISION, record.name, "it is beyond `spec.revisionHistoryLimit`")
        for record in revisions.surplus(observed, keep)
    ]
    return tuple(found)


_REPLACED = (ChildKind.SERVICE, ChildKind.POD_DISRUPTION_BUDGET, ChildKind.HORIZONTAL_POD_AUTOSCALER)


def _unused(facts: Facts, children: list[Child]) -> list[Deletion]:
    """Return the deletions of children of other kinds that nothing asks for any more."""
    observed = facts.observed
    peers = build.peers_service_name(observed)
    wanted = {build.reference(child) for child in children}
    busy = any(view.job is not None and view.job.active for view in facts.views)
    serves = any(isinstance(child, DeploymentChild) for child in children)
    found = []
    for ref in observed.other_children:
        if ref in wanted or ref.kind not in _REPLACED:
            continue
        unused = ref.name == peers and not busy if ref.kind == ChildKind.SERVICE else serves
        if unused:
            found.append(Deletion(ChildKind(ref.kind), ref.name, "the spec no longer asks for it"))
    return found


def _requeue_after(facts: Facts) -> float | None:
    """Return the seconds until time alone may change the outcome; 0 asks for another look at once."""
    observed = facts.observed
    if observed.first_visit:
        return 0.0
    moments = [
        status.stale_time(facts),
        facts.next_schedule_time,
        *(view.job.next_attempt_time for view in facts.views if view.job),
    ]
    waits = [
        (moment - observed.now).total_seconds() for moment in moments if moment is not None and moment > observed.now
    ]
    # One that waits to run has no progress to look at; whatever becomes of it is reported.
    if any(view.job is not None and view.job.state is JobState.RUNNING for view in facts.views):
        waits.append(float(observed.settings.progress_period_seconds))
    return min(waits, default=None)
