# SPDX-License-Identifier: Apache-2.0
"""The whole analysis: who wins, what is undefined, and what a false alarm costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from thinkrec_trainer.analysis.analyse import analyse
from thinkrec_trainer.analysis.results import Effect, Guard, Measured, Metric, Plan
from thinkrec_trainer.analysis.sums import Sums, sums_of, total

PLAN = Plan(control="old", metrics=(Metric("clicks"),), shares={"old": 50, "new": 50}, minimum_users=200)
THREE = replace(PLAN, shares={"old": 1, "new": 1, "third": 1})


def mean(at: float, users: int = 1000, *, seed: int = 0) -> Sums:
    return sums_of("Mean", np.random.default_rng([seed, users]).normal(at, 1.0, users))


def constant(value: float, users: int = 1000) -> Sums:
    return sums_of("Mean", np.full(users, value))


def clicks(arms: Mapping[str, Sums]) -> Measured:
    return {name: {"clicks": sums} for name, sums in arms.items()}


def effect(arms: Mapping[str, Sums], plan: Plan = PLAN) -> Effect:
    return analyse(clicks(arms), plan).effect("new", "clicks")


def test_a_better_variant_wins_and_everything_is_told() -> None:
    found = analyse(clicks({"old": mean(1.0), "new": mean(1.5, seed=1)}), PLAN)
    told = found.effect("new", "clicks")
    assert found.winner == "new"
    assert found.enough
    assert not found.mismatch.void
    assert told.lower < 0.5 < told.upper
    assert told.lower <= told.effect <= told.upper
    assert told.significant
    assert told.better
    assert told.users == 2000
    assert told.p_value < 0.05
    assert told.relative == pytest.approx(told.effect / found.values[0].value)
    assert [(value.variant, value.users) for value in found.values] == [("old", 1000), ("new", 1000)]
    assert all(value.lower < value.value < value.upper for value in found.values)


def test_direction_decides_who_is_better() -> None:
    arms = clicks({"old": mean(1.0), "new": mean(1.5, seed=1)})
    found = analyse(arms, replace(PLAN, metrics=(Metric("clicks", "Minimize"),)))
    assert found.effect("new", "clicks").significant
    assert not found.effect("new", "clicks").better
    assert found.winner == "old"


def test_no_difference_has_no_winner() -> None:
    found = analyse(clicks({"old": mean(1.0), "new": mean(1.0, seed=1)}), PLAN)
    assert found.winner is None
    assert found.enough


def test_below_the_minimum_there_is_no_verdict_however_large_the_effect() -> None:
    arms = {"old": mean(0.0, 199), "new": mean(9.0, 205, seed=1)}
    for plan in (PLAN, replace(PLAN, method="FixedHorizon", at_end=True)):
        found = analyse(clicks(arms), plan)
        assert (found.winner, found.enough) == (None, False)
        assert not found.effect("new", "clicks").significant


def test_one_variant_below_the_minimum_keeps_the_others_waiting() -> None:
    arms = {"old": mean(1.0), "new": mean(1.6, seed=1), "third": mean(1.0, 150, seed=2)}
    found = analyse(clicks(arms), replace(THREE, shares={"old": 1000, "new": 1000, "third": 150}))
    assert (found.enough, found.winner, found.mismatch.void) == (False, None, False)
    assert found.effect("new", "clicks").significant


def test_a_minimum_of_a_few_users_is_not_followed_by_the_always_valid_method() -> None:
    arms = clicks({"old": mean(0.0, 40), "new": mean(9.0, 41, seed=1)})
    plan = replace(PLAN, minimum_users=2)
    assert (plan.needed_users, analyse(arms, plan).enough, analyse(arms, plan).winner) == (50, False, None)
    assert analyse(arms, replace(plan, method="FixedHorizon", at_end=True)).winner == "new"


def test_a_fixed_horizon_decides_at_its_end_only() -> None:
    arms = {"old": mean(1.0), "new": mean(1.5, seed=1)}
    early, late = (effect(arms, replace(PLAN, method="FixedHorizon", at_end=end)) for end in (False, True))
    assert (early.lower, early.upper) == (late.lower, late.upper)
    assert early.lower > 0
    assert not early.significant
    assert late.significant


def test_a_sample_ratio_mismatch_voids_the_verdict() -> None:
    found = analyse(clicks({"old": mean(1.0, 1200), "new": mean(1.5, 1000, seed=1)}), PLAN)
    assert found.mismatch.void
    assert found.effect("new", "clicks").significant
    assert found.winner is None
    shares = replace(PLAN, shares={"old": 55, "new": 45})
    assert analyse(clicks({"old": mean(1.0, 1200), "new": mean(1.5, 1000, seed=1)}), shares).winner == "new"


def test_the_best_of_several_winners_is_named() -> None:
    arms = {"old": mean(1.0), "new": mean(1.6, seed=1), "third": mean(1.9, seed=2)}
    assert analyse(clicks(arms), THREE).winner == "third"


def test_control_wins_only_where_it_beats_everybody() -> None:
    worse = {"old": mean(1.0), "new": mean(0.4, seed=1), "third": mean(1.0, seed=2)}
    assert analyse(clicks(worse), THREE).winner is None
    assert analyse(clicks(worse | {"third": mean(0.3, seed=2)}), THREE).winner == "old"


def test_more_variants_widen_the_intervals_and_raise_the_p_values() -> None:
    arms = {"old": mean(1.0), "new": mean(1.2, seed=1), "third": mean(1.0, seed=2)}
    two, three = effect(arms), effect(arms, THREE)
    assert three.lower < two.lower
    assert three.p_value > two.p_value


@pytest.mark.parametrize("seed", range(8))
def test_significance_interval_and_p_value_agree_for_several_variants(seed: int) -> None:
    arms = {"old": mean(1.0, seed=seed), "new": mean(1.17, seed=90 + seed), "third": mean(1.1, seed=50 + seed)}
    for method in ("AlwaysValid", "FixedHorizon"):
        plan = replace(THREE, method=method, at_end=True)
        for found in analyse(clicks(arms), plan).effects:
            assert found.significant == (found.lower > 0 or found.upper < 0) == (found.p_value < plan.level)


def test_other_metrics_share_the_level_and_leave_the_first_one_its_own() -> None:
    arms = {"old": mean(1.0), "new": mean(1.1, seed=1)}
    named = ("clicks", "views", "likes", "shares")
    measured = {arm: dict.fromkeys(named, sums) for arm, sums in arms.items()}
    found = analyse(measured, replace(PLAN, metrics=tuple(Metric(name) for name in named)))
    alone, first, other = effect(arms), found.effect("new", "clicks"), found.effect("new", "views")
    assert (first.lower, first.upper, first.p_value) == (alone.lower, alone.upper, alone.p_value)
    assert other.lower < first.lower < first.upper < other.upper
    assert other.p_value == pytest.approx(min(1.0, 3 * first.p_value))


def test_only_the_first_metric_decides() -> None:
    metrics = (Metric("clicks"), Metric("watched"))
    arms = {
        "old": {"clicks": mean(1.0), "watched": mean(1.0)},
        "new": {"clicks": mean(1.0, seed=1), "watched": mean(2.0, seed=1)},
    }
    found = analyse(arms, replace(PLAN, metrics=metrics))
    assert found.effect("new", "watched").significant
    assert found.winner is None


@pytest.mark.parametrize("method", ["AlwaysValid", "FixedHorizon"])
def test_what_cannot_be_told_is_undefined_and_never_wins(method: str) -> None:
    plan = replace(PLAN, method=method, at_end=True, minimum_users=1)  # type: ignore[arg-type]
    cases: list[dict[str, Sums]] = [
        {"old": constant(0.1), "new": constant(0.1)},
        {"old": constant(0.0), "new": constant(1.0)},
        {"old": mean(1.0), "new": mean(1.0, 0)},
        {"old": mean(1.0, 0), "new": mean(1.0)},
        {"old": mean(1.0, 1), "new": mean(9.0, 1)},
        {"old": mean(1.0)},
        {},
    ]
    for arms in cases:
        found = analyse(clicks(arms), plan)
        told = found.effect("new", "clicks")
        assert found.winner is None
        assert not told.significant
        assert math.isnan(told.lower)
        assert math.isnan(told.p_value)


def test_a_metric_that_nobody_measured_is_undefined() -> None:
    arms = clicks({"old": mean(1.0), "new": mean(1.5, seed=1)})
    found = analyse(arms, replace(PLAN, metrics=(Metric("clicks"), Metric("absent"))))
    assert math.isnan(found.effect("new", "absent").effect)
    assert found.winner == "new"


def test_an_error_of_everybody_is_found_although_nothing_varies() -> None:
    arms = {"old": sums_of("Conversion", np.zeros(1000)), "new": sums_of("Conversion", np.ones(1000))}
    assert effect(arms).significant
    guard = Guard("clicks", "Minimize", maximum=0.01)
    assert analyse(clicks(arms), replace(PLAN, guards=(guard,))).guards[0].violated


def test_variants_outside_the_plan_are_left_out() -> None:
    arms = {"old": mean(1.0), "new": mean(1.5, seed=1)}
    assert analyse(clicks(arms | {"dead": mean(9.0)}), PLAN).winner == "new"


def test_cuped_narrows_the_interval_and_the_values_stay() -> None:
    generator = np.random.default_rng(9)
    earlier = generator.normal(size=(2, 1000))
    values = earlier + 0.5 * generator.normal(size=(2, 1000)) + np.array([[0.0], [0.1]])
    arms = clicks({name: sums_of("Mean", values[at], earlier[at]) for at, name in enumerate(("old", "new"))})
    with_, without = (analyse(arms, replace(PLAN, variance_reduction=how)) for how in ("CUPED", "None"))
    assert with_.values == without.values
    assert with_.effect("new", "clicks").reduction == pytest.approx(0.8, abs=0.03)
    assert without.effect("new", "clicks").reduction == 0
    assert (with_.winner, without.winner) == ("new", None)


def test_shards_do_not_change_the_findings() -> None:
    generator = np.random.default_rng(8)
    values = generator.lognormal(size=(2, 3000))
    whole = clicks({"old": sums_of("Mean", values[0]), "new": sums_of("Mean", values[1])})
    parts = [total(sums_of("Mean", part) for part in np.array_split(row, 17)) for row in values]
    one, other = (
        analyse(arms, PLAN).effects[0] for arms in (whole, clicks(dict(zip(PLAN.shares, parts, strict=True))))
    )
    assert other.lower == pytest.approx(one.lower, rel=1e-10)
    assert other.p_value == pytest.approx(one.p_value, rel=1e-10)


class TestGuards:
    """A bound is violated when the whole interval lies beyond it."""

    @staticmethod
    def violated(guard: Guard, control: float, variant: float, users: int = 2000) -> bool:
        arms = clicks({"old": mean(control, users), "new": mean(variant, users, seed=1)})
        (check,) = analyse(arms, replace(PLAN, guards=(guard,))).guards
        assert check.variant == "new"
        return check.violated

    @pytest.mark.parametrize(
        ("guard", "control", "variant", "expected"),
        [
            (Guard("clicks", maximum=1.0), 0.5, 1.2, True),
            (Guard("clicks", maximum=1.0), 0.5, 1.02, False),
            (Guard("clicks", "Maximize", minimum=1.0), 2.0, 0.8, True),
            (Guard("clicks", "Maximize", minimum=1.0), 2.0, 0.98, False),
            (Guard("clicks", max_regression=0.1), 1.0, 1.4, True),
            (Guard("clicks", max_regression=0.1), 1.0, 1.12, False),
            (Guard("clicks", max_regression=0.1), 1.0, 0.2, False),
            (Guard("clicks", "Maximize", max_regression=0.1), 1.0, 0.6, True),
            (Guard("clicks", "Maximize", max_regression=0.1), 1.0, 0.88, False),
            (Guard("clicks", "Maximize", max_regression=0.1), 1.0, 2.0, False),
            (Guard("clicks", max_regression=0.1), -1.0, -0.5, True),
            (Guard("clicks", max_regression=0.1), -1.0, -1.5, False),
            (Guard("clicks", max_regression=0.5), -1.0, -1.0, False),
        ],
    )
    def test_bounds(self, guard: Guard, control: float, variant: float, expected: bool) -> None:
        assert self.violated(guard, control, variant) is expected

    def test_nothing_is_violated_before_the_minimum_of_users(self) -> None:
        assert not self.violated(Guard("clicks", maximum=1.0), 0.5, 9.0, users=199)

    def test_a_regression_is_told_as_a_share_of_control(self) -> None:
        arms = clicks({"old": constant(2.0), "new": mean(3.0, seed=1)})
        (check,) = analyse(arms, replace(PLAN, guards=(Guard("clicks", "Maximize", minimum=0.0),))).guards
        assert check.regression == pytest.approx(-(check.value - 2.0) / 2.0)

    def test_guards_are_not_corrected_for_the_number_of_variants(self) -> None:
        arms = clicks({"old": mean(1.0), "new": mean(1.5, seed=1), "third": mean(1.0, seed=2)})
        guards = (Guard("clicks", maximum=1.3),)
        two, three = (analyse(arms, replace(plan, guards=guards)).guards[0] for plan in (PLAN, THREE))
        assert (two.lower, two.violated) == (three.lower, three.violated)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"metrics": ()}, "must not be empty"), ({"control": "x"}, "no expected share"), ({"level": 5.0}, "level")],
)
def test_plans_that_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAN, **change)  # type: ignore[arg-type]
