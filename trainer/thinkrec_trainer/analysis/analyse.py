# SPDX-License-Identifier: Apache-2.0
"""From the variants' sums to findings, in one pure function that is called at every look."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from thinkrec_trainer.analysis import cuped, fixed, sequences
from thinkrec_trainer.analysis.correction import corrected_level, corrected_p_value
from thinkrec_trainer.analysis.estimates import Difference, Estimate, Interval, estimate
from thinkrec_trainer.analysis.floors import cautious, with_pseudo_users
from thinkrec_trainer.analysis.ratio_mismatch import mismatch
from thinkrec_trainer.analysis.results import Effect, Findings, Guard, GuardCheck, Measured, Metric, Plan, Value
from thinkrec_trainer.analysis.sums import Sums, no_users

Arms = Mapping[str, Sums]
"""Variant -> sums of one metric."""


def analyse(measured: Measured, plan: Plan) -> Findings:
    """Compare every variant of the plan with control.

    Each variant's number of users is that of the first metric: every exposed user belongs to every metric's sums, with
    or without events. Variants that are measured but have no share in the plan are left out.
    """
    names = [metric.name for metric in plan.metrics] + [guard.name for guard in plan.guards]
    arms = {name: _arms(measured, name, plan) for name in names}
    users = {variant: sums.users for variant, sums in arms[plan.metrics[0].name].items()}
    sample = mismatch(users, plan.shares)
    effects = tuple(found for metric in plan.metrics for found in _effects(metric, arms[metric.name], plan))
    enough = min(users.values()) >= plan.needed_users
    return Findings(
        values=tuple(
            _value(metric.name, variant, sums, plan)
            for metric in plan.metrics
            for variant, sums in arms[metric.name].items()
        ),
        effects=effects,
        guards=tuple(
            _check(guard, variant, arms[guard.name], replace(plan, method="AlwaysValid"))
            for guard in plan.guards
            for variant in plan.others
        ),
        mismatch=sample,
        enough=enough,
        winner=_winner(effects, plan) if enough and not sample.void else None,
    )


def _arms(measured: Measured, metric: str, plan: Plan) -> Arms:
    """Return each variant's sums; a variant that was not measured has no users."""
    found = {variant: sums[metric] for variant, sums in measured.items() if variant in plan.shares and metric in sums}
    nobody = next(iter(found.values())).of_nobody() if found else no_users("Mean")
    return {variant: found.get(variant, nobody) for variant in plan.shares}


def _value(metric: str, variant: str, sums: Sums, plan: Plan) -> Value:
    given = estimate(sums)
    interval = _around(given, sums, plan)
    return Value(variant, metric, given.value, interval.lower, interval.upper, sums.users)


def _effects(metric: Metric, arms: Arms, plan: Plan) -> list[Effect]:
    shared = cuped.adjustment(list(arms.values())) if plan.variance_reduction == "CUPED" else None
    return [_effect(metric, variant, arms, shared, plan) for variant in plan.others]


def _effect(metric: Metric, variant: str, arms: Arms, shared: cuped.Adjustment | None, plan: Plan) -> Effect:
    plain = Difference(estimate(arms[plan.control]), estimate(arms[variant]))
    given = Difference(cuped.adjusted(arms[plan.control], shared), cuped.adjusted(arms[variant], shared))
    count = plan.comparisons(metric)
    interval = _compare(_variances(given, variant, arms, plan), plan, level=corrected_level(plan.level, count))
    return Effect(
        variant=variant,
        metric=metric.name,
        effect=given.value,
        lower=interval.lower,
        upper=interval.upper,
        p_value=corrected_p_value(interval.p_value, count),
        significant=interval.excludes_zero and _may_decide(given, plan),
        better=given.value > 0 if metric.direction == "Maximize" else given.value < 0,
        relative=_share(given.value, plain.control.value),
        users=given.control.users + given.variant.users,
        reduction=1 - given.variance / plain.variance if plain.variance > 0 else 0.0,
    )


def _check(guard: Guard, variant: str, arms: Arms, plan: Plan) -> GuardCheck:
    """Hold a variant against the guard's bounds. CUPED is left out: bounds are about the values themselves.

    At every look, whatever the method is: a guard that speaks at the planned end only guards nobody.
    """
    control, given = estimate(arms[plan.control]), estimate(arms[variant])
    interval = _around(given, arms[variant], plan)
    beyond = [
        guard.maximum is not None and interval.lower > guard.maximum,
        guard.minimum is not None and interval.upper < guard.minimum,
        guard.max_regression is not None and _regressed(guard, guard.max_regression, variant, arms, plan),
    ]
    worse = given.value - control.value if guard.direction == "Minimize" else control.value - given.value
    return GuardCheck(
        variant=variant,
        guard=guard.name,
        value=given.value,
        lower=interval.lower,
        upper=interval.upper,
        regression=_share(worse, control.value),
        users=given.users,
        violated=any(beyond) and _may_decide(Difference(control, given), plan),
    )


def _regressed(guard: Guard, tolerated: float, variant: str, arms: Arms, plan: Plan) -> bool:
    """Return whether the variant is worse than control by more than is tolerated, and by more than chance.

    Asked of variant - (1 ± tolerated) control, a difference like any other: no interval of a quotient is needed.
    """
    given = _variances(Difference(estimate(arms[plan.control]), estimate(arms[variant])), variant, arms, plan)
    worse = 1 if guard.direction == "Minimize" else -1
    factor = 1 + worse * math.copysign(tolerated, given.control.value)
    interval = _compare(Difference(given.control.scaled(factor), given.variant), plan, level=plan.level)
    return interval.lower > 0 if worse > 0 else interval.upper < 0


def _winner(effects: tuple[Effect, ...], plan: Plan) -> str | None:
    """Return the best of the variants that beat control; control where it beats all of them."""
    deciding = [found for found in effects if found.metric == plan.metrics[0].name and found.significant]
    better = [found for found in deciding if found.better]
    if better:
        return max(better, key=lambda found: abs(found.effect)).variant
    return plan.control if deciding and len(deciding) == len(plan.others) else None


def _variances(given: Difference, variant: str, arms: Arms, plan: Plan) -> Difference:
    return given if plan.method == "FixedHorizon" else cautious(given, arms[plan.control], arms[variant])


def _compare(given: Difference, plan: Plan, *, level: float) -> Interval:
    if plan.method == "FixedHorizon":
        return fixed.compare(given, level=level)
    return sequences.compare(given, minimum=plan.minimum_users, level=level)


def _around(given: Estimate, sums: Sums, plan: Plan) -> Interval:
    if plan.method == "FixedHorizon":
        return fixed.single(given, level=plan.level)
    return sequences.single(with_pseudo_users(given, sums), minimum=plan.minimum_users, level=plan.level)


def _may_decide(given: Difference, plan: Plan) -> bool:
    return given.fewest_users >= plan.needed_users and (plan.method == "AlwaysValid" or plan.at_end)


def _share(part: float, whole: float) -> float:
    return part / abs(whole) if whole else math.nan
