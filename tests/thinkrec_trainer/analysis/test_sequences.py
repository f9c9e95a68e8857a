# SPDX-License-Identifier: Apache-2.0
"""Always-valid intervals: what the formula promises, and what repeated looks do to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from thinkrec_trainer.analysis import fixed, sequences
from thinkrec_trainer.analysis.estimates import UNDEFINED, Difference, Estimate

LEVELS = (0.01, 0.05, 0.2)


def gap(effect: float, spread: float, users: int) -> Difference:
    return Difference(Estimate(0.0, spread, users), Estimate(effect, spread, users))


@settings(max_examples=200, deadline=None)
@given(st.floats(-5, 5), st.floats(1e-3, 1e3), st.integers(50, 10**6), st.sampled_from(LEVELS))
def test_interval_and_p_value_decide_alike(effect: float, spread: float, users: int, level: float) -> None:
    found = sequences.compare(gap(effect, spread, users), minimum=2, level=level)
    if abs(found.p_value - level) > 1e-9:
        assert found.excludes_zero == (found.p_value < level)


def test_the_p_value_is_the_inverse_of_the_mixed_likelihood_ratio() -> None:
    """The closed form against the integral over effects δ ~ N(0, τ²)."""
    effect, variance, mixing = 0.9, 0.1, 0.5
    density = stats.norm(0, math.sqrt(mixing)).pdf
    ratio, _ = integrate.quad(
        lambda delta: density(delta) * math.exp((effect * delta - delta * delta / 2) / variance), -10, 10
    )
    assert sequences.p_value(effect, variance, mixing) == pytest.approx(1 / ratio, rel=1e-8)


@pytest.mark.parametrize("level", LEVELS)
def test_the_interval_is_narrowest_in_standard_errors_at_the_minimum_that_it_is_tuned_to(level: float) -> None:
    mixing = sequences.mixing_variance(2.0, 1000, level)

    def errors(users: int) -> float:
        return sequences.radius(2.0 / users, mixing, level) / math.sqrt(2.0 / users)

    assert min(range(900, 1101), key=errors) == 1000


def test_the_radius_falls_as_users_come_and_stays_above_that_of_a_single_test() -> None:
    sizes = [1000 * 2**power for power in range(12)]
    found = [sequences.compare(gap(0.0, 1.0, size), minimum=1000, level=0.05) for size in sizes]
    radii = [interval.upper for interval in found]
    assert radii == sorted(radii, reverse=True)
    for size, interval in zip(sizes, found, strict=True):
        single = fixed.compare(gap(0.0, 1.0, size), level=0.05)
        assert interval.lower < single.lower < single.upper < interval.upper
    assert radii[0] / math.sqrt(2 / 1000) == pytest.approx(3.04, abs=0.01)


def test_scale_does_not_matter() -> None:
    small, large = (sequences.compare(gap(e, e * e, 500), minimum=100, level=0.05) for e in (1e-6, 1e6))
    assert large.lower / small.lower == pytest.approx(1e12)
    assert large.p_value == pytest.approx(small.p_value)


@pytest.mark.parametrize(
    "difference",
    [
        gap(1.0, 1.0, 99),
        Difference(Estimate(0, 1, 99), Estimate(9, 1, 10**6)),
        gap(1.0, 0.0, 1000),
        gap(math.nan, 1.0, 1000),
        gap(1.0, math.nan, 1000),
        gap(1.0, math.inf, 1000),
        Difference(Estimate(math.nan, math.nan, 0), Estimate(1.0, 1.0, 1000)),
    ],
)
def test_what_is_undefined_is_never_significant(difference: Difference) -> None:
    found = sequences.compare(difference, minimum=100, level=0.05)
    assert found is UNDEFINED
    assert not found.excludes_zero


@pytest.mark.parametrize("users", [1, 2, sequences.FEWEST - 1])
def test_a_handful_of_users_says_nothing_whatever_the_minimum(users: int) -> None:
    assert sequences.compare(gap(9.0, 0.1, users), minimum=1, level=0.05) is UNDEFINED
    assert sequences.single(Estimate(9.0, 0.1, users), minimum=1, level=0.05) is UNDEFINED
    enough = sequences.compare(gap(9.0, 0.1, sequences.FEWEST), minimum=1, level=0.05)
    assert enough == sequences.compare(gap(9.0, 0.1, sequences.FEWEST), minimum=sequences.FEWEST, level=0.05)
    assert enough.excludes_zero


def test_brownian_motion_crosses_the_boundary_in_at_most_the_stated_share_of_paths() -> None:
    """400 looks between the minimum and 100 times as many users; a test at 1.96 crosses in most paths."""
    times = np.geomspace(1, 100, 400)
    steps = np.sqrt(np.diff(times, prepend=0.0))
    walks = np.cumsum(np.random.default_rng(1).normal(size=(4000, 400)) * steps, axis=1) / times
    variances = 1 / times
    mixing = sequences.mixing_variance(1.0, 2, 0.05) * 2  # two users a side have variance 1 here
    radii = np.array([sequences.radius(variance, mixing, 0.05) for variance in variances])
    crossed = (np.abs(walks) > radii).any(axis=1).mean()
    peeked = (np.abs(walks) > 1.96 * np.sqrt(variances)).any(axis=1).mean()
    assert 0.01 < crossed < 0.05
    assert peeked > 0.4
