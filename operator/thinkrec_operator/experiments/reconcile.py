# SPDX-License-Identifier: Apache-2.0
"""The decision about an experiment: `reconcile(observed) -> ExperimentPlan`. Pure and level-triggered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.conditions import ConditionType, Reason
from thinkrec_crds.experiment_spec import Offline
from thinkrec_crds.experiment_status import Conclusion, ExperimentStatus
from thinkrec_operator.experiments import work
from thinkrec_operator.experiments.children import stage_children
from thinkrec_operator.experiments.events import events_between
from thinkrec_operator.experiments.observed import ObservedExperiment
from thinkrec_operator.experiments.offline import gates_missed, missed_gates, unknown_gates, verdict
from thinkrec_operator.experiments.online import decide, next_time, with_control
from thinkrec_operator.experiments.places import missing_gateway, surplus_places
from thinkrec_operator.experiments.stages import finished, offline_stages
from thinkrec_operator.experiments.status import Found, concluded, first_status, status_of, waiting_since
from thinkrec_operator.experiments.variants import Lineup, line_up
from thinkrec_operator.graph import Stage
from thinkrec_operator.observed import JobState
from thinkrec_operator.plan import Child, ChildKind, ConfigMapChild, Deletion, Event
from thinkrec_operator.work import StageView, at_work, inputs_known

SETTLING_SECONDS = 2.0
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
    finalizer: None = None
    """Nothing holds an experiment back: its artifacts belong to the models' store."""
    views: tuple[StageView, ...] = ()
    """Where the stages of the offline comparison stand."""


def reconcile(observed: ObservedExperiment) -> ExperimentPlan:
    """Return what must exist, what must go, the status, the events, and when to look again.

    An experiment with a verdict is over: its spec may be edited, and nothing follows. One that is being deleted takes
    its children with it by their owner references.
    """
    before = observed.experiment.status
    if observed.experiment.metadata.deletion_timestamp is not None:
        return ExperimentPlan((), (), before, (), None)
    if observed.concluded:
        gone = (*_left_over(observed, ()), *surplus_places(observed, []))
        return ExperimentPlan((), gone, concluded(observed), (), None)
    if observed.first_visit:
        return ExperimentPlan((), (), first_status(observed), (), 0.0)
    if (moment := _settling(observed)) > 0:
        return ExperimentPlan((), (), before, (), moment)
    lineup = line_up(observed)
    if lineup.missing is None and observed.experiment.spec.traffic is not None:
        lineup = replace(lineup, missing=missing_gateway(observed, lineup))
    found, children = _decided(observed, lineup)
    written = status_of(found)
    if written.start_time != before.start_time:  # then the deadline is another one
        started = before.model_copy(update={"start_time": written.start_time})
        observed = replace(observed, experiment=observed.experiment.model_copy(update={"status": started}))
    # Until a variant that is missing is back its Jobs go on: what they compare is in the store.
    idle = () if found.lineup.missing is not None else _left_over(observed, children, found.all_views)
    if found.online is not None:
        idle += surplus_places(observed, children)
    return ExperimentPlan(
        children=tuple(children),
        deletions=(*_replaced(found.all_views), *idle),
        status=written,
        events=events_between(before, written),
        requeue_after=0.0 if found.conclusion is not None else _requeue_after(observed, found),  # then to tidy up
        views=found.all_views,
    )


def _settling(observed: ObservedExperiment) -> float:
    """Return the seconds until the models may be looked at: what was applied with an experiment is seen by then.

    Models and experiments come by watches of their own. One that is a moment ahead would take the revision that serves
    for the newest one, although the same commit asks for a training.
    """
    created = observed.experiment.metadata.creation_timestamp
    if created is None or observed.experiment.status.start_time is not None or observed.settings.laptop:
        return 0.0
    return SETTLING_SECONDS - (observed.now - created).total_seconds()


def _decided(observed: ObservedExperiment, lineup: Lineup) -> tuple[Found, list[Child]]:
    """Return what is known, with a verdict where there is one, and the children that the next step needs."""
    found, children = _offline(observed, lineup)
    if _is_users_turn(observed, found):
        online = decide(observed, lineup) if lineup.missing is None else with_control(observed)
        found, children = replace(found, online=online, conclusion=online.conclusion), [*children, *online.children]
    end = _deadline(observed)
    if found.conclusion is not None or end is None or observed.now < end:
        return found, children
    limit = observed.experiment.spec.active_deadline_seconds
    message = f"There was no verdict within `activeDeadlineSeconds`, {limit}. {Reason.DEADLINE_EXCEEDED.meaning}"
    return replace(found, conclusion=Conclusion(reason=Reason.DEADLINE_EXCEEDED.value, message=message)), []


def _is_users_turn(observed: ObservedExperiment, found: Found) -> bool:
    """Return whether the offline comparison, if there is one, lets users in; once in, they are never lost sight of."""
    spec = observed.experiment.spec
    if spec.traffic is None or found.conclusion is not None:
        return False
    if observed.experiment.status.traffic_start_time is not None:
        return True
    if found.lineup.missing is not None:
        return False
    return spec.offline is None or found.remembered or (found.numbers is not None and not found.incomplete)


def _deadline(observed: ObservedExperiment) -> datetime | None:
    """Return when the experiment ends without a verdict; a laptop's time between two runs is nobody's."""
    start, limit = observed.experiment.status.start_time, observed.experiment.spec.active_deadline_seconds
    return start + timedelta(seconds=limit) if start and limit is not None and not observed.settings.laptop else None


def _offline(observed: ObservedExperiment, lineup: Lineup) -> tuple[Found, list[Child]]:
    spec, offline = observed.experiment.spec, observed.experiment.spec.offline
    if lineup.missing is not None or offline is None:
        return Found(observed, lineup), []
    stages = offline_stages(spec, lineup)
    known = work.results(observed, lineup)
    views = work.views(observed, stages, known)
    result = finished(known, stages)
    if result is None and _is_remembered(observed, stages[-1]):
        return Found(observed, lineup, remembered=True), []
    if result is None:
        return Found(observed, lineup, views), _children(observed, lineup, views, known)
    return _compared(observed, lineup, views, offline, result), []


def _compared(
    observed: ObservedExperiment,
    lineup: Lineup,
    views: tuple[StageView, ...],
    offline: Offline,
    result: TerminationMessage,
) -> Found:
    spec, numbers = observed.experiment.spec, dict(result.metrics)
    found = Found(observed, lineup, views, numbers=numbers, users=result.counts.get("users"), report_uri=result.uri)
    if incomplete := unknown_gates(spec, offline, numbers):
        return replace(found, incomplete=incomplete)
    if missed := missed_gates(spec, offline, numbers):
        return replace(found, missed=missed, conclusion=gates_missed(missed))
    return replace(found, conclusion=verdict(spec, offline, numbers)) if spec.traffic is None else found


def _is_remembered(observed: ObservedExperiment, compare: Stage) -> bool:
    """Return whether status says that this comparison is done, and of this spec: its Job may be gone since."""
    status = observed.experiment.status
    told = status.condition(ConditionType.OFFLINE_EVALUATED)
    same = any(row.key == compare.key and row.state == "Succeeded" for row in status.stages)
    return same and told is not None and (told.status, told.observed_generation) == ("True", observed.generation)


def _children(
    observed: ObservedExperiment, lineup: Lineup, views: tuple[StageView, ...], known: Results
) -> list[Child]:
    wanted = (view for view in views if view.start or (at_work(view) and inputs_known(view, known)))
    return [child for view in wanted for child in stage_children(observed, view.stage, known, lineup)]


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
    if any(job.active and job not in idle for job in observed.jobs):
        return tuple(found)  # a Pod that waits or is tried again reads the ConfigMap that its Job was made with
    found += [Deletion(ChildKind.CONFIG_MAP, n, "no Job reads it") for n in observed.config_maps if n not in kept]
    return tuple(found)


def _requeue_after(observed: ObservedExperiment, found: Found) -> float | None:
    waits = []
    if (waiting := waiting_since(observed)) is not None and found.lineup.missing is not None and found.stuck is None:
        limit = timedelta(seconds=observed.experiment.spec.progress_deadline_seconds)
        waits.append(max(0.0, (waiting.last_transition_time + limit - observed.now).total_seconds()))
    if found.lineup.missing is not None and waiting is None:
        waits.append(float(observed.experiment.spec.progress_deadline_seconds))
    if (end := _deadline(observed)) is not None and end > observed.now:
        waits.append((end - observed.now).total_seconds())
    if (look := next_time(observed)) is not None and found.lineup.missing is None:
        waits.append(max(0.0, (look - observed.now).total_seconds()))
    if found.online is not None and found.online.start is None and found.online.waiting and found.stuck is None:
        waits.append(float(observed.experiment.spec.progress_deadline_seconds))
    if observed.settings.laptop and any(v.job is not None and v.job.state is JobState.RUNNING for v in found.all_views):
        waits.append(float(observed.settings.progress_period_seconds))
    return min(waits, default=None)
