# SPDX-License-Identifier: Apache-2.0
"""Users of a laptop: a stage that acts out what users would have done since the last look. Pure.

It takes over the events of the stage before, so that a look reads one artifact; which one that was is in status.
"""

from __future__ import annotations

from thinkrec_crds.analysis_spec import EventMetric
from thinkrec_crds.comparison import VARIANT_PREFIX
from thinkrec_crds.experiment import ExperimentSpec
from thinkrec_crds.findings import EARLIER_ROLE, EVENTS_PREFIX
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import SimulateParameters
from thinkrec_operator.experiments import looks
from thinkrec_operator.experiments.looks import Look
from thinkrec_operator.experiments.observed import ObservedExperiment
from thinkrec_operator.experiments.places import gateway_of
from thinkrec_operator.experiments.shares import shares
from thinkrec_operator.experiments.stages import made_stage, score_stages
from thinkrec_operator.experiments.variants import Lineup
from thinkrec_operator.graph import Input, Stage

FEWEST_USERS, MOST_USERS = 2000, 50_000
"""Simulated ones who come in one period: a few looks shall reach the sample that was asked for."""


def users_of_a_look(spec: ExperimentSpec) -> int:
    """Return how many simulated users come between two looks."""
    wanted = spec.analysis.min_sample_size if spec.analysis is not None else 0
    return min(MOST_USERS, max(FEWEST_USERS, wanted * len(spec.variants) // 2))


def simulated_stage(observed: ObservedExperiment, lineup: Lineup, look: Look) -> Stage:
    """Return the stage whose events a look reads: all since the start."""
    experiment, spec = observed.experiment, observed.experiment.spec
    status = experiment.status
    assert spec.traffic is not None, "without traffic there are no users"
    assert status.traffic_start_time is not None, "users come once the traffic has begun"
    control, done = lineup.control(spec.control_variant_name), status.analysis.number if status.analysis else 0
    begin = status.traffic_start_time + done * looks.period(spec)
    weights = shares(spec, status.current_step_index)
    given = SimulateParameters(
        experiment=experiment.metadata.uid,
        model=gateway_of(spec),
        mode=spec.traffic.mode,
        control=control.name,
        weights=tuple(sorted(weights.items(), key=lambda item: (item[0] != control.name, item[0]))),
        revisions=tuple((one.name, one.record.name) for one in lineup.contenders),
        start=begin,
        end=look.end,
        users=users_of_a_look(spec) * (look.number - done),
        first_user=users_of_a_look(spec) * done,
        events=_measured(spec),
    )
    inputs = [
        Input(f"{VARIANT_PREFIX}{one.name}", StageKind.SCORE, stage.key)
        for one, stage in zip(lineup.contenders, score_stages(spec, lineup), strict=True)
    ]
    if (before := _before(observed, done)) is not None:
        inputs.append(Input(EARLIER_ROLE, StageKind.SIMULATE, before))
    return made_stage(control, StageKind.SIMULATE, f"{EVENTS_PREFIX}{look.number}", tuple(inputs), given)


def _measured(spec: ExperimentSpec) -> tuple[EventMetric, ...]:
    """Return the events that are measured, each once."""
    if spec.analysis is None:
        return ()
    found = [metric.event for metric in spec.analysis.metrics] + [rail.event for rail in spec.analysis.guardrails]
    return tuple(dict.fromkeys(event for event in found if event is not None))


def _before(observed: ObservedExperiment, done: int) -> str | None:
    """Return the key of the stage that the last look read."""
    rows = observed.experiment.status.stages
    return next((row.key for row in rows if row.name == f"{EVENTS_PREFIX}{done}"), None)
