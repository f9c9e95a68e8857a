# SPDX-License-Identifier: Apache-2.0
"""What is known now of a Mirror: each variant by itself, for nobody saw what it answered. Pure.

There is nothing to decide at a planned end, so intervals are those that may be looked at any time, whatever the method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from thinkrec_crds.analysis_spec import Analysis, Guardrail
from thinkrec_crds.findings import Look
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_trainer.analysis.analyse import analyse
from thinkrec_trainer.analysis.ratio_mismatch import Mismatch
from thinkrec_trainer.analysis.results import Findings, GuardCheck, Metric, Plan, Value
from thinkrec_trainer.online.gathered import Gathered
from thinkrec_trainer.online.plan import plan_of
from thinkrec_trainer.online.quantities import guard_key
from thinkrec_trainer.online.readings import Readings, beyond
from thinkrec_trainer.online.told import Entry, Told, known
from thinkrec_trainer.online.verdict import Known, arms_of, cells_of


def mirrored(given: AnalyseParameters, analysis: Analysis, gathered: Gathered, readings: Readings) -> Known:
    """Return values of the copies, and guardrails held against them. There is nothing to decide."""
    users = people(given, gathered)
    values = _values(given, analysis, gathered)
    found = Findings(
        values=tuple(values.values()),
        effects=(),
        guards=tuple(
            check
            for guard in analysis.guardrails
            for name in users
            if (check := _check(guard, values.get((guard_key(guard.name), name)))) is not None
        ),
        mismatch=Mismatch(math.nan),
        enough=min(users.values()) >= analysis.min_sample_size,
        winner=None,
    )
    return Known(Told(given, analysis, found, readings, _undefined).look(users))


def unjudged(given: AnalyseParameters, gathered: Gathered) -> Known:
    """Return what is known of a Mirror for which no analysis was asked."""
    return Known(Look(end=given.end, users=people(given, gathered)))


def people(given: AnalyseParameters, gathered: Gathered) -> dict[str, int]:
    """Return how many users' requests each variant got a copy of."""
    return {name: gathered.counts.people.get(name, 0) for name in given.variants if name != given.control}


def _values(given: AnalyseParameters, analysis: Analysis, gathered: Gathered) -> Mapping[tuple[str, str], Value]:
    """Return everything that is counted of the copies; to the statistics guardrails are metrics here."""
    plan, places = _plan(given, analysis, gathered), np.arange(len(given.variants))
    if plan is None:
        return {}
    arms = {key: arms_of(found, cells_of(places, given.variants)) for key, found in gathered.moments.items()}
    found = analyse({name: {key: arm[name] for key, arm in arms.items()} for name in given.variants}, plan)
    return {(one.metric, one.variant): one for one in found.values}


def _plan(given: AnalyseParameters, analysis: Analysis, gathered: Gathered) -> Plan | None:
    plan = plan_of(given, analysis, {})
    names = [*(metric.name for metric in plan.metrics), *(guard.name for guard in plan.guards)]
    metrics = tuple(Metric(name) for name in names if name in gathered.moments)
    return replace(plan, metrics=metrics, guards=(), method="AlwaysValid") if metrics else None


def _check(guard: Guardrail, found: Value | None) -> GuardCheck | None:
    """Hold a variant's copies against the fixed bounds; None where the copies tell nothing of this guardrail.

    With too few users there is no interval, and what has none lies beyond nothing.
    """
    if found is None:
        return None
    return GuardCheck(
        variant=found.variant,
        guard=guard_key(guard.name),
        value=found.value,
        lower=found.lower,
        upper=found.upper,
        regression=math.nan,
        users=found.users,
        violated=beyond(guard, known(found.lower), known(found.upper)),
    )


def _undefined(entry: Entry, found: Findings) -> str | None:
    """Return why a metric or guardrail of users has no value in a Mirror."""
    if entry.event is not None:
        return "users of a Mirror see control's answers only, so events tell nothing of its variants"
    if entry.request is not None and entry.request.field == "Empty":
        return "copies of a Mirror do not tell whether an answer was empty"
    if isinstance(entry, Guardrail) and entry.minimum is None and entry.maximum is None:
        return "control's requests are not copied in a Mirror, so there is no value that maxRegression could refer to"
    return None
