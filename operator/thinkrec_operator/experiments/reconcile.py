# SPDX-License-Identifier: Apache-2.0
"""The decision about an experiment: `reconcile(observed) -> ExperimentPlan`. Pure and level-triggered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.conditions import Reason
from thinkrec_crds.experiment_spec import Offline
from thinkrec_crds.experiment_status import Conclusion, ExperimentStatus
from thinkrec_operator.experiments import work
from thinkrec_operator.experiments.children import stage_children
from thinkrec_operator.experiments.events import events_between
from thinkrec_operator.experiments.observed import ObservedExperiment
from thinkrec_operator.experiments.offline import missed_gates, verdict
from thinkrec_operator.experiments.stages import finished, offline_stages
from thinkrec_operator.experiments.status import Found, first_status, status_of, waiting_since
from thinkrec_operator.experiments.variants import Lineup, line_up
from thinkrec_operator.observed import JobState
from thinkrec_operator.plan import Child, ChildKind, ConfigMapChild, Deletion, Event
from thinkrec_operator.work import StageView

Results = Mapping[str, TerminationMessage]


@dataclass(frozen=True, slots=True)
class ExperimentPlan:
    """The outcome of one decision, applied as a model's plan is."""

    children: tuple[Child, ...]
    deletions: tuple[Deletion, ...]
    status: ExperimentStatus
    events: tuple[Event, ...]
    requeue_after: float | None
    """Seconds until the next decision even if nothing is reported; None waits for a change."""
    views: tuple[StageView, ...] = ()
    """Where the stages of the offline comparison stand."""


def reconcile(observed: ObservedExperiment) -> ExperimentPlan:
    """Return what must exist, what must go, the status, the events, and when to look again.

    An experiment with a verdict is over: its spec may be edited, and nothing follows. One that is being deleted takes
    its children with it by their owner references.
    """
    before = observed.experiment.status
    if observed.concluded or observed.experiment.metadata.deletion_timestamp is not None:
        return ExperimentPlan((), _left_over(observed, ()), before, (), None)
    if observed.first_visit:
        return ExperimentPlan((), (), first_status(observed), (), 0.0)
    lineup = line_up(observed)
    found, children = _offline(observed, lineup)
    written = status_of(found)
    return ExperimentPlan(
        children=tuple(children),
        deletions=(*_replaced(found.views), *_left_over(observed, children, found.views)),
        status=written,
        events=events_between(before, written),
        requeue_after=_requeue_after(observed, found),
        views=found.views,
    )


def _offline(observed: ObservedExperiment, lineup: Lineup) -> tuple[Found, list[Child]]:
    spec, offline = observed.experiment.spec, observed.experiment.spec.offline
    if lineup.missing is not None or offline is None:
        return Found(observed, lineup), []
    stages = offline_stages(offline, lineup, spec.control_variant_name)
    known = work.results(observed, lineup)
    views = work.views(observed, stages, known)
    result = finished(known, stages)
    if result is None:
        return Found(observed, lineup, views), _children(observed, lineup, views, known, offline)
    numbers = dict(result.metrics)
    missed = missed_gates(spec, offline, numbers)
    conclusion = None
    if missed:
        conclusion = Conclusion(reason=Reason.OFFLINE_GATE_FAILED.value, message="; ".join(missed))
    elif spec.traffic is None:
        conclusion = verdict(spec, offline, numbers)
    found = Found(
        observed,
        lineup,
        views,
        numbers=numbers,
        users=result.counts.get("users"),
        report_uri=result.uri,
        missed=missed,
        conclusion=conclusion,
    )
    return found, []


def _children(
    observed: ObservedExperiment, lineup: Lineup, views: tuple[StageView, ...], known: Results, offline: Offline
) -> list[Child]:
    control = lineup.control(observed.experiment.spec.control_variant_name).owner
    wanted = (view for view in views if view.start or (_at_work(view) and _inputs_known(view, known)))
    return [child for view in wanted for child in stage_children(observed, view.stage, known, offline, control)]


def _at_work(view: StageView) -> bool:
    return view.job is not None and view.job.active and not view.job.deleting and view.result is None


def _inputs_known(view: StageView, known: Results) -> bool:
    return all(item.key in known for item in view.stage.inputs)


def _replaced(views: tuple[StageView, ...]) -> tuple[Deletion, ...]:
    return tuple(
        Deletion(ChildKind.JOB, view.job_name, "it failed before the last change") for view in views if view.replace
    )


def _left_over(
    observed: ObservedExperiment, children: list[Child] | tuple[Child, ...], views: tuple[StageView, ...] = ()
) -> tuple[Deletion, ...]:
    """Return the deletions of Jobs at work that nothing asks for, and of ConfigMaps that no Job reads."""
    wanted = {view.stage.key for view in views}
    kept = {child.name for child in children if isinstance(child, ConfigMapChild)}
    idle = [job for job in observed.jobs if job.active and not job.deleting and job.key not in wanted]
    found = [Deletion(ChildKind.JOB, job.name, "the experiment no longer asks for its work") for job in idle]
    found += [Deletion(ChildKind.CONFIG_MAP, n, "no Job reads it") for n in observed.config_maps if n not in kept]
    return tuple(found)


def _requeue_after(observed: ObservedExperiment, found: Found) -> float | None:
    waits = []
    if (waiting := waiting_since(observed)) is not None and found.lineup.missing is not None and found.stuck is None:
        limit = timedelta(seconds=observed.experiment.spec.progress_deadline_seconds)
        waits.append(max(0.0, (waiting.last_transition_time + limit - observed.now).total_seconds()))
    if found.lineup.missing is not None and waiting is None:
        waits.append(float(observed.experiment.spec.progress_deadline_seconds))
    if any(view.job is not None and view.job.state is JobState.RUNNING for view in found.views):
        waits.append(float(observed.settings.progress_period_seconds))
    return min(waits, default=None)
