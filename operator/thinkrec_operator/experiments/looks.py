# SPDX-License-Identifier: Apache-2.0
"""When an experiment's users are looked at, and the stage that does it. Pure.

Looks are numbered from the start of the traffic, one each period, so that their times and names follow from the clock:
deciding twice, or by another process after a crash, asks for the same work. One look is at work at a time; those that
were missed meanwhile are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from thinkrec_crds.experiment import ExperimentSpec
from thinkrec_crds.experiment_status import ExperimentStatus
from thinkrec_crds.findings import PREVIOUS_ROLE
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_operator.experiments.observed import ObservedExperiment
from thinkrec_operator.experiments.places import gateway_of
from thinkrec_operator.experiments.stages import made_stage
from thinkrec_operator.experiments.variants import Lineup
from thinkrec_operator.graph import Input, Stage

PERIOD_SECONDS = 300
"""Where there is no `spec.analysis` to say: of a Mirror."""
_NAME = f"{StageKind.ANALYSE}-"


@dataclass(frozen=True, slots=True)
class Look:
    """One analysis."""

    number: int
    """From 1."""
    end: datetime
    """Events before this are looked at."""
    at_end: bool
    """The planned time is over."""


def period(spec: ExperimentSpec) -> timedelta:
    """Return the time between two looks."""
    return timedelta(seconds=spec.analysis.period_seconds if spec.analysis is not None else PERIOD_SECONDS)


def number_due(spec: ExperimentSpec, start: datetime, now: datetime) -> int:
    """Return the number of the newest look whose time has come; 0 before the first."""
    return max(0, (now - start) // period(spec))


def next_time(spec: ExperimentSpec, start: datetime, now: datetime) -> datetime:
    """Return when the next look's time comes."""
    return start + (number_due(spec, start, now) + 1) * period(spec)


def planned_end(spec: ExperimentSpec, status: ExperimentStatus) -> datetime | None:
    """Return when the experiment has run as long as was asked for; None: not known yet, or no time was named."""
    traffic, start = spec.traffic, status.traffic_start_time
    assert traffic is not None, "without traffic there is nothing to plan"
    ends = []
    if traffic.duration_seconds is not None and start is not None:
        ends.append(start + timedelta(seconds=traffic.duration_seconds))
    if traffic.mode == "Canary":
        assert traffic.steps is not None, "a rule of the resource"
        last = (status.current_step_index or 0) >= len(traffic.steps) - 1
        if not last or status.step_start_time is None:
            return None
        ends.append(status.step_start_time + timedelta(seconds=traffic.steps[-1].pause_seconds))
    return max(ends, default=None)


def wanted(observed: ObservedExperiment) -> Look | None:
    """Return the look that is to be taken now, or is at work; None while none is due."""
    spec, status = observed.experiment.spec, observed.experiment.status
    start = status.traffic_start_time
    if start is None:
        return None
    done, due = status.analysis.number if status.analysis else 0, number_due(spec, start, observed.now)
    number = max((n for n in _at_work(status) if done < n <= due), default=due)
    if number <= done:
        return None
    end, planned = start + number * period(spec), planned_end(spec, status)
    return Look(number, end, at_end=planned is not None and end >= planned)


def _at_work(status: ExperimentStatus) -> list[int]:
    """Return the numbers of looks that status tells of and that have not failed: one that failed is not repeated."""
    rows = [row for row in status.stages if row.kind == StageKind.ANALYSE.value and row.state != "Failed"]
    return [int(text) for row in rows if (text := row.name.removeprefix(_NAME)).isdecimal()]


def stage(observed: ObservedExperiment, lineup: Lineup, look: Look, events: tuple[Input, ...] = ()) -> Stage:
    """Return the stage of a look; `events` are simulated ones, none where real ones lie in the store."""
    experiment, spec = observed.experiment, observed.experiment.spec
    control, gateway = lineup.control(spec.control_variant_name), gateway_of(spec)
    assert spec.traffic is not None, "only users can be looked at"
    assert experiment.status.traffic_start_time is not None, "before the start there is nothing to look at"
    given = AnalyseParameters(
        experiment=experiment.metadata.uid,
        model=gateway,
        events_uri=None if events else observed.models[gateway].model.spec.artifacts.storage_uri,
        mode=spec.traffic.mode,
        control=spec.control_variant_name,
        variants=tuple(variant.name for variant in spec.variants),
        start=experiment.status.traffic_start_time,
        end=look.end,
        number=look.number,
        analysis=spec.analysis,
        at_end=look.at_end,
    )
    before = experiment.status.analysis
    inputs = [Input("bundle", StageKind.BUNDLE, control.record.bundle.key), *events]
    if before is not None and before.key is not None:
        inputs.append(Input(PREVIOUS_ROLE, StageKind.ANALYSE, before.key))
    return made_stage(control, StageKind.ANALYSE, f"{_NAME}{look.number}", tuple(inputs), given)
