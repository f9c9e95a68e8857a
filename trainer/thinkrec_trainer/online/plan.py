# SPDX-License-Identifier: Apache-2.0
"""The manifest's settings as the statistics read them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from thinkrec_crds.analysis_spec import Analysis
from thinkrec_crds.fields import as_float
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_trainer.analysis.results import Guard, Metric, Plan
from thinkrec_trainer.analysis.sequences import FEWEST
from thinkrec_trainer.online.quantities import guard_key, metric_key


def plan_of(given: AnalyseParameters, analysis: Analysis, shares: Mapping[str, float]) -> Plan:
    """Return the plan of everything that is counted per user.

    Without shares (nobody came, or no bucket was kept) they are taken to be equal: no user is held against them.
    """
    return Plan(
        control=given.control,
        metrics=tuple(
            Metric(metric_key(metric.name), metric.direction)
            for metric in analysis.metrics
            if metric.prometheus is None
        ),
        shares={name: shares.get(name, 0.0) if shares else 1.0 for name in given.variants},
        guards=tuple(
            Guard(
                guard_key(guard.name),
                guard.direction,
                minimum=_number(guard.minimum),
                maximum=_number(guard.maximum),
                max_regression=_number(guard.max_regression),
            )
            for guard in analysis.guardrails
            if guard.prometheus is None
        ),
        minimum_users=analysis.min_sample_size,
        level=as_float(analysis.significance_level),
        method=analysis.method,
        variance_reduction=analysis.variance_reduction,
        at_end=given.at_end,
    )


def plan_of_groups(plan: Plan, groups: int) -> Plan:
    """Return the plan of the deciding metric within one of so many groups: hints, which may be looked at at any time.

    A group has a part of the users, and needs that part of the minimum; it says nothing of who wins.
    """
    return replace(
        plan,
        metrics=plan.metrics[:1],
        guards=(),
        minimum_users=max(FEWEST, plan.minimum_users // max(1, groups)),
        method="AlwaysValid",
    )


def _number(text: str | None) -> float | None:
    return None if text is None else as_float(text)
