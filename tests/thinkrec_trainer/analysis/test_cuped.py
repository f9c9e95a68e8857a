# SPDX-License-Identifier: Apache-2.0
"""CUPED: the same expectation, less variance, and nothing at all where there is nothing to use."""

from __future__ import annotations

import numpy as np
import pytest

from thinkrec_trainer.analysis.cuped import Adjustment, adjusted, adjustment
from thinkrec_trainer.analysis.estimates import Difference, Estimate, estimate
from thinkrec_trainer.analysis.sums import Floats, Sums, sums_of


def gap(control: Sums, variant: Sums) -> Difference:
    shared = adjustment([control, variant])
    return Difference(adjusted(control, shared), adjusted(variant, shared))


def users(count: int, generator: np.random.Generator, *, effect: float = 0.0, known: float = 1.0) -> Sums:
    earlier = generator.gamma(2.0, 3.0, count)
    values = 0.8 * earlier + generator.normal(size=count) + effect
    earlier[generator.random(count) >= known] = np.nan
    return sums_of("Mean", values, earlier)


def test_theta_is_the_slope_of_a_regression_with_one_intercept_per_variant() -> None:
    generator = np.random.default_rng(0)
    earlier, arm = generator.normal(size=300), np.repeat([0.0, 1.0], [100, 200])
    values = 2.0 * earlier + 5.0 * arm + generator.normal(size=300)
    shared = adjustment([sums_of("Mean", values[arm == side], earlier[arm == side]) for side in (0, 1)])
    design = np.column_stack([arm == 0, arm == 1, earlier]).astype(np.float64)
    slope = np.linalg.lstsq(design, values, rcond=None)[0][2]
    assert shared is not None
    np.testing.assert_allclose(shared.theta, [0.0, slope], atol=1e-10)


def test_an_effect_added_to_one_variant_is_found_unchanged() -> None:
    """Theta is pooled within variants; were it not, part of the effect would be explained away."""
    generator = np.random.default_rng(1)
    earlier, values = generator.normal(size=(2, 400)), generator.normal(size=(2, 400))
    control = sums_of("Mean", values[0], earlier[0])
    effects = [gap(control, sums_of("Mean", values[1] + shift, earlier[1])).value for shift in (0.0, 3.0)]
    assert effects[1] - effects[0] == pytest.approx(3.0, abs=1e-12)


def test_over_all_users_the_adjustment_cancels() -> None:
    generator = np.random.default_rng(8)
    arms = [users(count, generator) for count in (40, 90)]
    shared = adjustment(arms)
    before, after = (
        sum(one.value * one.users for one in told)
        for told in (map(estimate, arms), [adjusted(arm, shared) for arm in arms])
    )
    assert after == pytest.approx(before)
    assert adjusted(arms[0], shared).value != pytest.approx(estimate(arms[0]).value)


@pytest.mark.parametrize("known", [1.0, 0.5])
def test_the_effect_is_unbiased_its_variance_is_told_rightly_and_is_smaller(known: float) -> None:
    generator = np.random.default_rng(2)
    found = [
        (gap(control, variant), Difference(estimate(control), estimate(variant)))
        for control, variant in (
            (users(200, generator, known=known), users(150, generator, effect=0.5, known=known)) for _ in range(1500)
        )
    ]
    effects = np.array([one.value for one, _ in found])
    told, plain = (np.mean([pair[at].variance for pair in found]) for at in (0, 1))
    assert abs(effects.mean() - 0.5) < 4 * effects.std() / np.sqrt(len(effects))
    assert told == pytest.approx(effects.var(), rel=0.15)
    assert told < (0.12 if known == 1 else 0.62) * plain


def test_a_ratio_is_adjusted_by_its_linearisation() -> None:
    generator = np.random.default_rng(3)

    def arm(count: int) -> Sums:
        taste = generator.beta(2, 6, count)
        before, during = (generator.poisson(10, count) for _ in range(2))
        history = np.column_stack([generator.binomial(before, taste), before]).astype(np.float64)
        return sums_of("Ratio", np.column_stack([generator.binomial(during, taste), during]), history)

    pairs = [(arm(300), arm(300)) for _ in range(800)]
    effects = np.array([gap(*pair).value for pair in pairs])
    told = np.mean([gap(*pair).variance for pair in pairs])
    plain = np.mean([Difference(*map(estimate, pair)).variance for pair in pairs])
    assert abs(effects.mean()) < 4 * effects.std() / np.sqrt(len(effects))
    assert told == pytest.approx(effects.var(), rel=0.15)
    assert told < 0.9 * plain


def none_known(values: Floats) -> Floats:
    return np.full(len(values), np.nan)


@pytest.mark.parametrize("history", [none_known, np.zeros_like, np.ones_like])
def test_without_a_covariate_that_varies_nothing_is_adjusted(history: type[Floats]) -> None:
    values = np.random.default_rng(4).normal(size=(2, 50))
    arms = [sums_of("Mean", row, history(row)) for row in values]
    assert adjustment(arms) is None
    assert adjusted(arms[0], None) == estimate(arms[0])


def test_covariates_that_repeat_each_other_count_once() -> None:
    generator = np.random.default_rng(5)
    values, earlier = generator.normal(size=(2, 80)), 1e6 * generator.normal(size=(2, 80))
    values += earlier * 1e-6
    once = gap(*(sums_of("Mean", x, c) for x, c in zip(values, earlier, strict=True)))
    twice = gap(*(sums_of("Mean", x, np.column_stack([c, 3 * c])) for x, c in zip(values, earlier, strict=True)))
    assert twice.value == pytest.approx(once.value, rel=1e-9)
    assert twice.variance == pytest.approx(once.variance, rel=1e-9)


def test_variants_without_users_do_no_harm() -> None:
    some = users(50, np.random.default_rng(6))
    assert adjustment([some.of_nobody(), some.of_nobody()]) is None
    shared = adjustment([some, some.of_nobody()])
    assert isinstance(shared, Adjustment)
    empty = adjusted(some.of_nobody(), shared)
    assert isinstance(empty, Estimate)
    assert np.isnan(empty.value)
