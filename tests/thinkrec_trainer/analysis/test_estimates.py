# SPDX-License-Identifier: Apache-2.0
"""Values and variances against numpy, the jackknife and the bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest

from thinkrec_trainer.analysis.estimates import UNDEFINED, Difference, Estimate, estimate
from thinkrec_trainer.analysis.sums import Floats, sums_of


def clicks_and_views(users: int, *, seed: int) -> Floats:
    """Correlated numerators and denominators, some of them 0."""
    generator = np.random.default_rng(seed)
    views = generator.poisson(generator.gamma(1.0, 8.0, users))
    return np.column_stack([generator.binomial(views, generator.beta(2, 6, users)), views]).astype(np.float64)


def test_mean_and_conversion_are_those_of_numpy() -> None:
    generator = np.random.default_rng(1)
    values, converted = generator.lognormal(size=500), (generator.random(500) < 0.2).astype(np.float64)
    for kind, given in (("Mean", values), ("Conversion", converted)):
        found = estimate(sums_of(kind, given))  # type: ignore[arg-type]
        assert found.value == pytest.approx(given.mean(), rel=1e-12)
        assert found.variance == pytest.approx(given.var(ddof=1) / 500, rel=1e-12)
    share = converted.mean()
    assert estimate(sums_of("Conversion", converted)).spread == pytest.approx(share * (1 - share) * 500 / 499)


def test_a_ratio_is_that_of_the_sums_and_not_the_mean_of_ratios() -> None:
    found = estimate(sums_of("Ratio", np.array([[1.0, 1.0], [0.0, 9.0]])))
    assert found.value == pytest.approx(0.1)


def test_the_delta_method_agrees_with_the_jackknife() -> None:
    values = clicks_and_views(800, seed=2)
    rest = values.sum(axis=0) - values
    left_out = rest[:, 0] / rest[:, 1]
    jackknife = (len(values) - 1) / len(values) * ((left_out - left_out.mean()) ** 2).sum()
    assert estimate(sums_of("Ratio", values)).variance == pytest.approx(jackknife, rel=0.01)


def test_the_delta_method_agrees_with_the_bootstrap_and_the_naive_variance_does_not() -> None:
    values = clicks_and_views(1500, seed=3)
    draws = np.random.default_rng(4).multinomial(1500, np.full(1500, 1 / 1500), size=4000) @ values
    bootstrap = (draws[:, 0] / draws[:, 1]).var()
    found = estimate(sums_of("Ratio", values))
    assert found.variance == pytest.approx(bootstrap, rel=0.08)
    naive = found.value * (1 - found.value) / values[:, 1].sum()
    assert naive < 0.6 * bootstrap, "views of one user are independent here: the test shows nothing"


def test_differences_add_variances_and_scaling_squares_them() -> None:
    gap = Difference(Estimate(2.0, 8.0, 4), Estimate(5.0, 3.0, 6))
    assert (gap.value, gap.variance, gap.fewest_users) == (3.0, 2.5, 4)
    assert Estimate(2.0, 8.0, 4).scaled(-3) == Estimate(-6.0, 72.0, 4)


def test_what_cannot_be_told_is_nan() -> None:
    assert math.isnan(estimate(sums_of("Mean", np.array([3.0]))).variance)
    assert math.isnan(estimate(sums_of("Ratio", np.array([[1.0, 0.0], [2.0, 0.0]]))).value)
    assert not UNDEFINED.excludes_zero
