# SPDX-License-Identifier: Apache-2.0
"""The part of a decision that is about users: who answers, how they are shared out, looks, steps and the end. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from thinkrec_crds import findings
from thinkrec_crds.artifact import TerminationMessage
from thinkrec_crds.conditions import ConditionType, Reason
from thinkrec_crds.experiment_status import AnalysisStatus, Conclusion, VariantMetric
from thinkrec_operator.experiments import looks, verdict, work
from thinkrec_operator.experiments.children import stage_children
from thinkrec_operator.experiments.observed import ObservedExperiment
from thinkrec_operator.experiments.places import Place, place_children, places
from thinkrec_operator.experiments.shares import all_to_control, shares
from thinkrec_operator.experiments.simulated import simulated_stage
from thinkrec_operator.experiments.variants import Lineup
from thinkrec_operator.experiments.verdict import Heard
from thinkrec_operator.failure import Failure
from thinkrec_operator.graph import Input
from thinkrec_operator.plan import Child
from thinkrec_operator.work import StageView, at_work, inputs_known

Results = Mapping[str, TerminationMessage]


@dataclass(frozen=True, slots=True)
class Online:
    """Where the comparison on users stands."""

    places: tuple[Place, ...] = ()
    weights: Mapping[str, int] = field(default_factory=dict)
    start: datetime | None = None
    """When users were first shared out."""
    step: int | None = None
    step_start: datetime | None = None
    analysis: AnalysisStatus | None = None
    metrics: Mapping[str, tuple[VariantMetric, ...]] = field(default_factory=dict)
    """Of a new look."""
    users: Mapping[str, int] = field(default_factory=dict)
    """Of a new look."""
    exposures: Mapping[str, int] = field(default_factory=dict)
    """Of a new look."""
    views: tuple[StageView, ...] = ()
    """The look at work."""
    children: tuple[Child, ...] = ()
    failure: Failure | None = None
    conclusion: Conclusion | None = None

    @property
    def waiting(self) -> tuple[Place, ...]:
        """Return the variants that cannot answer."""
        return tuple(place for place in self.places if not place.ready)


def decide(observed: ObservedExperiment, lineup: Lineup) -> Online:
    """Return where the comparison on users stands, and the children that it needs."""
    spec, status, now = observed.experiment.spec, observed.experiment.status, observed.now
    before = with_control(observed)
    if spec.suspend:
        return before
    before, found = replace(before, step_start=status.step_start_time), places(observed, lineup)
    pods = () if observed.settings.laptop else tuple(place_children(observed, found))
    here = replace(before, places=found, children=pods)
    if status.traffic_start_time is None:
        if here.waiting:
            return replace(here, failure=_stuck(observed, here))
        canary = spec.traffic is not None and spec.traffic.mode == "Canary"
        first = (0, now) if canary else (None, None)
        return replace(here, weights=shares(spec, 0), start=now, step=first[0], step_start=first[1])
    if here.step is not None and here.step_start is None:  # after a suspension a step's pause begins anew
        here = replace(here, step_start=now)
    return _looked_at(observed, lineup, replace(here, weights=shares(spec, here.step)))


def with_control(observed: ObservedExperiment) -> Online:
    """Return that all users are with control, and nobody is looked at: suspended, or some variant is missing."""
    status = observed.experiment.status
    return Online(
        weights=all_to_control(observed.experiment.spec),
        start=status.traffic_start_time,
        step=status.current_step_index,
        analysis=status.analysis,
    )


def _stuck(observed: ObservedExperiment, online: Online) -> Failure | None:
    """Return why the variants do not get ready, once they will not by themselves or have had their time."""
    reason = Reason.SERVING_NOT_READY
    words = waiting_words(online)
    if any(place.stuck for place in online.waiting):
        return Failure(reason.value, words)
    since = observed.experiment.status.condition(ConditionType.VARIANTS_READY)
    limit = timedelta(seconds=observed.experiment.spec.progress_deadline_seconds)
    waited = since is not None and since.reason == reason and observed.now - since.last_transition_time >= limit
    return Failure(reason.value, f"{words} `progressDeadlineSeconds` is over.") if waited else None


def waiting_words(online: Online) -> str:
    """Return which variants cannot answer, and why."""
    return "; ".join(f"{place.contender.name}: {place.trouble}" for place in online.waiting) + "."


def _looked_at(observed: ObservedExperiment, lineup: Lineup, online: Online) -> Online:
    """Take the look that is due, or hear what it found."""
    online, look = replace(online, failure=_silent(observed, online)), looks.wanted(observed)
    if look is None:
        return online
    known = work.results(observed, lineup)
    acted = (simulated_stage(observed, lineup, look),) if observed.settings.laptop else ()
    stage = looks.stage(observed, lineup, look, tuple(Input(one.role, one.kind, one.key) for one in acted))
    views = work.views(observed, (*acted, stage), known)
    result = known.get(stage.key)
    if result is None or result.digest is None:
        wanted = (view for view in views if view.start or (at_work(view) and inputs_known(view, known)))
        jobs = [child for view in wanted for child in stage_children(observed, view.stage, known, lineup)]
        return replace(online, views=views, children=(*online.children, *jobs))
    return _heard(
        observed, replace(online, views=views), Heard(look, stage.key, result.digest, result.uri, result.metrics)
    )


def _silent(observed: ObservedExperiment, online: Online) -> Failure | None:
    words = verdict.silent(observed.experiment.spec.analysis, online.analysis)
    return Failure(Reason.METRIC_UNAVAILABLE.value, words) if words else None


def _heard(observed: ObservedExperiment, online: Online, heard: Heard) -> Online:
    """Return what follows from a look: the end, the next step of a canary, or nothing."""
    spec, status = observed.experiment.spec, observed.experiment.status
    told = verdict.analysis_status(spec, heard, online.analysis)
    planned = looks.planned_end(spec, status)
    assert spec.traffic is not None, "only an experiment with users is looked at"
    ripe = heard.look.end >= planned if planned is not None else spec.traffic.mode == "ABTest"
    found = replace(
        online,
        analysis=told,
        metrics={v.name: verdict.values(spec, heard.numbers, place) for place, v in enumerate(spec.variants)},
        users={v.name: findings.users(heard.numbers, place) for place, v in enumerate(spec.variants)},
        exposures={v.name: findings.exposures(heard.numbers, place) for place, v in enumerate(spec.variants)},
        conclusion=verdict.conclusion(spec, heard, told, ripe=ripe),
    )
    found = replace(found, failure=_silent(observed, found))
    return found if found.conclusion is not None else _next_step(observed, found, heard)


def _next_step(observed: ObservedExperiment, online: Online, heard: Heard) -> Online:
    """Go on to a canary's next step, once a look covers the whole pause and no guardrail is violated."""
    traffic, start = observed.experiment.spec.traffic, online.step_start
    assert traffic is not None, "only an experiment with users is looked at"
    if traffic.mode != "Canary" or traffic.steps is None or start is None or online.analysis is None:
        return online
    step = min(online.step or 0, len(traffic.steps) - 1)
    over = heard.look.end >= start + timedelta(seconds=traffic.steps[step].pause_seconds)
    if not over or _holds(observed, online, heard) or step + 1 >= len(traffic.steps):
        return replace(online, step=step)
    weights = shares(observed.experiment.spec, step + 1)
    return replace(online, step=step + 1, step_start=observed.now, weights=weights)


def _holds(observed: ObservedExperiment, online: Online, heard: Heard) -> bool:
    """Return whether a canary stays on its step: a variant is away, a guardrail is silent, or violated and heeded."""
    heeded = observed.experiment.spec.rollback_policy != "None"
    violated = online.analysis is not None and online.analysis.violations > 0
    return bool(online.waiting) or (heeded and (violated or verdict.unguarded(heard.numbers)))


def next_time(observed: ObservedExperiment) -> datetime | None:
    """Return when time alone asks for the next decision."""
    spec, status = observed.experiment.spec, observed.experiment.status
    if status.traffic_start_time is None or spec.suspend:
        return None
    return looks.next_time(spec, status.traffic_start_time, observed.now)
