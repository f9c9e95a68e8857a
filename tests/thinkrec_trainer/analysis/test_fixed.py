# SPDX-License-Identifier: Apache-2.0
"""The test of one look is scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from thinkrec_trainer.analysis import fixed
from thinkrec_trainer.analysis.estimates import UNDEFINED, Difference, Estimate, estimate
from thinkrec_trainer.analysis.sums import sums_of


@pytest.mark.parametrize(("control_users", "variant_users"), [(2, 2), (5, 40), (3000, 200)])
def test_welch_as_scipy_has_it(control_users: int, variant_users: int) -> None:
    generator = np.random.default_rng(control_users)
    control, variant = generator.normal(1, 2, control_users), generator.lognormal(0.4, 1, variant_users)
    found = fixed.compare(
        Difference(estimate(sums_of("Mean", control)), estimate(sums_of("Mean", variant))), level=0.05
    )
    expected = stats.ttest_ind(variant, control, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.lower, found.upper) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_one_value_as_scipy_has_it() -> None:
    values = np.random.default_rng(3).normal(1, 2, 30)
    expected = stats.ttest_1samp(values, 0.0)
    interval = expected.confidence_interval(0.9)
    found = fixed.single(estimate(sums_of("Mean", values)), level=0.1)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.lower, found.upper) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_very_small_variances_do_not_vanish() -> None:
    found = fixed.compare(Difference(Estimate(0.0, 1e-200, 50), Estimate(1e-100, 1e-200, 50)), level=0.05)
    expected = fixed.compare(Difference(Estimate(0.0, 1.0, 50), Estimate(1.0, 1.0, 50)), level=0.05)
    assert found.p_value == pytest.approx(expected.p_value, rel=1e-9)


def test_what_is_undefined() -> None:
    one = Estimate(1.0, float("nan"), 1)
    alike = Estimate(1.0, 0.0, 50)
    assert fixed.compare(Difference(one, Estimate(0.0, 1.0, 50)), level=0.05) is UNDEFINED
    assert fixed.compare(Difference(alike, alike), level=0.05) is UNDEFINED
    assert fixed.single(one, level=0.05) is UNDEFINED
