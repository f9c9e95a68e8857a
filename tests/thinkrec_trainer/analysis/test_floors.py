# SPDX-License-Identifier: Apache-2.0
"""Floors widen where little was seen, and leave the rest alone."""

from __future__ import annotations

import numpy as np
import pytest

from thinkrec_trainer.analysis import sequences
from thinkrec_trainer.analysis.estimates import Difference, Estimate, estimate
from thinkrec_trainer.analysis.floors import cautious, with_larger_arm, with_pseudo_users
from thinkrec_trainer.analysis.sums import Sums, sums_of


def conversions(users: int, converted: int) -> Sums:
    return sums_of("Conversion", (np.arange(users) < converted).astype(np.float64))


def test_pseudo_users_are_those_of_agresti_and_caffo() -> None:
    sums = conversions(1000, 3)
    found = with_pseudo_users(estimate(sums), sums)
    share = 4 / 1002
    assert found.value == pytest.approx(0.003)
    assert found.spread == pytest.approx(share * (1 - share), rel=1e-3)


def test_a_share_near_one_half_is_not_touched_and_neither_are_means() -> None:
    half, mean = conversions(1000, 500), sums_of("Mean", np.array([0.0, 1.0, 0.0]))
    assert with_pseudo_users(estimate(half), half) == estimate(half)
    assert with_pseudo_users(estimate(mean), mean) == estimate(mean)


def test_the_smaller_arm_takes_the_larger_arms_spread_where_its_own_is_smaller() -> None:
    small, large = Estimate(0.0, 1.0, 10), Estimate(0.0, 4.0, 90)
    assert with_larger_arm(Difference(large, small)) == Difference(large, Estimate(0.0, 4.0, 10))
    assert with_larger_arm(Difference(small, large)) == Difference(Estimate(0.0, 4.0, 10), large)
    wide = Difference(large, Estimate(0.0, 9.0, 10))
    assert with_larger_arm(wide) == wide
    even = Difference(small, Estimate(0.0, 4.0, 10))
    assert with_larger_arm(even) == even


def test_both_floors_are_used() -> None:
    means = [sums_of("Mean", (np.arange(users) % period).astype(np.float64)) for users, period in ((90, 9), (10, 2))]
    found = cautious(Difference(estimate(means[0]), estimate(means[1])), *means)
    assert found.variant.spread == found.control.spread == estimate(means[0]).spread
    shares = conversions(90, 1), conversions(10, 0)
    found = cautious(Difference(estimate(shares[0]), estimate(shares[1])), *shares)
    assert found.variant.spread == pytest.approx(1 / 12 * 11 / 12)


def test_a_small_arm_without_any_conversion_is_no_proof() -> None:
    """Of 9 000 users 18 converted, of 1 000 none: quite usual where both convert alike (e^-2 = 14 %)."""
    control, variant = conversions(9000, 18), conversions(1000, 0)
    plain = Difference(estimate(control), estimate(variant))
    assert sequences.compare(plain, minimum=1000, level=0.05).excludes_zero
    assert not sequences.compare(cautious(plain, control, variant), minimum=1000, level=0.05).excludes_zero
